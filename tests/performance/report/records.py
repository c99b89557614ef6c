"""Records to make reports of: six cases of three artifacts, measured by nobody."""

from __future__ import annotations

from pathlib import Path

from vit_deploy.core.host import Host
from vit_deploy.performance.latency import Case, Latency, Plan, to_json

HOST = Host("A <b>processor</b>", "x86_64", 2.0, 8000.0, "Linux 6", "3.11.7", 0.5, None, 2300.0, None, 0.0)
ARTIFACTS = {"arts/onnx-fp32": 2.0, "arts/onnx-int8": 1.0, "arts/tflite-int8": 0.75}
PROFILE = [
    {"operator": "MatMul", "calls": 12, "ms": 0.8, "share": 0.8},
    {"operator": "Softmax", "calls": 2, "ms": 0.2, "share": 0.2},
]


def latency(artifact, batch=1, ms=1.0, threads=1, host=HOST, **changes):
    samples = tuple(int(ms * 1e6 * batch**0.9 * (1 + 0.002 * (index % 9 - 4))) for index in range(27))
    facts = {
        "case": Case(Path(artifact), "litert" if "tflite" in artifact else "onnxruntime", None, batch, threads),
        "plan": Plan(),
        "host": host,
        "provider": "xnnpack" if "tflite" in artifact else "cpu",
        "samples_ns": samples,
        "load_ms": 20.0,
        "first_ms": 4.0,
        "peak_rss_mb": 120.0,
        "warmup_calls": 9,
        "flat": True,
        "idle": True,
        "file_batch": None,
        "round_calls": (9, 9, 9),
        "round_ns": (1, 1, 1),
        "bytes": 5_000_000 if "fp32" in artifact else 1_300_000,
    }
    return Latency(**{**facts, **changes})


def measured():
    """Records of `bench`."""
    results = [latency(name, batch, ms) for name, ms in ARTIFACTS.items() for batch in (1, 4)]
    records = [to_json(result, results[0]) for result in results]
    for record in records:
        record["profile"] = PROFILE if record["runtime"] == "onnxruntime" else None
    return records


def evaluated(artifact, **changes):
    return {"artifact": artifact, "top1": 0.9, "top5": 0.99, "agreement": 0.98, "images": 50, **changes}


def verified(artifact, **changes):
    metrics = {"max_abs": 1e-6, "cosine": 0.999999, "snr_db": 91.25}
    return {"artifact": artifact, "precision": "int8", "verdict": "same", "metrics": metrics, **changes}
