"""The charts of a report."""

from __future__ import annotations

from vit_deploy.performance.report.charts.chart import Chart
from vit_deploy.performance.report.charts.operators import operators
from vit_deploy.performance.report.charts.percentiles import percentiles
from vit_deploy.performance.report.charts.scaling import scaling
from vit_deploy.performance.report.charts.scatter import against
from vit_deploy.performance.report.documents import Gathered
from vit_deploy.performance.report.looks import Looks
from vit_deploy.performance.report.naming import Names

__all__ = ["Chart", "charts"]


def charts(gathered: Gathered, names: Names, looks: Looks) -> list[Chart]:
    """Those for which there are figures."""
    sizes = against(
        gathered, names, looks, "size", "Latency against size", "size of the model files in MB", "smaller and faster",
        lambda case: None if case.bytes is None else case.bytes / 1e6,
    )  # fmt: skip
    accuracy = against(
        gathered, names, looks, "accuracy", "Latency against accuracy", "top-1 accuracy in %",
        "more often right and faster",
        lambda case: None if case.quality.top1 is None else 100 * case.quality.top1,
        lambda case: None if case.quality.top1_interval is None else case.quality.top1_interval.scaled(100),
    )  # fmt: skip
    parity = against(
        gathered, names, looks, "parity", "Latency against parity", "largest difference from the reference",
        "closer to the reference and faster", lambda case: case.quality.max_abs or None,
    )  # fmt: skip
    swept = [
        scaling(gathered, names, looks, 0, "batch", "images a call"),
        scaling(gathered, names, looks, 1, "threads", "threads of one call"),
        scaling(gathered, names, looks, 2, "streams", "calls at the same time"),
    ]
    every = [sizes, accuracy, parity, percentiles(gathered, names), *swept, operators(gathered, names)]
    return [chart for chart in every if chart is not None]
