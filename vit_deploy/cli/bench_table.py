"""Which figures of a benchmark does the terminal show, in which order, and which of them is the best?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # at run time it would bring NumPy into every `--help`
    from vit_deploy.latency import Latency

COLUMNS = (
    *("artifact", "runtime", "batch", "threads", "p50 ms", "95 %", "to first", "p90 ms", "p99 ms", "images/s"),
    *("load ms", "first ms", "image file ms", "peak MB", "size", "steady"),
)

SORTS: Mapping[str, Callable[[Latency], float]] = {
    "p50": lambda each: each.p50_ms,
    "p90": lambda each: each.p90_ms,
    "p99": lambda each: each.p99_ms,
    "throughput": lambda each: -each.throughput_per_s,
    "load": lambda each: each.load_ms,
    "memory": lambda each: each.peak_rss_mb or float("inf"),
    "size": lambda each: each.bytes or float("inf"),
}


def best_of(results: Sequence[Latency], sort: str | None) -> dict[str, float]:
    """The best of each column in which it is marked, where there is a choice."""
    columns = dict.fromkeys(["p50", "throughput", *([sort] if sort else [])])
    found = {name: [SORTS[name](each) for each in results] for name in columns}
    return {name: min(values) for name, values in found.items() if min(values, default=0) < max(values, default=0)}


def row(result: Latency, base: Latency, best: Mapping[str, float]) -> tuple[str, ...]:
    """The cells of one case.

    Args:
        result: of the case.
        base: that the ratio is taken to.
        best: from `best_of`.
    """
    from vit_deploy.report import megabytes

    def marked(name: str, text: str) -> str:
        return f"{text} *" if name in best and SORTS[name](result) == best[name] else text

    interval = result.p50_interval_ms
    streams = f" x {result.case.streams} streams" if result.case.streams > 1 else ""
    return (
        str(result.case.artifact),
        f"{result.case.runtime} ({result.provider})",
        f"{result.case.batch}",
        f"{result.case.threads or '-'}{streams}",
        marked("p50", f"{result.p50_ms:.2f}"),
        "-" if interval is None else f"{interval.low:.2f}-{interval.high:.2f}",
        _ratio(result, base),
        marked("p90", f"{result.p90_ms:.2f}"),
        marked("p99", f"{result.p99_ms:.2f}"),
        marked("throughput", f"{result.throughput_per_s:.1f}"),
        marked("load", f"{result.load_ms:.0f}"),
        f"{result.first_ms:.1f}",
        "-" if result.preprocess_ms is None else f"{result.preprocess_ms:.1f}",
        "-" if result.peak_rss_mb is None else marked("memory", f"{result.peak_rss_mb:.0f}"),
        "-" if result.bytes is None else marked("size", megabytes(result.bytes)),
        "NO" if result.unsteady else "yes",
    )


def _ratio(result: Latency, base: Latency) -> str:
    ratio, interval = result.ratio_to(base)
    return (
        f"{ratio:.2f}"
        if interval is None or result is base
        else f"{ratio:.2f} ({interval.low:.2f}-{interval.high:.2f})"
    )
