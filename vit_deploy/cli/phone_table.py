"""The table of what LiteRT's own program measured on Android devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vit_deploy.api.results import BenchOutcome

FIGURES = {
    "mean_ms": "mean ms",
    "p50_ms": "median ms",
    "min_ms": "least ms",
    "max_ms": "most ms",
    "std_ms": "std ms",
    "load_ms": "load ms",
    "first_ms": "first ms",
    "memory_mb": "memory MB",
}
PHONE_COLUMNS = ("device", "artifact", "provider", "threads", "calls", *FIGURES.values())


def phone_rows(found: BenchOutcome) -> list[tuple[str, ...]]:
    """A row for each artifact on each device, and one for each device that gave nothing, or nothing more."""
    rows = []
    for timing in found.phones:
        figures = timing.statistic.to_dict()
        named = (timing.on, timing.artifact.name, timing.provider, str(timing.threads), str(timing.statistic.calls))
        rows.append((*named, *("-" if figures[name] is None else f"{figures[name]:.2f}" for name in FIGURES)))
    gave = {timing.on for timing in found.phones}
    gaps = [(host, "no further answer" if host in gave else "no answer") for host in found.unanswered]
    return [*rows, *((*gap, *["-"] * (len(PHONE_COLUMNS) - len(gap))) for gap in gaps)]
