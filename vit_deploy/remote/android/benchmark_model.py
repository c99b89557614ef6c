"""What LiteRT's `benchmark_model` is asked, and the statistic that it prints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vit_deploy.errors import RemoteError

COUNT = re.compile(r"\bcount=(\d+)((?: \w+=[\d.e+-]+)+)")
TIMES = re.compile(
    r"Inference timings in us: Init: (?P<init>[\d.e+]+), First inference: (?P<first>[\d.e+]+), "
    r"Warmup \(avg\): (?P<warmup>[\d.e+]+), Inference \(avg\): (?P<mean>[\d.e+]+)"
)
MEMORY = re.compile(
    r"Memory footprint delta from the start of the tool \(MB\): init=(?P<init>[\d.]+) overall=(?P<overall>[\d.]+)"
)
DELEGATED = re.compile(r"Replacing (?P<taken>\d+) out of (?P<all>\d+) node\(s\) with delegate \((?P<name>\w+)\)")
MIB = 1 << 20  # its megabytes
NAMES = {"min": "min_ms", "max": "max_ms", "std": "std_ms", "median": "p50_ms", "p5": "p5_ms", "p95": "p95_ms"}


@dataclass(frozen=True)
class Statistic:
    """What it says of one file, in its own words' units turned into ours; it gives no samples.

    Args:
        calls: that were timed.
        load_ms: until the file is ready.
        first_ms: of the first call.
        mean_ms: of the calls that were timed.
        spread: least, most, standard deviation and, of newer ones, percentiles, as far as it says them.
        memory_mb: by which the program grew, by its own approximation; None where it says none.
        delegated: operators that a delegate took, and all; None where it says none.
    """

    calls: int
    load_ms: float
    first_ms: float
    mean_ms: float
    spread: Mapping[str, float]
    memory_mb: float | None = None
    delegated: tuple[int, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        figures = {name: self.spread.get(name) for name in NAMES.values()}
        return {
            "calls": self.calls,
            "load_ms": self.load_ms,
            "first_ms": self.first_ms,
            "mean_ms": self.mean_ms,
            **figures,
            "memory_mb": self.memory_mb,
            "delegated": None if self.delegated is None else list(self.delegated),
        }


def arguments(graph: str, *, threads: int, xnnpack: bool, seconds: float, runs: int | None, most_s: float) -> list[str]:
    """Its arguments.

    Args:
        graph: path of the file there.
        threads: of its interpreter.
        xnnpack: whether the delegate takes what it can.
        seconds: length of the calls together.
        runs: calls instead of seconds; None for none.
        most_s: after which it ends before these are done; by itself it does after 150.
    """
    length = [f"--min_secs={seconds:g}", "--num_runs=1"] if runs is None else ["--min_secs=0.001", f"--num_runs={runs}"]
    how = [f"--num_threads={threads}", f"--use_xnnpack={str(xnnpack).lower()}"]
    return [f"--graph={graph}", *how, *length, f"--max_secs={most_s:g}"]


def read(said: str) -> Statistic:
    """The statistic in its output.

    Raises:
        RemoteError: there is none.
    """
    times, counts, memory = TIMES.search(said), COUNT.findall(said), MEMORY.search(said)
    if times is None or not counts:
        last = [line.strip() for line in said.splitlines() if line.strip()][-3:]
        raise RemoteError(
            f"the program gave no timings: {'; '.join(last)[-300:] or 'it said nothing'}",
            fix="give LiteRT's benchmark_model, of a version that takes this file",
        )
    calls, spread = counts[-1]
    values = dict(part.split("=") for part in spread.split())
    if values.keys() <= {"curr"}:  # of one call it says nothing else
        values = dict.fromkeys(("min", "max"), values.get("curr", times["mean"]))
    taken = DELEGATED.findall(said)  # a line a graph of the file
    return Statistic(
        int(calls),
        load_ms=float(times["init"]) / 1e3,
        first_ms=float(times["first"]) / 1e3,
        mean_ms=float(times["mean"]) / 1e3,
        spread={ours: float(values[name]) / 1e3 for name, ours in NAMES.items() if name in values},
        memory_mb=None if memory is None else float(memory["overall"]) * MIB / 1e6,
        delegated=(sum(int(line[0]) for line in taken), sum(int(line[1]) for line in taken)) if taken else None,
    )
