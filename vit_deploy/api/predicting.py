"""Classes that a model sees in images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_deploy.api.given import (
    ArtifactLike,
    PathLike,
    Tell,
    artifact_path,
    as_text,
    as_texts,
    as_tuple,
    path,
    silent,
    size_text,
)
from vit_deploy.api.results import PredictOutcome
from vit_deploy.api.sending import check_artifacts, predict_elsewhere, refuse_streams
from vit_deploy.checkpoints.hub.progress import telling
from vit_deploy.checkpoints.stated import stated_fields
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.artifact_folders import is_bundle
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.options import CheckpointOptions, PredictOptions
from vit_deploy.core.options.streaming import StreamOptions
from vit_deploy.core.provenance import Step
from vit_deploy.data import answering
from vit_deploy.data.answering import images_of
from vit_deploy.data.elsewhere import check_stream, predictions_from_ray
from vit_deploy.data.items import Source
from vit_deploy.data.pipeline import used_workers
from vit_deploy.data.spreading import Predicting, of_one_worker
from vit_deploy.errors import UsageError
from vit_deploy.remote.options import HostOptions
from vit_deploy.runtimes import classify, runtime_for


def predict(
    model: ArtifactLike,
    images: PathLike | Sequence[PathLike],
    *,
    top: int = PredictOptions.top,
    signature: str | None = None,
    image_size: int | tuple[int, int] | str | None = None,
    runtime: str | None = None,
    provider: str | None = None,
    device: int = 0,
    cuda_graph: bool = False,
    runtime_files: PathLike | None = None,
    browser: str | None = None,
    threads: int | None = None,
    workers: int | None = None,
    column: str | None = None,
    ray: str | None = None,
    reading: CheckpointOptions = CheckpointOptions(),
    on: str | Sequence[str] = (),
    hosts: PathLike | None = None,
    group: str | Sequence[str] = (),
    remote_python: str = HostOptions.remote_python,
    ssh_config: PathLike | None = None,
    timeout: float = HostOptions.timeout,
    progress: Tell = silent,
    note: Tell = silent,
) -> PredictOutcome:
    """Classify image files through the recorded preprocessing; every format gives the same answer.

    Args:
        model: an artifact, or a checkpoint.
        images: image files, folders of them, or any other source that `embed` takes.
        top: how many classes of each image.
        signature: which one runs, of a file for several sizes of images; None for the first.
        image_size: pixels of a side, (height, width), or "384x512", of a file for several sizes or for any, to which
            the recorded preprocessing is scaled; None for the size that it was trained for.
        runtime: engine; None takes the first installed one of the format.
        provider: what executes the graph; None takes the engine's usual one.
        device: which GPU of those that are visible, from 0.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.
        runtime_files: the folder `node_modules` with the JavaScript of engines in browsers; None for the environment's.
        browser: the program of a browser, where one runs it; None takes the first that is installed.
        threads: threads for the work inside one call; None leaves the engine's own choice.
        workers: processes that decode ahead of the model; None for one for each core, up to 8, of many images.
        column: of the images in Parquet files; None finds the only one that can be.
        ray: address of a Ray cluster that runs it; "local" for one on this machine; None for none.
        reading: what a checkpoint file does not say, or how it is to be read otherwise.
        on: other machines to run on instead, as "ssh://user@host", to which the images go as pixels.
        hosts: file that names machines, with groups and options of each.
        group: of the machines in that file, those that are in one of these; none for all.
        remote_python: command of the Python there.
        ssh_config: config file of ssh, instead of the user's.
        timeout: seconds for each machine, sending included.
        progress: called with what is being done.
        note: called with what has to be known meanwhile: what could not be taken away from another machine.

    Returns:
        The likeliest classes of each image, or why it could not be read; `ok` if all could.

    Raises:
        ArtifactError, CheckpointError: nothing that can be run, or damaged.
        ConfigError: a model without a head, a runtime that does not take it, or options that it does not take.
        DataError: a folder without images, or nothing but paths that do not exist.
        MissingEngineError, EngineError: the engine is not installed or refuses the file.
        RemoteError: no machine answered.
    """
    given, texts = artifact_path(model), as_texts(images, "images")
    streaming = StreamOptions(workers, column, ray)
    options = PredictOptions(
        runtime,
        provider,
        device,
        cuda_graph,
        threads,
        as_text(runtime_files),
        browser,
        signature,
        top,
        size_text(image_size),
    )
    machines = HostOptions(as_tuple(on), remote_python, path(ssh_config), timeout, path(hosts), as_tuple(group))
    stated = stated_fields(reading)
    if not machines.elsewhere:
        source = images_of(texts, streaming.column)
        return _predict_here(given, source, options, streaming, stated, progress)
    refuse_streams(texts, streaming)
    check_artifacts([given])
    if stated:
        raise UsageError(f"{', '.join(stated)} can be stated of a checkpoint, and --on sends artifacts")
    files = classify.image_files(list(map(Path, texts)))
    return predict_elsewhere(given, files, options, machines, progress, note)


def _predict_here(
    given: Path,
    source: Source,
    options: PredictOptions,
    streaming: StreamOptions,
    stated: Mapping[str, Any],
    progress: Tell,
) -> PredictOutcome:
    check_stream(streaming)
    found: list[classify.Prediction] = []
    total = source.total()
    if streaming.ray is not None:
        artifact = _artifact_for_ray(given, stated).taken_for(options.signature, options.image_size)
        options = dataclasses.replace(options, runtime=runtime_for(artifact, options.runtime, options.engine))
        work = Predicting((artifact,), (str(options.runtime),), of_one_worker(options.engine), options.top)
        progress(f"starting Ray at {streaming.ray}")
        for prediction in predictions_from_ray(streaming.ray, work, source):
            found.append(prediction)
            progress(f"{len(found)} of {total or 'many'} images")
        return _predicted(found, None)
    count = used_workers(streaming.workers, total)
    progress(f"loading {given}")
    with (
        telling(progress),
        classify.open_classifier(
            given, options.runtime, options.engine, stated, options.signature, options.image_size
        ) as classifier,
    ):
        for prediction in answering.predict(classifier, source, count=options.top, workers=count):
            found.append(prediction)
            progress(f"{len(found)} of {total or 'many'} images")
        origins = None if classifier.origin is None else {given: classifier.origin}
    return _predicted(found, origins)


def _predicted(found: Sequence[classify.Prediction], origins: Mapping[Path, tuple[Step, ...]] | None) -> PredictOutcome:
    return PredictOutcome(
        tuple(found),
        tuple(prediction.to_dict() for prediction in found),
        ok=not any(prediction.failure for prediction in found),
        origins=origins,
    )


def _artifact_for_ray(given: Path, stated: Mapping[str, Any]) -> Artifact:
    """The artifact whose files travel.

    Raises:
        UsageError: a checkpoint, or what is stated of one.
        ConfigError: a model without a head, or made for other outputs.
    """
    if not is_bundle(given):
        raise UsageError(f"--ray runs artifacts, and {given} is none", fix="export it first")
    if stated:
        raise UsageError(f"{', '.join(stated)} can be stated of a checkpoint, and --ray runs artifacts")
    artifact = read_artifact(given)
    classify.check_gives_logits(artifact)
    return artifact
