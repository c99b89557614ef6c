"""What is to be measured, and for how long."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.errors import ConfigError


@dataclass(frozen=True)
class Case:
    """One thing to time.

    Args:
        artifact: the artifact's folder, or a `.keras` file.
        runtime: that runs it.
        provider: None takes the runtime's usual one.
        batch: images a call.
        threads: the threads of one call; None takes as many as this process has cores, divided among the streams.
        streams: calls that are made at the same time, each by a copy of the model of its own.
        device: which GPU of those that are visible, from 0.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.
        image_size: pixels of the images as "384x512"; None for those that the file was made for.
        signature: that runs them, of a file with several; None for the first.
        runtime_files: the folder with the JavaScript of engines in browsers; None for the environment's.
        browser: the program of a browser, where one runs it; None takes the first that is installed.
    """

    artifact: Path
    runtime: str
    provider: str | None = None
    batch: int = 1
    threads: int | None = None
    streams: int = 1
    device: int = 0
    cuda_graph: bool = False
    image_size: str | None = None
    signature: str | None = None
    runtime_files: str | None = None
    browser: str | None = None

    @property
    def of_size(self) -> str:
        """What it says of the size of the images, for a list of its properties; empty for the file's own."""
        return "".join(f", {chosen}" for chosen in (self.image_size, self.signature) if chosen)

    def __str__(self) -> str:
        engine = f"{self.runtime} on {self.provider}" if self.provider else self.runtime
        threads = f", {self.threads} thread{'s' * (self.threads > 1)}" if self.threads else ""
        streams = f", {self.streams} streams" if self.streams > 1 else ""
        device = f", GPU {self.device}" if self.device else ""
        graph = ", CUDA graph" if self.cuda_graph else ""
        return f"{self.artifact} in {engine} (batch {self.batch}{self.of_size}{threads}{streams}{device}{graph})"


@dataclass(frozen=True)
class Plan:
    """How long to measure each case.

    Args:
        seconds: the time for a case's calls together.
        runs: the number of calls, instead.
        rounds: the number of rounds in which the cases take turns.
        warmup: calls before the first round; None for as many as it takes until they show no trend.
        timeout_s: the limit in seconds for each step of a case: loading, warming up, one round.
        one_at_a_time: whether each case is loaded, measured and freed before the next, which then take no turns.

    Raises:
        ConfigError: values that cannot be.
    """

    seconds: float | None = 3.0
    runs: int | None = None
    rounds: int = 5
    warmup: int | None = None
    timeout_s: float = 600.0
    one_at_a_time: bool = False

    def __post_init__(self) -> None:
        problems = []
        if (self.seconds is None) == (self.runs is None):
            problems.append(f"seconds is {self.seconds} and runs is {self.runs}; expected one of them")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            problems.append(f"seconds is {self.seconds}; expected a positive number")
        if self.runs is not None and self.runs < 1:
            problems.append(f"runs is {self.runs}; expected a positive number")
        if self.rounds < 1:
            problems.append(f"rounds is {self.rounds}; expected a positive number")
        if not 0 < self.timeout_s < math.inf:
            problems.append(f"timeout_s is {self.timeout_s}; expected a positive number")
        if self.warmup is not None and self.warmup < 0:
            problems.append(f"warmup is {self.warmup}; expected a number of calls")
        if problems:
            raise ConfigError("; ".join(problems), fix="correct the options named above")

    def requests(self, streams: int = 1) -> list[dict[str, Any]]:
        """What to ask of each case, one a round; of few calls fewer rounds, so that all streams have one in each.

        Args:
            streams: the most that a case has.

        Raises:
            ConfigError: fewer calls than streams.
        """
        if self.runs is None:
            assert self.seconds is not None
            return [{"calls": None, "seconds": self.seconds / self.rounds}] * self.rounds
        if self.runs < streams:
            raise ConfigError(
                f"runs is {self.runs} for {streams} streams, whose calls are to overlap; expected as many at least",
                fix=f"ask for {streams} runs or more, or for seconds",
            )
        rounds = min(self.rounds, self.runs // streams)
        counts = [self.runs // rounds + (index < self.runs % rounds) for index in range(rounds)]
        return [{"calls": count, "seconds": None} for count in counts]


@dataclass(frozen=True)
class LargestUnder:
    """What a search for the largest batch whose calls stay under a time has found.

    Args:
        limit_ms: that the median of the calls is held to.
        batch: the largest that was; None if not even one image is.
        stopped_by: why it ended before a batch took too long; None if one did.
    """

    limit_ms: float
    batch: int | None
    stopped_by: str | None = None

    @property
    def words(self) -> str:
        """For people."""
        if self.batch is None:
            return f"not even a batch of 1 stays under {self.limit_ms:g} ms"
        why = f"; {self.stopped_by}" if self.stopped_by else ""
        return f"the largest batch under {self.limit_ms:g} ms is {self.batch}{why}"


def under_from(values: Mapping[str, Any]) -> LargestUnder:
    """The inverse of `dataclasses.asdict`.

    Raises:
        KeyError, TypeError, ValueError: values that no search has given.
    """
    limit_ms, batch, stopped_by = float(values["limit_ms"]), values.get("batch"), values.get("stopped_by")
    if not 0 < limit_ms < math.inf:
        raise ValueError(f"limit_ms is {limit_ms}; expected a positive number")
    if batch is not None and (not isinstance(batch, int) or isinstance(batch, bool) or batch < 1):
        raise ValueError(f"batch is {batch!r}; expected a positive number")
    return LargestUnder(limit_ms, batch, None if stopped_by is None else str(stopped_by))
