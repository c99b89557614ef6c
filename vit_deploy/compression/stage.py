"""The steps around a training: a model made ready, a process of its own that trains, and a checkpoint again."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import vit_deploy
from vit_deploy import errors
from vit_deploy.compression import SHRINK, CompressOptions, check
from vit_deploy.compression.data import Images
from vit_deploy.compression.float_ranges import measured_between
from vit_deploy.compression.job import RESULT, Job
from vit_deploy.compression.round_state import has_begun
from vit_deploy.compression.sizes import check_sizes
from vit_deploy.compression.state import load_state
from vit_deploy.compression.training_folder import TrainingFolder
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.child_processes import ending, python
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.staging import explained_os_errors
from vit_deploy.errors import DataError, EngineError
from vit_deploy.exporters.folding import fold_layer_scales, fold_norms
from vit_deploy.exporters.mean_centering import centre_stream
from vit_deploy.exporters.quantization import QUANTIZERS

WORKER = ("-m", "vit_deploy.compression.worker")
STOPPING_S = 10  # that a process which is asked to end may take
LEARNS_RANGES = "qat"  # of all methods
BETWEEN = "between"  # folder of the file in which other ranges are measured
TAIL = 5  # lines of what it said that an error repeats

Progress = Callable[[str], object]
OnEpoch = Callable[[Mapping[str, Any]], object]


@dataclass(frozen=True, eq=False)
class Compressed:
    """What became of a checkpoint.

    Args:
        checkpoint: the compressed model.
        history: what each epoch gave; see `compression.history`.
        best_epoch: whose weights were kept, from 1.
        trained_on: the images that it was trained on.
        held_out: the images that it was judged by.
        resumed: whether the training went on from where it was killed before.
    """

    checkpoint: Checkpoint
    history: Sequence[Mapping[str, Any]]
    best_epoch: int
    trained_on: Images
    held_out: Images
    resumed: bool


def ready(checkpoint: Checkpoint, *, centred: bool = False) -> Checkpoint:
    """A checkpoint of the same function with nothing left that an exporter would multiply into its kernels.

    Otherwise few distinct values of a kernel would become many in the file.

    Args:
        centred: whether layer norms become RMS norms where the exporter would have them so. Ranges that are learned
            then hold for the short norms, without which a file of integers alone takes 1.5 times as long. Training with
            60 % zeros loses by it: 0.4 points of top-1 of digits, the mean of ten runs.
    """
    folded = fold_norms(fold_layer_scales(checkpoint))
    return centre_stream(folded) if centred else folded


def compress(
    checkpoint: Checkpoint,
    options: CompressOptions,
    data: Path,
    *,
    held_out: Path | None = None,
    state: TrainingFolder,
    progress: Progress = lambda doing: None,
    on_epoch: OnEpoch = lambda record: None,
) -> Compressed:
    """Compress a model by training it on labelled images.

    Args:
        checkpoint: the model, with a head.
        options: what to do.
        data: a folder of class folders, or an `.npz` of `images` and `labels`.
        held_out: images of the same kind to judge by; None takes a part of `data`.
        state: folder of the training, with what an earlier run of the same model, options and data has left there.
        progress: called with what is being done.
        on_epoch: called with what each epoch gave; see `compression.history`.

    Raises:
        ConfigError: layers that are not there.
        DataError: images or classes that the model cannot have.
        MissingEngineError: tensorflow-model-optimization or what it needs is not installed.
        EngineError: the training failed.
        OutputError: the state cannot be written.
    """
    check(options.method)
    options.layers(checkpoint.config)
    if not checkpoint.config.include_top:
        raise DataError("the model has no head, and classes are what it is trained on", fix="give one with a head")
    shrinks = options.method == SHRINK
    if shrinks:
        check_sizes(options, checkpoint.config)
    # Of a shrunk model all is trained, and what exporters fold is better apart.
    folded = checkpoint if shrinks else ready(checkpoint, centred=options.method == LEARNS_RANGES)
    folded = dataclasses.replace(folded, ranges={})
    folder = state.path
    progress("reading the images")
    with explained_os_errors(folder):
        job = Job.write(folded, options, data, held_out, folder)
    images, judged_by = job.images()
    resumed = has_begun(folder, job.fingerprint()) if shrinks else load_state(folder, job.fingerprint()) is not None
    _run(state, progress, on_epoch)
    weights, about = _read_result(folder / RESULT)
    ranges = {name: tuple(ends) for name, ends in about["ranges"].items()}
    config = ViTConfig.from_dict(about["config"]) if shrinks else folded.config
    compressed = dataclasses.replace(folded, config=config, weights=weights, ranges=ranges)
    if ranges and not QUANTIZERS["tflite"].missing():
        progress("measuring the ranges between the layers")
        between = measured_between(compressed, images, folder / BETWEEN)
        compressed = dataclasses.replace(compressed, ranges={**between, **ranges})
    facts = {**options.facts(), "from": checkpoint.digest(), "epochs": about["best_epoch"]}
    return Compressed(
        compressed.with_step("compress", **facts), about["history"], about["best_epoch"], images, judged_by, resumed
    )


def _run(folder: TrainingFolder, progress: Progress, on_epoch: OnEpoch) -> None:
    # TensorFlow's switches for Keras 2 and for exact repetition hold for a whole process.
    path = os.pathsep.join(filter(None, [str(Path(vit_deploy.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    command = python(*WORKER, str(folder.path))
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        _stopped_at_the_end(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # whose end tells it that this process is gone
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
                text=True,
                encoding="utf-8",
                pass_fds=() if folder.lock is None else (folder.lock,),
            )
        ) as process,
    ):
        failure: dict[str, Any] = {}
        for line in process.stdout or ():
            said = _parsed(line)
            if "doing" in said:
                progress(said["doing"])
            elif "epoch" in said:
                on_epoch(said["epoch"])
            elif "error" in said:
                failure = said
        code = process.wait()
        if failure:
            kind = getattr(errors, failure["error"])
            raise kind(failure["message"], fix=failure["fix"])
        if code:
            log.seek(0)
            tail = "\n".join(log.read().strip().splitlines()[-TAIL:])
            raise EngineError(
                f"the training ended ({ending(code)}): {tail}",
                fix=f"run the same command again to go on from {folder.path}, or remove that folder to begin again",
            )


@contextlib.contextmanager
def _stopped_at_the_end(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOPPING_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for stream in filter(None, (process.stdin, process.stdout)):
            stream.close()


def _parsed(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except json.JSONDecodeError:  # a library that prints
        return {}
    return said if isinstance(said, dict) else {}


def _read_result(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with np.load(path, allow_pickle=False) as file:
        weights = {name: file[name] for name in file.files if name != "about.json"}
        return weights, json.loads(file["about.json"])
