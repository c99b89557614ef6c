"""Features of any number of images, written to a file."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vit_deploy.api.given import (
    ArtifactLike,
    PathLike,
    Tell,
    artifact_path,
    as_text,
    as_texts,
    folder_path,
    silent,
    size_text,
)
from vit_deploy.api.results import EmbedOutcome
from vit_deploy.core.artifact import Artifact, versions
from vit_deploy.core.manifest import MANIFEST
from vit_deploy.core.older_python import sha256_of
from vit_deploy.core.options.streaming import EmbedOptions, StreamOptions
from vit_deploy.data import embedding
from vit_deploy.data.addresses import is_written_like_address
from vit_deploy.data.elsewhere import check_stream, rows_from_ray
from vit_deploy.data.finding import find_source
from vit_deploy.data.pipeline import used_workers
from vit_deploy.errors import ConfigError, UsageError, closest
from vit_deploy.runtimes import GPU_PROVIDERS, RuntimeOptions, is_asked_for_gpu, may_choose_gpu, runtime_for
from vit_deploy.verification.targets import open_artifact

BATCH, BATCH_ON_GPU = 8, 32
STREAMS = 2  # on a processor: while one call ends with few of its threads at work, another goes on
SHARING = ("onnxruntime", "litert", "openvino")  # engines of which each session has threads of its own


def embed(
    artifact: ArtifactLike,
    data: PathLike | Sequence[PathLike],
    output: PathLike,
    *,
    top: int | None = None,
    output_name: str | None = None,
    image_size: int | tuple[int, int] | str | None = None,
    batch: int | None = None,
    streams: int | None = None,
    workers: int | None = None,
    column: str | None = None,
    ray: str | None = None,
    runtime: str | None = None,
    provider: str | None = None,
    device: int = 0,
    cuda_graph: bool = False,
    threads: int | None = None,
    runtime_files: PathLike | None = None,
    browser: str | None = None,
    force: bool = False,
    progress: Tell = silent,
    note: Tell = silent,
) -> EmbedOutcome:
    """Write what an artifact gives for each image: name, digest, and vector, tokens or likeliest classes.

    Finished rows are kept in a folder beside the output, `<output>.parts`, until the output is whole: a run that was
    ended, however it was, is gone on with by the same call, and what is written is the same byte for byte. A broken
    image is a row with its reason.

    Args:
        artifact: an artifact or a `.keras` file.
        data: a folder, a pattern, a `.txt` list, an `.npz`, `.parquet` or `.tar` files, an address as
            `s3://bucket/photos`, or several of these.
        output: a `.parquet`, or an `.npy` with a `.jsonl` beside it for names and digests.
        top: how many of the likeliest classes are written in place of the vector.
        output_name: which output is written, of a file with several; None for logits, or the first without them.
        image_size: pixels of a side, (height, width), or "384x512", of a file for several sizes or for any, to which
            the recorded preprocessing is scaled; None for the size that it was trained for.
        batch: images a call, where a file takes any number; None for 8, on a GPU 32.
        streams: calls at the same time, each with a model of its own; None for 2 on a processor.
        workers: processes that decode ahead; None for one for each core, up to 8; 0 for none.
        column: of the images in Parquet files; None finds the only one that can be.
        ray: address of a Ray cluster that runs it, with an engine for each of its workers; "local" for one on this
            machine; None for none.
        runtime: engine; None takes the first installed one of the format.
        provider: what executes the graph; None takes the engine's usual one.
        device: which GPU of those that are visible, from 0.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.
        threads: threads for the work inside one call; None shares the cores among the streams.
        runtime_files: the folder `node_modules` with the JavaScript of engines in browsers; None for the environment's.
        browser: the program of a browser, where one runs it; None takes the first that is installed.
        force: whether an output that is there is replaced, and parts of another run are thrown away.
        progress: called with what is being done, how fast, and how long it is going to take.
        note: called with what has to be known meanwhile.

    Returns:
        What was written; `ok` if no image was broken.

    Raises:
        ArtifactError, CheckpointError: nothing that can be run, or damaged.
        ConfigError: a runtime that does not take it, or numbers that cannot be.
        DataError: no images, or what holds them is damaged.
        MissingEngineError, EngineError: the engine is not installed or refuses the file.
        OutputError: a file that is there or cannot be written, or parts that another run has begun otherwise.
        UsageError: an output with another ending, or options that exclude each other.
    """
    files, size = as_text(runtime_files), size_text(image_size)
    options = EmbedOptions(
        runtime, provider, device, cuda_graph, threads, files, browser, batch, streams, top, output_name, size
    )
    reading = StreamOptions(workers, column, ray)
    for name in ("top", "batch", "streams", "threads"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise ConfigError(f"{name} is {value}; expected a positive number", fix="give 1 or more")
    target = folder_path(output, "output")
    if is_written_like_address(str(target)):
        raise UsageError(
            f"{target} is another file system, and what is embedded is written on this computer",
            fix="write a file here, and copy it there",
        )
    embedding.check_output(target, force=force)
    progress("reading the artifact")
    given = open_artifact(artifact_path(artifact)).taken_for(image_size=options.image_size)
    model = _model(given, options)
    source = find_source(as_texts(data, "data"), reading.column)
    check_stream(reading)
    count = used_workers(reading.workers)
    if reading.ray is not None:
        # One model a worker, on cores of its own: those that are asked for, or one.
        engine = dataclasses.replace(model.options, threads=options.threads or (1 if model.streams > 1 else None))
        model = dataclasses.replace(model, options=engine, streams=1)
    found = embedding.embed(
        model,
        source,
        target,
        _job(model, options),
        lambda items, start: (
            embedding.computed_here(model, items, count)
            if reading.ray is None
            else rows_from_ray(reading.ray, model, source, start)
        ),
        force=force,
        progress=progress,
        note=note,
    )
    return EmbedOutcome((found,), (found.to_dict(),), ok=not found.broken)


def _model(artifact: Artifact, options: EmbedOptions) -> embedding.Model:
    name = runtime_for(artifact, options.runtime, options.engine)
    on_gpu = is_asked_for_gpu(name, options.provider) or may_choose_gpu(name, options.provider)
    on_gpu = on_gpu or options.provider in GPU_PROVIDERS
    batch = artifact.input.batch or options.batch or (BATCH_ON_GPU if on_gpu else BATCH)
    if options.batch is not None and options.batch != batch:
        raise ConfigError(f"--batch is {options.batch}, and {artifact.path} takes {batch}", fix="leave it out")
    classes = artifact.config.num_classes
    output = options.output_name or artifact.output_name
    if output not in artifact.output_names:
        raise ConfigError(
            f"{artifact.path} has no output {output!r}",
            fix=f"{closest(output, artifact.output_names)} it gives {', '.join(artifact.output_names)}".strip(),
        )
    if options.top is not None and options.output_name is not None:
        raise UsageError("--top writes classes in place of an output", fix="leave out --top or --output")
    if options.top is not None and not artifact.gives_logits:
        raise UsageError(
            f"--top gives classes, and {artifact.path} gives {artifact.output_name}", fix="leave it out for the vectors"
        )
    streams = options.streams or (STREAMS if name in SHARING and not on_gpu and options.threads is None else 1)
    threads = options.threads
    if threads is None and streams > 1:
        threads = max(1, _cores() // streams)
    engine: RuntimeOptions = dataclasses.replace(options.engine, threads=threads, largest_batch=batch)
    return embedding.Model(
        artifact, name, engine, batch, streams, None if options.top is None else min(options.top, classes), output
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _job(model: embedding.Model, options: EmbedOptions) -> dict[str, Any]:
    """What the rows depend on beside the images; neither how many streams nor how many workers."""
    return {
        "schema": 1,
        "artifact": _digest(model.artifact),
        "runtime": model.runtime,
        "provider": options.provider,
        "batch": model.batch,
        "threads": options.threads,
        "top": model.top,
        "output": model.output_name,
        **({"image_size": model.artifact.taken_size} if model.artifact.taken_size else {}),
        "versions": versions(
            "onnxruntime", "onnxruntime-gpu", "ai-edge-litert", "openvino", "tensorflow-cpu", "pillow"
        ),
    }


def _digest(artifact: Artifact) -> str:
    """Of the manifest, which holds the digests of all files; of a checkpoint, of the file."""
    if artifact.is_checkpoint:
        with Path(artifact.path).open("rb") as file:
            return sha256_of(file)
    return hashlib.sha256((artifact.directory / MANIFEST).read_bytes()).hexdigest()
