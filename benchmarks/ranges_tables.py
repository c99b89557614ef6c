"""How do the stored results of ranges and outliers read: a row a way of doing it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean

from benchmarks.markdown import number, table
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

RECIPE = "the recipe's"
VARIANTS = ("plain", "planted")
CASES = (
    *(("onnx", precision) for precision in ("int8", "int8-static")),
    *(("tflite", precision) for precision in ("int8", "int8-static", "int8-full")),
)
KEYS = ("format", "precision", "way")
WITH_IMAGES = "smoothed"  # beginning of the names of ways that need images, as `int8` does not
CHANCE = -0.2  # points of agreement; two images of a thousand


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """No other way that needs as little keeps more first classes than the recipe's, but for chance."""
    for kind in ("digits", "photos"):
        models = _of(results, kind)
        for format, precision in CASES:
            text = f"{format} `{precision}` on {kind}: points of agreement that its recipe is above the best other way"
            yield Target(text, CHANCE, _ahead(models, format, precision) if models else None, at_least=True)


def _ahead(models: Sequence[Result], format: str, precision: str) -> float:
    """Of the means over models, plain and with outliers planted, and over draws of images to calibrate on."""
    agreed: dict[str, list[float]] = {}
    for model in models:
        for each in (sample for variant in VARIANTS for sample in model[variant]):
            possible = precision != "int8" or not each["way"].startswith(WITH_IMAGES)
            if possible and (each["format"], each["precision"]) == (format, precision):
                agreed.setdefault(each["way"], []).append(100 * each["agreement"])
    recipe = mean(agreed.pop(RECIPE))
    return round(recipe - max(map(mean, agreed.values())), 6)  # shares of a thousand images have no more digits


def _of(results: Mapping[str, Result], kind: str) -> list[Result]:
    return [result for result in results.values() if result["data"] == kind]


def render(results: Mapping[str, Result]) -> str:
    """A table a kind of images."""
    parts = []
    for kind in sorted({result["data"] for result in results.values()}):
        models = _of(results, kind)
        parts += [f"### Ranges and outliers of a ViT trained on {kind}", facts_line(models[0]), _table(models)]
    return "\n\n".join(parts)


def _table(models: Sequence[Result]) -> str:
    columns = ("file", "ranges and outliers", "lost", "as fp32", "planted outliers: lost", "as fp32")
    rows = []
    ways = dict.fromkeys(tuple(sample[key] for key in KEYS) for sample in models[0]["plain"])
    for format, precision, way in ways:
        cells = []
        for variant in VARIANTS:
            every = (sample for model in models for sample in model[variant])
            same = [each for each in every if tuple(each[key] for key in KEYS) == (format, precision, way)]
            failed = sum(not each["proven"] for each in same)
            note = f", {failed} of {len(same)} not proven" if failed else ""
            agreement = f"{mean(each['agreement'] for each in same):.1%}{note}"
            cells += [number(mean(each["lost"] for each in same), 2), agreement]
        rows.append((f"{format}-{precision}", way, *cells))
    return table(columns, rows)
