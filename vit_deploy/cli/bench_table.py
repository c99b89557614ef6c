"""The figures of a benchmark that the terminal shows, their order, and the best of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from vit_deploy.cli.columns import ABSENT, Column, paths, prose, ranked

if TYPE_CHECKING:  # at run time it would bring NumPy into every `--help`
    from vit_deploy.performance.latency import Latency

COLUMNS = (
    *("artifact", "runtime", "batch", "threads", "p50 ms", "95 %", "to first", "p90 ms", "p99 ms", "images/s"),
    *("load ms", "first ms", "image file ms", "peak MB", "size", "steady"),
)

# What a narrow terminal may leave out, the most important first; the rest names a case and says how fast it is.
SPARE = (
    *(
        "runtime",
        "batch",
        "threads",
        "images/s",
        "to first",
        "95 %",
        "p99 ms",
        "p90 ms",
        "size",
        "peak MB",
        "copies ms",
    ),
    *("GPU mJ/image", "GPU MB", "queued images/s", "first ms", "load ms", "image file ms", "build ms"),
)

# What GPUs alone have: before which column it stands, and its cell. Copies are no part of the times of calls there.
OF_GPUS: Mapping[str, tuple[str, Callable[[Latency], str]]] = {
    "copies ms": ("images/s", lambda latency: _figure(latency.transfer_ms, ".2f")),
    "queued images/s": ("load ms", lambda latency: _figure(latency.queued_throughput_per_s, ".1f")),
    "build ms": ("load ms", lambda latency: _figure(latency.build_ms, ".0f")),
    "GPU mJ/image": ("size", lambda latency: _figure(latency.gpu_energy_mj_per_image, ".2f")),
    "GPU MB": ("size", lambda latency: _figure(latency.peak_gpu_mb, ".0f")),
}

SORTS: Mapping[str, Callable[[Latency], float]] = {
    "p50": lambda latency: latency.p50_ms,
    "p90": lambda latency: latency.p90_ms,
    "p99": lambda latency: latency.p99_ms,
    "throughput": lambda latency: -latency.throughput_per_s,
    "load": lambda latency: latency.load_ms,
    "memory": lambda latency: latency.peak_rss_mb or float("inf"),
    "size": lambda latency: latency.bytes or float("inf"),
}


# The columns of those figures that a narrow terminal would leave out.
SORTED_BY = {
    **{"p90": "p90 ms", "p99": "p99 ms", "throughput": "images/s", "load": "load ms", "memory": "peak MB"},
    "size": "size",
}


def best_of(results: Sequence[Latency], sort: str | None) -> dict[str, float]:
    """The best of each column in which it is marked, where there is a choice."""
    columns = dict.fromkeys(["p50", "throughput", *([sort] if sort else [])])
    found = {name: [SORTS[name](result) for result in results] for name in columns}
    return {name: min(values) for name, values in found.items() if min(values, default=0) < max(values, default=0)}


def columns_of(results: Sequence[Latency]) -> tuple[str, ...]:
    """Those of all results, and of what GPUs alone have that which any of them has."""
    columns = list(COLUMNS)
    for name, (before, cell) in OF_GPUS.items():
        if any(result.on_gpu and cell(result) != ABSENT for result in results):
            columns.insert(columns.index(before), name)
    return tuple(columns)


def headings(names: Sequence[str], sort: str | None) -> tuple[Column, ...]:
    """The columns for a terminal, which keeps the figure that it is sorted by.

    Args:
        names: the result of `columns_of`, and before them the machine where there are several.
        sort: one of `SORTS`, or None.
    """
    kept = SORTED_BY.get(sort or "")
    kinds = {"artifact": paths, "runtime": prose}
    return ranked([kinds.get(name, Column)(name) for name in names], [name for name in SPARE if name != kept])


def row(result: Latency, base: Latency, best: Mapping[str, float], columns: Sequence[str] = COLUMNS) -> tuple[str, ...]:
    """The cells of one case.

    Args:
        result: the result of the case.
        base: that the ratio is taken to.
        best: the result of `best_of`.
        columns: the result of `columns_of`.
    """
    from vit_deploy.core.quantities import megabytes

    def marked(name: str, text: str) -> str:
        return f"{text} *" if not result.emulated and name in best and SORTS[name](result) == best[name] else text

    case, interval = result.case, result.p50_interval_ms
    streams = f" x {case.streams} streams" if case.streams > 1 else ""
    where = f"{result.provider}{f' {case.device}' if case.device else ''}{', graph' if case.cuda_graph else ''}"
    largest = f" (largest under {result.under.limit_ms:g} ms)" if result.under and result.under.batch else ""
    cells = {
        "artifact": str(case.artifact),
        "runtime": f"{case.runtime} ({where}{case.of_size})",
        "batch": f"{case.batch}{largest if result.under and result.under.batch == case.batch else ''}",
        "threads": f"{case.threads or ABSENT}{streams}",
        "p50 ms": marked("p50", f"{result.p50_ms:.2f}"),
        "95 %": ABSENT if interval is None else f"{interval.low:.2f}-{interval.high:.2f}",
        "to first": ABSENT if result.emulated else _ratio(result, base),
        "p90 ms": marked("p90", f"{result.p90_ms:.2f}"),
        "p99 ms": marked("p99", f"{result.p99_ms:.2f}"),
        "images/s": marked("throughput", f"{result.throughput_per_s:.1f}"),
        "load ms": marked("load", f"{result.load_ms:.0f}"),
        "first ms": f"{result.first_ms:.1f}",
        "image file ms": _figure(result.preprocess_ms, ".1f"),
        "peak MB": ABSENT if result.peak_rss_mb is None else marked("memory", f"{result.peak_rss_mb:.0f}"),
        "size": ABSENT if result.bytes is None else marked("size", megabytes(result.bytes)),
        "steady": "emulated" if result.emulated else "NO" if result.unsteady else "yes",
    }
    return tuple(cells[name] if name in cells else OF_GPUS[name][1](result) for name in columns)


def _figure(value: float | None, form: str) -> str:
    return ABSENT if value is None else format(value, form)


def _ratio(result: Latency, base: Latency) -> str:
    ratio, interval = result.ratio_to(base)
    return (
        f"{ratio:.2f}"
        if interval is None or result is base
        else f"{ratio:.2f} ({interval.low:.2f}-{interval.high:.2f})"
    )
