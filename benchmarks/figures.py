"""What follows from the raw samples: medians, ratios, and whether the targets are met?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

Result = Mapping[str, Any]
"""What `benchmarks/results/<size>.json` holds."""


def export_s(result: Result, way: str) -> float | None:
    """Median seconds of the whole process without the proof; None where there is no measurement."""
    runs = _entry(result["exports"], way).get("runs") or []
    return float(median(run["wall_s"] - run["proof_s"] for run in runs)) if runs else None


def p50_ms(entry: Mapping[str, Any]) -> float | None:
    """Median call of the best round, since whatever else a machine does slows whole rounds."""
    rounds: list[list[int]] = entry.get("samples_ns") or []
    return min(float(median(samples)) for samples in rounds) / 1e6 if rounds and not entry["error"] else None


def latency_ratio(result: Result, way: str, other: str) -> float | None:
    """How long a call of `way` takes, `other`'s being 1: the median over the rounds of the ratio of their medians.

    Rounds are compared one by one, since both ran within seconds of each other there, whatever else the machine did.
    """
    a, b = (_entry(result["latency"], each) for each in (way, other))
    if p50_ms(a) is None or p50_ms(b) is None:
        return None
    return float(median(median(x) / median(y) for x, y in zip(a["samples_ns"], b["samples_ns"], strict=True)))


def _entry(entries: Iterable[Mapping[str, Any]], way: str) -> Mapping[str, Any]:
    return next((each for each in entries if each["way"] == way), {})


@dataclass(frozen=True)
class Target:
    """Something to reach.

    Args:
        text: what it says.
        limit: that the measured ratio may be at most, or at least with `at_least`.
        ratio: measured; None where something was not.
        at_least: which way the limit goes.
    """

    text: str
    limit: float
    ratio: float | None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """None where it was not measured."""
        if self.ratio is None:
            return None
        return self.ratio >= self.limit if self.at_least else self.ratio <= self.limit


def targets(results: Mapping[str, Result]) -> list[Target]:
    """All of them, by the results at hand."""
    tiny, base = results.get("tiny"), results.get("base")
    ours = export_s(base, "vit-deploy-onnx") if base else None
    keras = export_s(base, "keras-onnx") if base else None
    torch = [export_s(base, way) if base else None for way in ("timm-dynamo", "timm-script")]
    found = [
        Target(
            "ViT-Base to a written and checked ONNX file, times faster than Keras's exporter",
            6.0,
            keras / ours if keras and ours else None,
            at_least=True,
        ),
        *(
            Target(
                f"the same, its time over that of `torch.onnx.export(dynamo={dynamo})` of timm's ViT-Base",
                1.0,
                ours / seconds if ours and seconds else None,
            )
            for dynamo, seconds in zip((True, False), torch, strict=True)
        ),
    ]
    optimized = [
        latency_ratio(tiny, "vit-deploy-onnx", way) if tiny else None
        for way in ("timm-script-optimized", "timm-dynamo-optimized")
    ]
    ratios = [ratio for ratio in optimized if ratio is not None]
    found.append(
        Target(
            "ViT-Tiny fp32 in ONNX Runtime, its latency over that of timm's optimized graph (the faster one)",
            1.0,
            max(ratios) if ratios else None,
        )
    )
    for name, result in (("Tiny", tiny), ("Base", base)):
        found.append(
            Target(
                f"ViT-{name} fp32 in LiteRT, its latency over that of Keras's own LiteRT export",
                1.0,
                latency_ratio(result, "vit-deploy-tflite", "keras-litert") if result else None,
            )
        )
    return found
