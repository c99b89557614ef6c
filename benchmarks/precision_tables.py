"""How do the stored results of the precisions read: targets, then size, latency and cosine of each?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.figures import latency_ratio, p50_ms
from benchmarks.markdown import number, table
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

SIZE = {"fp16": 0.51, "int8": 0.28}
LATENCY = {("onnx", "tiny"): 0.65, ("onnx", "base"): 0.45, ("tflite", "tiny"): 0.55, ("tflite", "base"): 0.40}
STATIC = {"onnx": 1.25, "tflite": 1.0}  # int8-static over int8
COSINE = {
    "onnx": {"int8": 0.998, "int8-static": 0.997},
    "tflite": {"int8": 0.9995, "int8-static": 0.999, "int8-full": 0.99},
}


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """Size and latency of both sizes, cosine of base."""
    for (format, size), limit in LATENCY.items():
        result = results.get(size)
        for precision, largest in SIZE.items():
            yield Target(
                f"{format} `{precision}` of {size}: size over fp32's",
                largest,
                size_ratio(result, f"{format}-{precision}"),
                digits=3,
            )
        fast, static, fp32 = (f"{format}-{each}" for each in ("int8", "int8-static", "fp32"))
        ratio = latency_ratio(result, fast, fp32) if result else None
        yield Target(f"{format} `int8` of {size}: latency over fp32's", limit, ratio)
        ratio = latency_ratio(result, static, fast) if result else None
        yield Target(f"{format} `int8-static` of {size}: latency over `int8`'s", STATIC[format], ratio)
    base = results.get("base")
    for format, limits in COSINE.items():
        for precision, least in limits.items():
            facts = _made(base, f"{format}-{precision}").get("facts") or {}
            text = f"{format} `{precision}` of base: cosine with fp32, random weights"
            yield Target(text, least, facts.get("cosine"), at_least=True, digits=5)


def size_ratio(result: Result | None, name: str) -> float | None:
    """Bytes of the model files over those of the format's fp32."""
    made, fp32 = _made(result, name), _made(result, f"{name.partition('-')[0]}-fp32")
    return made["bytes"] / fp32["bytes"] if made and fp32 else None


def _made(result: Result | None, name: str) -> Mapping[str, Any]:
    entries = result["made"] if result else []
    return next((entry for entry in entries if f"{entry['format']}-{entry['precision']}" == name), {})


def render(results: Mapping[str, Result]) -> str:
    """A table a size."""
    parts = []
    for name, result in sorted(results.items(), key=lambda item: item[1]["parameters"]):
        parts += [f"### Precisions of {name}, random weights", facts_line(result), _sizes(result)]
    return "\n\n".join(parts)


def _sizes(result: Result) -> str:
    rows = []
    timed = {entry["way"]: entry for entry in result["latency"]}
    for each in result["made"]:
        name = f"{each['format']}-{each['precision']}"
        entry, facts = timed.get(name, {"error": "it failed its proof"}), each.get("facts") or {}
        rows.append(
            (
                name,
                number(each["bytes"] / 1e6, 1),
                number(size_ratio(result, name), 3),
                number(p50_ms(entry), 2),
                number(latency_ratio(result, name, f"{each['format']}-fp32"), 2),
                number(facts.get("cosine"), 5),
            )
        )
    return table(("artifact", "MB", "of fp32", "best round's p50 ms", "of fp32", "cosine with fp32"), rows)
