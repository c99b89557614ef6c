"""Measured latencies from their JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vit_deploy.core.gpu import gpu_from
from vit_deploy.core.host import Host
from vit_deploy.performance.latency import FACTS, Case, Latency, Plan
from vit_deploy.performance.plan import under_from


def from_json(values: Mapping[str, Any]) -> Latency:
    """The inverse of `latency.to_json`; the figures in it are passed over, since they follow from the samples.

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
