"""Accuracy of models over labelled images."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_deploy.api.given import (
    ArtifactLike,
    Artifacts,
    PathLike,
    Tell,
    artifact_path,
    artifact_paths,
    as_text,
    as_texts,
    as_tuple,
    path,
    silent,
    size_text,
)
from vit_deploy.api.results import EvaluateOutcome
from vit_deploy.api.sending import evaluate_elsewhere, refuse_streams
from vit_deploy.checkpoints.documents import LABELS, PREPROCESS
from vit_deploy.checkpoints.hub.progress import telling
from vit_deploy.checkpoints.stated import stated_fields
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.options import CheckpointOptions, EvaluateOptions
from vit_deploy.core.options.streaming import StreamOptions
from vit_deploy.data.arrays import Arrays
from vit_deploy.data.elsewhere import RayAnswers, check_stream
from vit_deploy.data.labelled import LabelledStream, labelled_stream
from vit_deploy.data.pipeline import used_workers
from vit_deploy.data.spreading import Evaluating, Other, of_one_worker
from vit_deploy.errors import ConfigError, Failed, UsageError
from vit_deploy.remote.options import HostOptions
from vit_deploy.runtimes import classify, runtime_for
from vit_deploy.runtimes.choosing import with_engines
from vit_deploy.verification import accuracy, feature_accuracy
from vit_deploy.verification.agreement import OtherModel
from vit_deploy.verification.targets import is_checkpoint, open_artifact

OF_A_KERAS_FILE = (PREPROCESS, LABELS)  # what can be stated of one that stands among artifacts


def evaluate(
    artifacts: Artifacts,
    data: PathLike | Sequence[PathLike],
    *,
    batch: int = EvaluateOptions.batch,
    image_size: int | tuple[int, int] | str | None = None,
    runtime: str | None = None,
    provider: str | None = None,
    device: int = 0,
    cuda_graph: bool = False,
    runtime_files: PathLike | None = None,
    browser: str | None = None,
    threads: int | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    labels: PathLike | Sequence[str] | None = None,
    against: ArtifactLike | None = None,
    train: PathLike | Sequence[PathLike] | None = None,
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
) -> EvaluateOutcome:
    """Run artifacts over labelled images, in one pass: top-1, top-5, agreement with fp32, and what is confused.

    Args:
        artifacts: an artifact or a `.keras` file, or several; a folder of artifacts stands for those inside it.
        data: a folder with a folder of images for each class, an `.npz` with uint8 images and labels, or any other
            source that `embed` takes, or several; classes are in tar and Parquet files, else they are files' folders.
        batch: images a call, where a file takes any number.
        image_size: pixels of a side, (height, width), or "384x512", of files for several sizes or for any, to which the
            recorded preprocessing is scaled; None for the size that each was trained for.
        runtime: engine that runs all of them; None takes the usual one of each.
        provider: what executes the graph; None takes the engine's usual one.
        device: which GPU of those that are visible, from 0.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.
        runtime_files: the folder `node_modules` with the JavaScript of engines in browsers; None for the environment's.
        browser: the program of a browser, where one runs it; None takes the first that is installed.
        threads: threads for the work inside one call; None leaves the engine's own choice.
        mean: of pixels in 0..1, in place of what a `.keras` file says; one for each channel or one for all.
        std: standard deviation of pixels, likewise.
        labels: names of the classes of a `.keras` file, or a file that holds them.
        against: a checkpoint or an artifact whose answers to the same images are compared with too.
        train: labelled images, as `data`, by which the features of models without a head tell the classes; None for all
            other images of `data`.
        workers: processes that decode ahead of the models; None for one for each core, up to 8, of many images.
        column: of the images in Parquet files; None finds the only one that can be.
        ray: address of a Ray cluster that runs it; "local" for one on this machine; None for none.
        reading: what a checkpoint that is given as `against` does not say, or how it is to be read otherwise.
        on: other machines to run on instead, as "ssh://user@host", to which the images go as pixels.
        hosts: file that names machines, with groups and options of each.
        group: of the machines in that file, those that are in one of these; none for all.
        remote_python: command of the Python there.
        ssh_config: config file of ssh, instead of the user's.
        timeout: seconds for each machine, sending included.
        progress: called with what is being done.
        note: called with what has to be known meanwhile: what could not be taken away from another machine.

    Returns:
        An evaluation of each artifact; `ok` if all outputs are numbers, every artifact had its engine, and every image
        could be read: others are named, and not counted.

    Raises:
        ArtifactError, CheckpointError: what cannot be read.
        ConfigError: a runtime that does not take a format, options of a GPU where none is used, or an `against` without
            a head.
        UsageError: what is stated of a checkpoint where there is none, or `against` for another machine.
        DataError: classes or sizes that do not fit an artifact or `against`, or no image that can be read; with
            `on`, one that cannot.
        MissingEngineError, EngineError: not one artifact has its engine, or an engine refused.
        RemoteError: no machine answered.
    """
    if batch < 1:
        raise ConfigError(f"batch is {batch}; expected a positive number", fix="give 1 or more")
    size = size_text(image_size)
    options = EvaluateOptions(
        runtime, provider, device, cuda_graph, threads, as_text(runtime_files), browser, batch, size
    )
    machines = HostOptions(as_tuple(on), remote_python, path(ssh_config), timeout, path(hosts), as_tuple(group))
    progress("reading the artifacts")
    found = artifact_paths(artifacts)
    texts, streaming = as_texts(data, "data"), StreamOptions(workers, column, ray)
    stated = stated_fields(
        dataclasses.replace(
            reading,
            mean=reading.mean if mean is None else mean,
            std=reading.std if std is None else std,
            labels=reading.labels if labels is None else _labels(labels),
        )
    )
    other = None if against is None else artifact_path(against)
    _check_stated(stated, found, other)
    if other is not None and machines.elsewhere:
        raise UsageError("--against and --on: another machine has the artifacts alone", fix="evaluate them here")
    training = None if train is None else as_texts(train, "train")
    if training is not None and machines.elsewhere:
        raise UsageError("--train and --on: features are evaluated on this machine", fix="leave --on out")
    if not machines.elsewhere:
        with telling(progress):
            return _evaluate_here(found, texts, options, streaming, other, stated, progress, training)
    refuse_streams(texts, streaming)
    if len(texts) > 1:
        raise UsageError("--on sends one folder of images, or one .npz", fix="give one, or evaluate here")
    return evaluate_elsewhere(found, Path(texts[0]), options, machines, progress, note)


def _labels(given: PathLike | Sequence[str] | None) -> Path | Sequence[str] | None:
    return Path(given) if isinstance(given, str | os.PathLike) else given


def _check_stated(stated: Mapping[str, Any], found: Sequence[Path], against: Path | None) -> None:
    """Refuse what is stated of a checkpoint where there is none that it can be about.

    Raises:
        UsageError: such statements; all are named.
    """
    if against is not None or not stated:
        return
    if not any(map(is_checkpoint, found)):
        raise UsageError(
            f"{', '.join(stated)} can be stated of a checkpoint, and artifacts record their own",
            fix="leave it out, or give the .keras file",
        )
    if others := [name for name in stated if name not in OF_A_KERAS_FILE]:
        raise UsageError(f"{', '.join(others)} can be stated of the checkpoint of --against alone", fix="leave it out")


def _evaluate_here(
    found: Sequence[Path],
    data: Sequence[str],
    options: EvaluateOptions,
    streaming: StreamOptions,
    against: Path | None,
    stated: Mapping[str, Any],
    progress: Tell,
    train: Sequence[str] | None,
) -> EvaluateOutcome:
    check_stream(streaming)
    engine, runtime = options.engine, options.runtime
    of_keras = {name: value for name, value in stated.items() if name in OF_A_KERAS_FILE}
    given = [open_artifact(entry, of_keras).taken_for(image_size=options.image_size) for entry in found]
    opened, failed = with_engines(given, runtime, engine)
    if opened and all(map(feature_accuracy.gives_features, opened)):
        if against is not None:
            raise UsageError(
                "--against is a model whose classes are compared, and these give none", fix="evaluate it beside them"
            )
        return _features_here(opened, failed, data, train, options, streaming, progress)
    if train is not None:
        raise UsageError(
            "--train is for models that give features, and these give classes",
            fix="leave it out, or evaluate them apart",
        )
    with (
        labelled_stream(data, streaming.column, used_workers(streaming.workers)) as images,
        contextlib.ExitStack() as stack,
    ):
        dataset = images.dataset
        other = None
        if against is not None:
            progress(f"loading {against}")
            other = OtherModel(against, stack.enter_context(classify.open_classifier(against, stated=stated)))
            dataset.check_size(str(against), other.classifier.config)
        answers = None
        if streaming.ray is not None:
            work = dataclasses.replace(_spread(opened, options), other=None if other is None else _other(other))
            progress(f"starting Ray at {streaming.ray}")
            answers = RayAnswers(streaming.ray, work, images.source or Arrays(dataset.path), images.broken)
        results = accuracy.evaluate(
            opened,
            images,
            batch=options.batch,
            runtime=runtime,
            options=engine,
            against=other,
            answers=answers,
            progress=progress,
        )
    origins = {model.path: model.provenance for model in opened if model.is_checkpoint}
    if other is not None and other.classifier.origin is not None:
        origins[other.path] = other.classifier.origin
    return EvaluateOutcome(
        tuple(results),
        tuple(accuracy.to_json(result) | dataset.to_dict(result.artifact) for result in results),
        ok=all(result.finite and not (result.against and result.against.failures) for result in results)
        and not failed
        and not images.broken,
        failed=tuple(failed),
        origins=origins or None,
        dataset=dataset,
    )


def _spread(opened: Sequence[Artifact], options: EvaluateOptions) -> Evaluating:
    """What workers of a cluster do."""
    engine = options.engine
    runtimes = tuple(runtime_for(artifact, options.runtime, engine) for artifact in opened)
    largest = dataclasses.replace(of_one_worker(engine), largest_batch=options.batch)
    return Evaluating(tuple(opened), runtimes, largest, options.batch)


def _other(model: OtherModel) -> Other:
    """The same of a model beside them."""
    if model.classifier.checkpoint is not None:
        return Other(model.classifier.checkpoint)
    return Other(read_artifact(model.path), model.classifier.runtime)


def _features_here(
    opened: Sequence[Artifact],
    failed: Sequence[Failed],
    data: Sequence[str],
    train: Sequence[str] | None,
    options: EvaluateOptions,
    streaming: StreamOptions,
    progress: Tell,
) -> EvaluateOutcome:
    def images(given: Sequence[str]) -> feature_accuracy.Images:
        return lambda: labelled_stream(given, streaming.column, used_workers(streaming.workers))

    def elsewhere(labelled: feature_accuracy.LabelledImages) -> RayAnswers:
        assert isinstance(labelled, LabelledStream) and streaming.ray is not None
        work = dataclasses.replace(_spread(opened, options), answer=feature_accuracy.vectors)
        progress(f"starting Ray at {streaming.ray}")
        return RayAnswers(streaming.ray, work, labelled.source or Arrays(labelled.dataset.path), labelled.broken)

    results = feature_accuracy.evaluate_features(
        opened,
        images(data),
        None if train is None else images(train),
        batch=options.batch,
        runtime=options.runtime,
        options=options.engine,
        answers=None if streaming.ray is None else elsewhere,
        progress=progress,
    )
    with images(data)() as labelled:
        dataset = labelled.dataset
    origins = {model.path: model.provenance for model in opened if model.is_checkpoint}
    return EvaluateOutcome(
        tuple(results),
        tuple(feature_accuracy.to_json(result) for result in results),
        ok=all(result.finite and not result.broken for result in results) and not failed,
        failed=tuple(failed),
        origins=origins or None,
        dataset=dataset,
    )
