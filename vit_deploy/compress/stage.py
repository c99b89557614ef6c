"""What happens around a training: a model made ready, a process of its own that trains, and a checkpoint again?"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import vit_deploy
from vit_deploy import errors
from vit_deploy.checkpoint import Checkpoint
from vit_deploy.compress import CompressOptions, check
from vit_deploy.compress.data import Images
from vit_deploy.compress.job import RESULT, Job
from vit_deploy.compress.state import load_state
from vit_deploy.errors import DataError, EngineError
from vit_deploy.exporters.folding import fold_layer_scales, fold_norms
from vit_deploy.staging import check_targets, explained_os_errors

STOPPING_S = 10  # that a process which is asked to end may take
TAIL = 5  # lines of what it said that an error repeats

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Compressed:
    """What became of a checkpoint.

    Args:
        checkpoint: the compressed model.
        history: what each epoch gave; see `training.Trained`.
        best_epoch: whose weights were kept, from 1.
        held_out: the images that it was judged by.
        resumed: whether the training went on from where it was killed before.
    """

    checkpoint: Checkpoint
    history: Sequence[Mapping[str, Any]]
    best_epoch: int
    held_out: Images
    resumed: bool


def ready(checkpoint: Checkpoint) -> Checkpoint:
    """A checkpoint of the same function with nothing left that an exporter would multiply into its kernels.

    Otherwise few distinct values of a kernel would become many in the file.
    """
    return fold_norms(fold_layer_scales(checkpoint))


def compress(
    checkpoint: Checkpoint,
    options: CompressOptions,
    data: Path,
    *,
    held_out: Path | None = None,
    state: Path,
    progress: Progress = lambda doing: None,
) -> Compressed:
    """Compress a model by training it on labelled images.

    Args:
        checkpoint: the model, with a head.
        options: what to do.
        data: a folder of class folders, or an `.npz` of `images` and `labels`.
        held_out: images of the same kind to judge by; None takes a part of `data`.
        state: folder of the training. It is removed at the end; a run that is killed leaves it, and the next one with
            the same model, options and data goes on from there.
        progress: called with what is being done.

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
    folded = dataclasses.replace(ready(checkpoint), ranges={})
    fresh = not state.exists()
    check_targets([state], force=True)
    try:
        with explained_os_errors(state):
            state.mkdir(parents=True, exist_ok=True)
            progress("reading the images")
            job = Job.write(folded, options, data, held_out, state)
        _, judged_by = job.images()
    except errors.VitDeployError:
        if fresh:  # nothing was trained yet: bad input leaves nothing behind
            shutil.rmtree(state, ignore_errors=True)
        raise
    resumed = load_state(state, job.fingerprint()) is not None
    _run(state, progress)
    weights, about = _read_result(state / RESULT)
    compressed = dataclasses.replace(
        folded, weights=weights, ranges={name: tuple(each) for name, each in about["ranges"].items()}
    )
    facts = {**options.facts(), "from": checkpoint.digest(), "epochs": about["best_epoch"]}
    shutil.rmtree(state, ignore_errors=True)
    return Compressed(
        compressed.with_step("compress", **facts), about["history"], about["best_epoch"], judged_by, resumed
    )


def _run(folder: Path, progress: Progress) -> None:
    # TensorFlow's switches for Keras 2 and for exact repetition hold for a whole process.
    path = os.pathsep.join(filter(None, [str(Path(vit_deploy.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "vit_deploy.compress.worker", str(folder)]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        _stopped_at_the_end(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
                text=True,
                encoding="utf-8",
            )
        ) as process,
    ):
        failure: dict[str, str] = {}
        for line in process.stdout or ():
            said = _parsed(line)
            if "doing" in said:
                progress(said["doing"])
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
                f"the training ended with exit code {code}: {tail}",
                fix=f"run the same command again to go on from {folder}, or remove that folder to begin anew",
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
        if process.stdout is not None:
            process.stdout.close()


def _parsed(line: str) -> dict[str, str]:
    try:
        said = json.loads(line)
    except json.JSONDecodeError:  # a library that prints
        return {}
    return said if isinstance(said, dict) else {}


def _read_result(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with np.load(path, allow_pickle=False) as file:
        weights = {name: file[name] for name in file.files if name != "about.json"}
        return weights, json.loads(file["about.json"])
