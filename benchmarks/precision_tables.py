"""How do the stored results of the precisions read: targets, size and speed, accuracy and agreement?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.figures import Result, latency_ratio, p50_ms
from benchmarks.tables import table

BEGIN, END = (
    "<!-- precisions: written by python -m benchmarks.precisions and .accuracy -->",
    "<!-- end of precisions -->",
)
VERDICTS = {True: "met", False: "**missed**", None: "not measured"}

SIZE = {"fp16": 0.51, "int8": 0.28}
LATENCY = {("onnx", "tiny"): 0.65, ("onnx", "base"): 0.45, ("tflite", "tiny"): 0.55, ("tflite", "base"): 0.40}
STATIC = {"onnx": 1.25, "tflite": 1.0}  # int8-static over int8
COSINE = {
    "onnx": {"int8": 0.998, "int8-static": 0.997},
    "tflite": {"int8": 0.9995, "int8-static": 0.999, "int8-full": 0.99},
}
DROP = {"fp16": 0.3, "int8": 0.3, "int8-static": 0.7, "int8-full": 1.5, "int16x8": 1.5, "int4": 1.5}  # points
AGREEMENT = {"int8": 0.99, "int8-static": 0.975, "int8-full": 0.94, "int16x8": 0.99, "int4": 0.97}


@dataclass(frozen=True)
class Target:
    """Something to reach, and what was measured; None where nothing was."""

    text: str
    limit: float
    measured: float | None
    at_least: bool = False
    digits: int = 2

    @property
    def met(self) -> bool | None:
        """Whether it is reached; None where it was not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def read(folder: Path) -> dict[str, Result]:
    """All stored results by their name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def rewrite(readme: Path, precisions: Path, accuracy: Path) -> None:
    """Put the tables of both kinds of results between the markers of `readme`."""
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    body = render(read(precisions), read(accuracy))
    readme.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")


def render(precisions: Mapping[str, Result], accuracy: Mapping[str, Result]) -> str:
    """Targets, then a table a size, then one of the digits and one a model trained on photographs."""
    found = [*speed_targets(precisions), *accuracy_targets(accuracy)]
    rows = [
        (
            each.text,
            f"{'≥' if each.at_least else '≤'} {each.limit:g}",
            "-" if each.measured is None else f"{each.measured:.{each.digits}f}",
            VERDICTS[each.met],
        )
        for each in found
    ]
    parts = ["### Precisions: targets", table(("target", "limit", "measured", ""), rows)]
    for name, result in sorted(precisions.items(), key=lambda item: item[1]["parameters"]):
        parts += [f"### Precisions of {name}, random weights", _host(result), _sizes(result)]
    for kind in sorted({result["data"] for result in accuracy.values()}):
        models = [result for result in accuracy.values() if result["data"] == kind]
        parts += [f"### Precisions of a ViT trained on {kind}", _models(models), _accuracies(models)]
    return "\n\n".join(parts)


def speed_targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """Size, latency and cosine, by the results at hand."""
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


def accuracy_targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """Loss of top-1 on digits, agreement on photographs, both with and without outliers."""
    digits, photos = ([each for each in results.values() if each["data"] == kind] for kind in ("digits", "photos"))
    for variant in ("plain", "planted"):
        outliers = ", outliers planted" if variant == "planted" else ""
        for format, precision, limit in _limits(DROP):
            text = f"{format} `{precision}` on digits{outliers}: points of top-1 lost, mean of the seeds"
            yield Target(text, limit, _mean(drops(digits, variant, f"{format}-{precision}")))
        for format, precision, limit in _limits(AGREEMENT):
            text = f"{format} `{precision}` on photographs{outliers}: first classes as fp32's"
            found = _mean(values(photos, variant, f"{format}-{precision}", "agreement"))
            yield Target(text, limit, found, at_least=True, digits=3)


def _limits(limits: Mapping[str, float]) -> Iterator[tuple[str, str, float]]:
    for format in ("onnx", "tflite"):
        for precision, limit in limits.items():
            if format == "tflite" or precision not in ("int8-full", "int16x8"):
                yield format, precision, limit


def size_ratio(result: Result | None, name: str) -> float | None:
    """Bytes of the model files over those of the format's fp32."""
    made, fp32 = _made(result, name), _made(result, f"{name.partition('-')[0]}-fp32")
    return made["bytes"] / fp32["bytes"] if made and fp32 else None


def _made(result: Result | None, name: str) -> Mapping[str, Any]:
    entries = result["made"] if result else []
    return next((each for each in entries if f"{each['format']}-{each['precision']}" == name), {})


def values(models: Sequence[Result], variant: str, name: str, figure: str) -> list[float]:
    """A figure of one artifact in each model; none where it failed its proof in one of them."""
    found = [each[figure] for model in models for each in model[variant] if each["artifact"] == name]
    return found if len(found) == len(models) else []


def drops(models: Sequence[Result], variant: str, name: str) -> list[float]:
    """Points of top-1 lost against the format's fp32, by model."""
    fp32 = values(models, variant, f"{name.partition('-')[0]}-fp32", "top1")
    found = values(models, variant, name, "top1")
    return [100 * (one - other) for one, other in zip(fp32, found, strict=True)] if found else []


def _mean(found: Sequence[float]) -> float | None:
    return mean(found) if found else None


def _host(result: Result) -> str:
    host = result["host"]
    loads = [load for entry in result["latency"] for load in entry.get("load_1m", ())]
    load = f", load average {min(loads):.1f} to {max(loads):.1f} while timing (the timed process included)"
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return f"{result['started']}, {host['cpu']}, {host['cores']:g} cores{load if loads else ''}. {versions}."


def _sizes(result: Result) -> str:
    rows = []
    timed = {entry["way"]: entry for entry in result["latency"]}
    for each in result["made"]:
        name = f"{each['format']}-{each['precision']}"
        entry, facts = timed.get(name, {"error": "it failed its proof"}), each.get("facts") or {}
        best = p50_ms(entry)
        ratio = latency_ratio(result, name, f"{each['format']}-fp32")
        share = size_ratio(result, name)
        rows.append(
            (
                name,
                f"{each['bytes'] / 1e6:.1f}",
                "-" if share is None else f"{share:.3f}",
                "-" if best is None else f"{best:.2f}",
                "-" if ratio is None else f"{ratio:.2f}",
                f"{facts['cosine']:.5f}" if facts else "-",
            )
        )
    return table(("artifact", "MB", "of fp32", "best round's p50 ms", "of fp32", "cosine with fp32"), rows)


def _models(models: Sequence[Result]) -> str:
    seeds = len(models)
    right = ", ".join(f"{value:.1%}" for value in values(models, "plain", "onnx-fp32", "top1"))
    return (
        f"{seeds} seed{'s' * (seeds > 1)}, {models[0]['images']} held-out images, fp32 right on {right}. "
        "Points of top-1 lost (mean of the seeds, and the most), and first classes that are fp32's (mean)."
    )


def _accuracies(models: Sequence[Result]) -> str:
    names = [each["artifact"] for each in models[0]["plain"] if not each["artifact"].endswith("-fp32")]
    rows = []
    for name in names:
        cells = []
        for variant in ("plain", "planted"):
            lost, agreed = drops(models, variant, name), values(models, variant, name, "agreement")
            cells += [f"{mean(lost):.2f}", f"{max(lost):.2f}", f"{mean(agreed):.1%}"] if lost else ["-", "-", "-"]
        rows.append((name, *cells))
    planted = ("planted outliers: lost", "most", "as fp32")
    return table(("artifact", "lost", "most", "as fp32", *planted), rows)
