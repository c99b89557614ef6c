"""Vectors of all images of a source, computed while the next ones are decoded, and written once they are whole."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.quantities import not_finite
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.core.staging import check_file_target, staged_file
from vit_deploy.data.decoding import Decoded, Decoder
from vit_deploy.data.items import Item, Source, printable
from vit_deploy.data.npy_output import NAMES
from vit_deploy.data.parts import Parts, is_finishing, open_parts
from vit_deploy.data.pipeline import decoded, in_order
from vit_deploy.data.rows import CLASS, PROBABILITY, VECTOR, Rows, joined, likeliest, spread
from vit_deploy.errors import DataError, UsageError
from vit_deploy.runtimes import RuntimeOptions, Session, infer_outputs, open_session

OUTPUTS = Registry(
    "output",
    {
        ".npy": Plugin("vit_deploy.data.npy_output:write"),
        ".parquet": Plugin("vit_deploy.data.parquet_output:write", "data", ("pyarrow",)),
    },
)
PART_S = 5.0  # after which what is computed is kept, so that no later run does it again
PART_BYTES = 4_000_000  # of values, which are held twice while they are written
EMPTY = {VECTOR: np.nan, CLASS: -1, PROBABILITY: np.nan}  # the values of an image that has none
NAMED = 100  # broken images that the result names; the output has all

Tell = Callable[[str], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Model:
    """What images are run through.

    Args:
        artifact: the model.
        runtime: the name of its engine.
        options: how to run it.
        batch: images a call.
        streams: calls at the same time, each with a model of its own.
        top: how many of the likeliest classes are wanted, in place of the vector; None for the vector.
        output: the name of the output that is wanted; empty for the artifact's own.
    """

    artifact: Artifact
    runtime: str
    options: RuntimeOptions
    batch: int
    streams: int = 1
    top: int | None = None
    output: str = ""

    @property
    def output_name(self) -> str:
        """The output that is written."""
        return self.output or self.artifact.output_name

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Its shape for one image."""
        artifact = self.artifact
        if self.output_name == artifact.output_name:
            return artifact.output_shape
        return next(one.shape(artifact.config) for one in artifact.named_outputs if one.name == self.output)

    @property
    def decoder(self) -> Decoder:
        """What makes its pixels."""
        return Decoder(((self.artifact.preprocess, self.artifact.config.image_size),), digests=True)

    def rows(self, session: Session, items: Sequence[Item], images: Decoded) -> Rows:
        """What one session makes of images, a batch at a time; broken ones leave a call with fewer."""
        names = [item.name for item in items]
        parts = images.parts(self.batch)
        starts = range(0, len(items), self.batch)
        return joined(
            [
                self._batch(session, names[start : start + self.batch], part)
                for start, part in zip(starts, parts, strict=True)
            ]
        )

    def _batch(self, session: Session, names: Sequence[str], images: Decoded) -> Rows:
        [pixels] = images.pixels
        artifact = self.artifact
        if len(pixels):
            inside = artifact.input.preprocessing_inside
            given = pixels if inside else artifact.preprocess.normalize(pixels)
            if self.output_name == artifact.output_name:
                outputs = session.infer(given)
            else:
                outputs = infer_outputs(session, artifact, given)[self.output]
        else:
            outputs = np.zeros((0, *self.output_shape), np.float32)
        values = {VECTOR: outputs} if self.top is None else likeliest(outputs, self.top, artifact.config)
        wrong = (~np.isfinite(outputs)).sum(axis=tuple(range(1, outputs.ndim)))
        said = iter([f"the model answered {not_finite(count)}" if count else "" for count in wrong])
        return Rows(
            tuple(names),
            images.digests,
            # A path in a message may be no valid Unicode, as a Parquet file wants all texts.
            tuple(printable(failure) or next(said) for failure in images.failures),
            {name: spread(value, images.failures, EMPTY[name]) for name, value in values.items()},
        )


@dataclass(frozen=True)
class Embedded:
    """What was written.

    Args:
        path: of the file.
        artifact: that was run.
        runtime: that ran it.
        provider: what executed the graph; empty where all was finished before.
        images: how many rows there are.
        broken: how many of them could not be read.
        failures: why, of the first of them.
        resumed: how many an earlier run had finished.
        seconds: that this run took.
    """

    path: Path
    artifact: Artifact
    runtime: str
    provider: str
    images: int
    broken: int
    failures: tuple[str, ...]
    resumed: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """One result of the command `embed`."""
        done = self.images - self.resumed
        return {
            "path": str(self.path),
            "artifact": str(self.artifact.path),
            **({"image_size": self.artifact.taken_size} if self.artifact.taken_size else {}),
            "runtime": self.runtime,
            "provider": self.provider or None,
            "images": self.images,
            "broken": self.broken,
            "failures": list(self.failures),
            "resumed": self.resumed,
            "seconds": self.seconds,
            "throughput_per_s": done / self.seconds if done else None,
        }


Ready = Iterator[tuple[list[Item], Rows]]
OpenRows = Callable[[Iterator[Item], int], contextlib.AbstractContextManager[tuple[Ready, Callable[[], str]]]]
"""Opens what turns images into rows, in their order, from one on whose place is given too; the function that comes
with them gives what executed the graph."""


def output_files(output: Path) -> tuple[Path, ...]:
    """The files that are written for an output.

    Raises:
        UsageError: a name with another ending.
        MissingEngineError: what writes them is not installed.
    """
    if output.suffix not in OUTPUTS:
        raise UsageError(f"the file to write is {output.name!r}; expected a name that ends in {', '.join(OUTPUTS)}")
    OUTPUTS.check(output.suffix)
    return (output, output.with_suffix(NAMES)) if output.suffix == ".npy" else (output,)


def check_output(output: Path, *, force: bool) -> None:
    """Refuse an output that is there, unless an earlier run was ended while it was put in its place.

    Raises:
        OutputError: a file that is there, or cannot be written.
        UsageError, MissingEngineError: as `output_files`.
    """
    for file in output_files(output):
        check_file_target(file, force=force or is_finishing(output))


def embed(
    model: Model,
    source: Source,
    output: Path,
    job: Mapping[str, Any],
    open_rows: OpenRows,
    *,
    force: bool = False,
    progress: Tell = lambda doing: None,
    note: Tell = lambda text: None,
    clock: Clock = time.monotonic,
) -> Embedded:
    """Run all images through a model and write what it gives, going on where an earlier run was ended.

    Args:
        model: the model.
        source: the images.
        output: the file to write, `.parquet` or `.npy`.
        job: what the rows depend on beside the images, in plain JSON values.
        open_rows: what computes; see `computed_here`.
        force: whether a file that is there, or parts of another job, are replaced.
        progress: called with what is being done.
        note: called with what has to be known meanwhile.
        clock: seconds, as they pass.

    Raises:
        DataError: no images, or what holds them is damaged.
        OutputError: a file that is there, cannot be written, or parts of another job.
        EngineError: the engine refuses the file, or fails.
    """
    files = output_files(output)
    check_output(output, force=force)
    if model.top is not None and output.suffix == ".npy":
        raise UsageError(
            "--top gives classes and probabilities, and an .npy has room for one array", fix="write .parquet"
        )
    begun = clock()
    with open_parts(output, {**job, "source": source.identity}, source, force=force) as parts:
        resumed = parts.count
        if resumed:
            note(f"going on after {resumed} images that {parts.folder} holds")
        progress("counting the images")
        telling = _Progress(str(model.artifact.path), source.total(), resumed, progress, clock)
        provider = _compute(model, source, parts, open_rows, telling, clock, note)
        if not parts.count:
            raise DataError("there are no images", fix="check what --data stands for")
        progress(f"writing {output}")
        ours = force or is_finishing(output)
        check_output(output, force=ours)  # another run may have written it meanwhile
        parts.finish()
        broken, failures = _written(model, parts, files, force=ours)
        parts.discard()
    return Embedded(
        output,
        model.artifact,
        model.runtime,
        provider,
        parts.count,
        broken,
        failures,
        resumed,
        clock() - begun,
    )


def _compute(
    model: Model, source: Source, parts: Parts, open_rows: OpenRows, telling: _Progress, clock: Clock, note: Tell
) -> str:
    """Compute what is not there yet, and keep it every few seconds and when the run ends, however it does."""
    waiting: list[Rows] = []
    seen: list[Item] = []

    def keep() -> None:
        if waiting:
            rows, items = joined(waiting), list(seen)
            waiting.clear()
            seen.clear()
            for item in items:
                parts.saw(item)
            parts.add(rows)

    items = source.items(parts.count)
    first = next(items, None)
    if first is None:  # all was finished, and nothing written yet
        return ""
    with open_rows(_chained(first, items), parts.count) as (ready, provider):
        kept = clock()
        try:
            for group, rows in ready:
                waiting.append(rows)
                seen += [Item(item.name, stamp=item.stamp) for item in group]
                telling.count(len(rows))
                if clock() - kept >= PART_S or sum(part.nbytes for part in waiting) >= PART_BYTES:
                    keep()
                    kept = clock()
        except (KeyboardInterrupt, SystemExit):
            keep()
            if parts.count:
                note(f"{parts.folder} keeps {parts.count} finished images, and the same command goes on from there")
            raise
        keep()
        return provider()


def _chained(first: Item, rest: Iterator[Item]) -> Iterator[Item]:
    yield first
    yield from rest


def _written(model: Model, parts: Parts, files: Sequence[Path], *, force: bool) -> tuple[int, tuple[str, ...]]:
    broken = 0
    failures: list[str] = []

    def counted() -> Iterator[Rows]:
        nonlocal broken
        for rows in parts.rows():
            found = [failure for failure in rows.failures if failure]
            broken += len(found)
            failures.extend(found[: NAMED - len(failures)])
            yield rows

    artifact = model.artifact
    about = {
        "artifact": artifact.name,
        "weights_digest": artifact.weights_digest,
        "output": model.output_name,
        "shape": "x".join(map(str, model.output_shape)),
        "labels": "\n".join(artifact.labels) if model.top is not None else "",
    }
    with contextlib.ExitStack() as stack:
        # The last one named is put in place first: beside an `.npy` there is always the file with its names.
        staged = [stack.enter_context(staged_file(file, force=force)) for file in files]
        OUTPUTS.load(files[0].suffix)(counted(), staged, parts.count, about)
    return broken, tuple(failures)


@contextlib.contextmanager
def computed_here(model: Model, items: Iterator[Item], workers: int) -> Iterator[tuple[Ready, Callable[[], str]]]:
    """Rows computed by engines in this process, while others decode.

    Args:
        model: the model.
        items: the images.
        workers: processes that decode; 0 for none.
    """
    with contextlib.ExitStack() as stack:
        sessions = [
            stack.enter_context(open_session(model.artifact, model.runtime, model.options))
            for _ in range(model.streams)
        ]
        groups = stack.enter_context(decoded(items, model.decoder, batch=model.batch, workers=workers))
        if len(sessions) == 1:
            ready = ((group, model.rows(sessions[0], group, images)) for group, images in groups)
            yield ready, lambda: sessions[0].provider
            return
        idle = list(sessions)

        def run(given: tuple[list[Item], Decoded]) -> tuple[list[Item], Rows]:
            session = idle.pop()  # as many threads as sessions: there is always one
            try:
                return given[0], model.rows(session, *given)
            finally:
                idle.append(session)

        threads = stack.enter_context(ThreadPoolExecutor(len(sessions), thread_name_prefix="stream"))
        yield in_order(threads, run, groups, 2 * len(sessions)), lambda: sessions[0].provider


class _Progress:
    """How far it is, how fast, and how long it is going to take."""

    def __init__(self, name: str, total: int | None, done: int, tell: Tell, clock: Clock) -> None:
        self._name, self._total, self._done, self._tell, self._clock = name, total, done, tell, clock
        self._begun, self._before = clock(), done

    def count(self, images: int) -> None:
        """Tell of more images."""
        self._done += images
        seconds = self._clock() - self._begun
        rate = (self._done - self._before) / seconds if seconds > 0 else 0.0
        speed = f"{rate:.1f} images/s"
        if self._total is None:
            self._tell(f"{self._name}: {self._done} images, {speed}")
        else:
            left = max(self._total - self._done, 0) / rate if rate else 0.0
            share = self._done / max(self._total, 1)
            self._tell(f"{self._name}: {self._done} of {self._total} images, {speed}, {_clock(left)} left, {share:.0%}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
