"""Measured latencies as JSON, and back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vit_deploy.core.gpu import gpu_from
from vit_deploy.core.host import Host
from vit_deploy.performance.confidence import Interval
from vit_deploy.performance.latency import Case, Latency, Plan
from vit_deploy.performance.plan import under_from

FIGURES = (
    *("p50_ms", "p90_ms", "p99_ms", "mean_ms", "min_ms", "std_ms", "throughput_per_s", "load_ms", "first_ms"),
    *("peak_rss_mb", "growth_mb", "preprocess_ms", "transfer_ms", "energy_mj_per_image", "gpu_energy_mj_per_image"),
    *("build_ms", "peak_gpu_mb", "queued_throughput_per_s"),
)
FACTS = ("bytes", "warmup_calls", "flat", "idle", "file_batch", "resting_rss_mb", "energy_j")
CHOSEN = ("image_size", "signature")  # of files for several sizes
# That many a machine or plan does not give.
RARE = {
    *("std_ms", "growth_mb", "preprocess_ms", "transfer_ms", "energy_mj_per_image", "gpu_energy_mj_per_image"),
    *("build_ms", "peak_gpu_mb", "queued_throughput_per_s"),
}


def to_json(latency: Latency, base: Latency | None = None) -> dict[str, Any]:
    """One result of the `bench` command; a figure that does not apply is null and named under `failures`.

    Args:
        latency: the latency of one case.
        base: the latency of the case that ratios are taken to, if any.
    """
    case = latency.case
    figures = {name: getattr(latency, name) for name in FIGURES}
    absent = [name for name, value in figures.items() if value is None or not math.isfinite(value)]
    ratio, ratio_range = (None, None) if base is None else latency.ratio_to(base)
    return {
        "artifact": str(case.artifact),
        "runtime": case.runtime,
        "provider": latency.provider,
        "batch": case.batch,
        "threads": case.threads,
        "streams": case.streams,
        "device": case.device,
        "cuda_graph": case.cuda_graph,
        **{name: value for name in CHOSEN if (value := getattr(case, name)) is not None},
        "samples_ns": list(latency.samples_ns),
        "round_calls": list(latency.round_calls),
        "round_ns": list(latency.round_ns),
        **{name: None if name in absent else value for name, value in figures.items()},
        "p50_interval_ms": _ends(latency.p50_interval_ms),
        "ratio": ratio,
        "ratio_interval": _ends(ratio_range),
        **{name: getattr(latency, name) for name in FACTS},
        "preprocess_ns": list(latency.preprocess_ns),
        "transfer_ns": list(latency.transfer_ns),
        "gpu_energy_j": latency.gpu_energy_j,
        "placement": dict(latency.placement),
        "gpu": None if latency.gpu is None else latency.gpu.to_dict(),
        "queued_calls": list(latency.queued_calls),
        "queued_ns": list(latency.queued_ns),
        "largest_under": None if latency.under is None else dataclasses.asdict(latency.under),
        "remarks": list(latency.remarks),
        "notes": list(latency.notes),
        "unsteady": list(latency.unsteady),
        **({"engine": dict(latency.engine)} if latency.engine else {}),
        **({"emulated": True} if latency.emulated else {}),
        "failures": [f"{name} cannot be told" for name in absent if name not in RARE],
        "plan": dataclasses.asdict(latency.plan),
        "host": latency.host.to_dict(),
    }


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def from_json(values: Mapping[str, Any]) -> Latency:
    """The inverse of `to_json`; the figures in it are passed over, since they follow from the samples.

    Raises:
        KeyError, TypeError, ValueError: values that no run has given.
    """
    samples = tuple(int(sample) for sample in values["samples_ns"])
    round_calls = tuple(int(count) for count in values["round_calls"])
    if not samples:
        raise ValueError("a result has no samples")
    if min(samples) < 1:
        raise ValueError("a call took no time")
    if round_calls and (min(round_calls) < 1 or sum(round_calls) != len(samples)):
        raise ValueError(f"{len(samples)} samples in rounds of {round_calls}")
    named = ("runtime", "batch", "threads", "streams")
    return Latency(
        case=Case(
            Path(values["artifact"]),
            **{name: values[name] for name in named},
            device=values.get("device", 0),
            cuda_graph=bool(values.get("cuda_graph", False)),
            image_size=_text(values.get("image_size")),
            signature=_text(values.get("signature")),
        ),
        plan=Plan(**_known(Plan, values["plan"])),
        host=Host(**_known(Host, values["host"])),
        provider=str(values["provider"]),
        samples_ns=samples,
        load_ms=values["load_ms"],
        first_ms=values["first_ms"],
        peak_rss_mb=values["peak_rss_mb"],
        round_calls=round_calls,
        round_ns=tuple(int(duration) for duration in values["round_ns"]),
        preprocess_ns=tuple(int(sample) for sample in values["preprocess_ns"]),
        # Results that were saved by earlier versions lack these.
        transfer_ns=tuple(int(sample) for sample in values.get("transfer_ns", ())),
        gpu_energy_j=values.get("gpu_energy_j"),
        placement={str(name): int(count) for name, count in values.get("placement", {}).items()},
        build_ms=values.get("build_ms"),
        gpu=None if values.get("gpu") is None else gpu_from(values["gpu"]),
        peak_gpu_mb=values.get("peak_gpu_mb"),
        queued_calls=tuple(int(count) for count in values.get("queued_calls", ())),
        queued_ns=tuple(int(duration) for duration in values.get("queued_ns", ())),
        remarks=tuple(str(remark) for remark in values.get("remarks", ())),
        under=None if values.get("largest_under") is None else under_from(values["largest_under"]),
        on=None if values.get("on") is None else str(values["on"]),
        emulated=bool(values.get("emulated", False)),
        engine=dict(values.get("engine", {})),
        **{name: values[name] for name in FACTS},
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _known(kind: type[Plan | Host], values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what later versions tell beyond this one."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in values.items() if name in names}
