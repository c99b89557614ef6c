"""How do the stored results of trained models read: targets, then what each precision lost?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean

from benchmarks.markdown import number, table
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

DROP = {"fp16": 0.3, "int8": 0.3, "int8-static": 0.7, "int8-full": 1.5, "int16x8": 1.5, "int4": 1.5}  # points
AGREEMENT = {"int8": 0.99, "int8-static": 0.975, "int8-full": 0.94, "int16x8": 0.99, "int4": 0.97}
TFLITE_ONLY = ("int8-full", "int16x8")


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """Loss of top-1 on digits, agreement on photographs, both with and without outliers."""
    digits, photos = (of(results, kind) for kind in ("digits", "photos"))
    for variant in ("plain", "planted"):
        outliers = ", outliers planted" if variant == "planted" else ""
        for format, precision, limit in limits(DROP):
            text = f"{format} `{precision}` on digits{outliers}: points of top-1 lost, mean of the seeds"
            yield Target(text, limit, mean_drop(digits, variant, f"{format}-{precision}"))
        for format, precision, limit in limits(AGREEMENT):
            text = f"{format} `{precision}` on photographs{outliers}: first classes as fp32's"
            found = values(photos, variant, f"{format}-{precision}", "agreement")
            yield Target(text, limit, mean(found) if found else None, at_least=True, digits=3)


def limits(of_precisions: Mapping[str, float]) -> Iterator[tuple[str, str, float]]:
    """Format, precision and limit of each."""
    for format in ("onnx", "tflite"):
        for precision, limit in of_precisions.items():
            if format == "tflite" or precision not in TFLITE_ONLY:
                yield format, precision, limit


def of(results: Mapping[str, Result], kind: str) -> list[Result]:
    """The models that were trained on one kind of images."""
    return [result for result in results.values() if result["data"] == kind]


def values(models: Sequence[Result], variant: str, name: str, figure: str) -> list[float]:
    """A figure of one artifact in each model; none where it failed its proof in one of them."""
    found = [sample[figure] for model in models for sample in model[variant] if sample["artifact"] == name]
    return found if len(found) == len(models) else []


def drops(models: Sequence[Result], variant: str, name: str) -> list[float]:
    """Points of top-1 lost against the format's fp32, by model."""
    fp32 = values(models, variant, f"{name.partition('-')[0]}-fp32", "top1")
    found = values(models, variant, name, "top1")
    return [100 * (one - other) for one, other in zip(fp32, found, strict=True)] if found else []


def mean_drop(models: Sequence[Result], variant: str, name: str) -> float | None:
    """Over the models; None where one of them has no such artifact."""
    found = drops(models, variant, name)
    return mean(found) if found else None


def render(results: Mapping[str, Result]) -> str:
    """A table a kind of images."""
    parts = []
    for kind in sorted({result["data"] for result in results.values()}):
        models = of(results, kind)
        parts += [
            f"### Precisions of a ViT trained on {kind}",
            facts_line(models[0]),
            models_line(models),
            losses_table(models),
        ]
    return "\n\n".join(parts)


def models_line(models: Sequence[Result]) -> str:
    """How many there are, and how right they are."""
    seeds = len(models)
    right = ", ".join(f"{value:.1%}" for value in values(models, "plain", "onnx-fp32", "top1"))
    return (
        f"{seeds} seed{'s' * (seeds > 1)}, {models[0]['images']} held-out images, fp32 right on {right}. "
        "Points of top-1 lost (mean of the seeds, and the most), and first classes that are fp32's (mean)."
    )


def losses_table(models: Sequence[Result]) -> str:
    """A row a precision."""
    names = [sample["artifact"] for sample in models[0]["plain"] if not sample["artifact"].endswith("-fp32")]
    rows = []
    for name in names:
        cells = []
        for variant in ("plain", "planted"):
            lost, agreed = drops(models, variant, name), values(models, variant, name, "agreement")
            cells += [number(mean(lost), 2), number(max(lost), 2), f"{mean(agreed):.1%}"] if lost else ["-"] * 3
        rows.append((name, *cells))
    planted = ("planted outliers: lost", "most", "as fp32")
    return table(("artifact", "lost", "most", "as fp32", *planted), rows)
