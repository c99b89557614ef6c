"""Results as CSV, one row a case, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
import math

from vit_deploy.performance.confidence import Interval
from vit_deploy.performance.latency import FIGURES
from vit_deploy.performance.report.documents import Gathered, Timed

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would compute
NAMED = ("artifact", "machine", "runtime", "provider", "batch", "threads", "streams", "gpu", "cuda_graph")
FOUND = ("precision", "top1", "top5", "agreement", "images", "max_abs", "cosine", "snr_db", "verdict")
RATIO = ("ratio_to_first", "ratio_low", "ratio_high")
COLUMNS = (*NAMED, "calls", "bytes", *FIGURES, "p50_low_ms", "p50_high_ms", *RATIO, *FOUND, "unsteady", "file")

Value = str | float | None


def spreadsheet(gathered: Gathered, title: str = "") -> str:
    """A heading and a row for each case; an absent figure is empty, and text begins no formula.

    Args:
        gathered: what it tells.
        title: the page's title, for which a table has no place.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_plain(value) for value in _row(case)] for case in gathered.cases)
    return text.getvalue()


def _row(case: Timed) -> list[Value]:
    latency, called = case.latency, case.latency.case
    ends, ratio_ends = _ends(latency.p50_interval_ms), _ends(case.ratio_interval)
    words: list[Value] = ["; ".join(latency.unsteady), str(case.file)]
    figures: list[Value] = [getattr(latency, name) for name in FIGURES]
    found: list[Value] = [getattr(case.quality, name) for name in FOUND]
    named: list[Value] = [str(called.artifact), case.machine, called.runtime, latency.provider]
    gpu = None if latency.gpu is None else latency.gpu.name
    called_with: list[Value] = [called.batch, called.threads, called.streams, gpu, "yes" if called.cuda_graph else "no"]
    sizes: list[Value] = [len(latency.samples_ns), case.bytes]
    return [*named, *called_with, *sizes, *figures, *ends, case.ratio, *ratio_ends, *found, *words]


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval.low, interval.high)


def _plain(value: Value) -> Value:
    if isinstance(value, float) and math.isnan(value):  # of a single call
        return None
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
