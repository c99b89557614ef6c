"""How do the stored results of the exports read: targets, then a table of exports and one of latencies a size?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from benchmarks.figures import export_s, latency_ratio, p50_ms
from benchmarks.markdown import number, table
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target
from benchmarks.ways import WAYS

ENGINES = {"onnxruntime": "ONNX Runtime", "litert": "LiteRT"}
OURS = {"onnxruntime": "vit-deploy-onnx", "litert": "vit-deploy-tflite"}


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """Time of base's exports, latencies of both sizes."""
    tiny, base = results.get("tiny"), results.get("base")
    ours, keras = _seconds(base, "vit-deploy-onnx"), _seconds(base, "keras-onnx")
    yield Target(
        "ViT-Base to a written and checked ONNX file, times faster than Keras's exporter",
        6.0,
        keras / ours if keras and ours else None,
        at_least=True,
    )
    for dynamo, way in ((True, "timm-dynamo"), (False, "timm-script")):
        theirs = _seconds(base, way)
        yield Target(
            f"the same, its time over that of `torch.onnx.export(dynamo={dynamo})` of timm's ViT-Base",
            1.0,
            ours / theirs if ours and theirs else None,
        )
    optimized = [_ratio(tiny, "vit-deploy-onnx", way) for way in ("timm-script-optimized", "timm-dynamo-optimized")]
    yield Target(
        "ViT-Tiny fp32 in ONNX Runtime, its latency over that of timm's optimized graph (the faster one)",
        1.0,
        max((ratio for ratio in optimized if ratio is not None), default=None),
    )
    for name, result in (("Tiny", tiny), ("Base", base)):
        yield Target(
            f"ViT-{name} fp32 in LiteRT, its latency over that of Keras's own LiteRT export",
            1.0,
            _ratio(result, "vit-deploy-tflite", "keras-litert"),
        )


def _seconds(result: Result | None, way: str) -> float | None:
    return export_s(result, way) if result else None


def _ratio(result: Result | None, way: str, other: str) -> float | None:
    return latency_ratio(result, way, other) if result else None


def render(results: Mapping[str, Result]) -> str:
    """Two tables a size, and what failed or was skipped."""
    parts = []
    for name, result in sorted(results.items(), key=lambda item: item[1]["parameters"]):
        parts += [f"### Export of {name}", facts_line(result), _exports(result), _latencies(result), *_silences(result)]
    return "\n\n".join(parts)


def _exports(result: Result) -> str:
    rows = []
    for entry in result["exports"]:
        way, runs = WAYS[entry["way"]], entry["runs"]
        if not runs:
            rows.append((f"{way.label} ({way.suffix})", "fails", "-", "-", "-", "-"))
            continue
        own = [run["wall_s"] - run["proof_s"] for run in runs]
        proof = median(run["proof_s"] for run in runs)
        rows.append(
            (
                f"{way.label} ({way.suffix})",
                number(median(own), 1),
                f"{min(own):.1f} to {max(own):.1f}",
                number(proof, 1) if way.ours else "no proof",
                number(max(run["peak_rss_mb"] for run in runs), 0),
                number(None if entry["bytes"] is None else entry["bytes"] / 1e6, 1),
            )
        )
    return table(("export, as a whole process", "s", "range", "proof, s more", "peak MB", "file MB"), rows)


def _latencies(result: Result) -> str:
    rows = []
    for entry in sorted(result["latency"], key=lambda entry: (entry["runtime"] != "onnxruntime", p50_ms(entry) or 1e9)):
        way, ours = WAYS[entry["way"]], OURS[entry["runtime"]]
        if entry["error"]:
            rows.append((way.label, ENGINES[way.runtime], "does not load", "-", "-", "-"))
            continue
        rows.append(
            (
                way.label,
                ENGINES[way.runtime],
                number(p50_ms(entry), 2),
                number(latency_ratio(result, entry["way"], ours), 2),
                number(entry["load_ms"], 0),
                number(entry["peak_rss_mb"], 0),
            )
        )
    return table(("file, one image a call", "engine", "best round's p50 ms", "over ours", "load ms", "peak MB"), rows)


def _reason(error: str) -> str:
    """The last line, without the temporary folder and the engine's own module path."""
    line = error.splitlines()[-1].strip()
    return re.sub(r"\S*/vit-deploy-benchmarks-[^/]*/", "", line).rpartition("[ONNXRuntimeError] : ")[2][:240]


def _silences(result: Result) -> list[str]:
    errors: list[dict[str, Any]] = [entry for entry in (*result["exports"], *result["latency"]) if entry["error"]]
    lines = [f"- {WAYS[entry['way']].label}: `{_reason(entry['error'])}`" for entry in errors]
    lines += [f"- {WAYS[name].label}: skipped, {', '.join(names)} not installed" for name, names in result["skipped"]]
    return ["\n".join(lines)] if lines else []
