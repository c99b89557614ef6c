"""How do the stored runs of loading and resizing read: targets, then a line a way?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median

from benchmarks.loading import LARGER, PAIRS
from benchmarks.markdown import number, table
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

LOAD, RESIZE = PAIRS
LIMITS = ((LOAD, "wall_s", 1.5), (RESIZE, "wall_s", 1.1), (RESIZE, "user_s", 1.1))
CLOCKS = {"wall_s": "by the clock", "user_s": "of the processor, in the program itself"}
WAYS = {
    "load": "load the checkpoint",
    "build": "read its bytes and build the Keras model",
    "resize": f"`resize --image-size {LARGER}`, a whole process",
    "convert": "`convert`, a whole process",
}


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """Of base."""
    base = results.get("base")
    for name, seconds, limit in LIMITS:
        yield Target(f"base: {name}, {CLOCKS[seconds]}", limit, ratio(base, name, seconds) if base else None)


def ratio(result: Result, name: str, seconds: str) -> float:
    """The median of one way's runs, that of the other being 1."""
    way, other = PAIRS[name]
    ours, theirs = (median(run[seconds] for run in result["runs"][path]) for path in (way, other))
    return float(ours / theirs)


def render(results: Mapping[str, Result]) -> str:
    """A table a scale."""
    parts = []
    for name, result in results.items():
        rows = []
        for way, runs in result["runs"].items():
            wall, user, system = ([run[key] for run in runs] for key in ("wall_s", "user_s", "system_s"))
            spread = f"{min(wall):.2f} to {max(wall):.2f}"
            rows.append(
                (WAYS[way], number(median(wall), 2), spread, number(median(user), 2), number(median(system), 2))
            )
        title = f"### Loading and resizing {name}, {result['bytes'] / 1e6:.1f} MB"
        head = ("median of the runs", "s", "range", "processor s", "kernel s")
        parts += [title, facts_line(result), table(head, rows)]
    return "\n\n".join(parts)
