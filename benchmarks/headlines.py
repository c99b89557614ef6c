"""Which measured figures does the README in front show?"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks import accuracy_tables, gpu_tables, precision_tables, quickstart, web_tables
from benchmarks.figures import latency_ratio
from benchmarks.markdown import number, table
from benchmarks.parts import PARTS
from benchmarks.records import Result
from benchmarks.targets import Verdict, target_table

Results = Mapping[str, Mapping[str, Result]]
"""Of each part, by the part's name and the result's."""


def blocks(results: Results) -> dict[str, str]:
    """Each block of the README by its name."""
    shown = results["quickstart"].get(quickstart.SCALE)
    screens = {f"quickstart-{name}": quickstart.screen(shown, name) if shown else "" for name in quickstart.COMMANDS}
    return {
        **screens,
        "precisions": _precisions(results),
        "web": _web(results),
        "peers": _peers(results),
        "targets": _targets(results),
    }


def nvidia_blocks(results: Results) -> dict[str, str]:
    """Each block of the page about NVIDIA GPUs by its name."""
    return {"gpu": _gpu(results)}


def _precisions(results: Results) -> str:
    """What each precision costs and gains: size and latency of base, points lost on digits."""
    base, digits = results["precisions"].get("base"), accuracy_tables.of(results["accuracy"], "digits")
    if base is None:
        return "Not measured."
    rows = []
    for precision in accuracy_tables.DROP:
        cells = []
        for format in ("onnx", "tflite"):
            name = f"{format}-{precision}"
            cells += [
                number(precision_tables.size_ratio(base, name), 2),
                number(latency_ratio(base, name, f"{format}-fp32"), 2),
                number(accuracy_tables.mean_drop(digits, "plain", name), 2),
            ]
        rows.append((f"`{precision}`", *cells))
    head = ("ViT-Base beside fp32", *(f"{name}: {figure}" for name in ("onnx", "tflite") for figure in FIGURES))
    host = base["host"]
    seeds = len(digits)
    where = (
        f"Latency of one image ({host['cpu']}, {host['cores']:g} cores); points of top-1 that small ViTs trained on"
        f" digits lost on held-out images, the mean of {seeds} seed{'s' * (seeds != 1)} (less than nothing: it gained)."
    )
    return "\n\n".join((table(head, rows), where))


def _web(results: Results) -> str:
    """Every file of ViT-Tiny in a browser."""
    shown = results["web"].get(web_tables.SHOWN)
    return web_tables.summary(shown) if shown else "Not measured."


def _gpu(results: Results) -> str:
    """ViT-Base on a GPU."""
    shown = results["gpu"].get(gpu_tables.SHOWN)
    return gpu_tables.summary(shown) if shown else "Not measured."


FIGURES = ("size", "latency", "points lost")


def _peers(results: Results) -> str:
    """The targets of the exports, which stand beside other tools."""
    return target_table(PARTS["export"].targets(results["export"]))


def _targets(results: Results) -> str:
    """How many targets each part has and misses."""
    rows = []
    for name, part in PARTS.items():
        verdicts = [target.verdict for target in part.targets(results[name])]
        if verdicts:
            counts = (str(verdicts.count(each)) for each in Verdict)
            rows.append((f"[{name}](benchmarks/README.md#{name}): {part.asks}?", *counts))
    return table(("targets", "met", "missed", "cannot be told", "not measured"), rows)
