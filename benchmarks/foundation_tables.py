"""Tables of what precisions cost a real pretrained model: targets, then a row a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.accuracy_tables import losses_table, mean_drop, models_line
from benchmarks.figures import latency_ratio, p50_ms
from benchmarks.markdown import number, table
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target
from vit_deploy.verification.probes import NORMAL_95

PRECISIONS: Mapping[str, Sequence[str]] = {
    "onnx": ("fp16", "int8", "int8-static", "int16x8", "int4"),
    "tflite": ("fp16", "int8", "int8-static", "int8-full", "int16x8", "int4"),
    "savedmodel": (),
}
EXACT = frozenset(("fp32", "fp16", "int16x8"))  # all but exact
LOST = {"fp16": 0.3, "int8": 0.3, "int16x8": 0.3, "int8-static": 0.7, "int8-full": 1.5, "int4": 1.5}  # points
COSINE = {"fp16": 0.999, "int16x8": 0.999, "int8": 0.995, "int8-static": 0.99, "int8-full": 0.98}
SAME = 1e-3  # between the checkpoint and the backbone it was taken from, both in float32, of values to 10
MODELS = {"dinov2-small": "DINOv2-small"}
FP32 = "tflite-fp32"  # what all others are compared with
MASSIVE = {"plain": "", "planted": ", and more by rewriting"}
NONE_OF = 3.0  # of n photographs none is lost: with 95 % fewer than three in n are, of all that there are


@dataclass(frozen=True)
class Counts:
    """How many photographs are calibrated on, known, told, and compared token by token.

    `told` is how many most precisions are told of, and what probes are made of besides. Those that may lose 0.3 points
    are told of as many as it takes to tell that: `int8` of more, those that are all but exact of fewer, of which
    `int16x8` takes TFLite two seconds a photograph. fp32 of other formats is told of fewest.
    """

    calibrated: int = 64
    known: int = 1000
    told: int = 2000
    compared: int = 32
    told_int8: int = 8000
    told_fp16: int = 2000
    told_int16x8: int = 1600
    told_fp32: int = 64
    compared_exact: int = 8

    def told_by(self, precision: str) -> int:
        """How many photographs a file of a precision tells, but for the first one's fp32."""
        other = {
            "int8": self.told_int8,
            "fp16": self.told_fp16,
            "int16x8": self.told_int16x8,
            "fp32": self.told_fp32,
        }
        return other.get(precision, self.told)

    @property
    def read(self) -> int:
        """How many have to be there to be told."""
        return max(self.told, self.told_int8, self.told_fp16, self.told_int16x8, self.told_fp32)


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """The checkpoint is the backbone, and each precision keeps nearly all of it."""
    for model, words in MODELS.items():
        proof = results.get(f"{model}-proof")
        if proof is not None or model == next(iter(MODELS)):
            text = f"{words}: the most that the rebuilt checkpoint differs from the backbone in the package's file"
            yield Target(text, SAME, None if proof is None else proof["proof"]["max_abs"], digits=5)
        for format, precisions in PRECISIONS.items():
            for precision in precisions:
                found = results.get(f"{model}-{format}-{precision}")
                name = f"{words}: {format} `{precision}`"
                lost = None if found is None else 100 * (found["fp32_linear_probe"] - found["linear_probe"])
                error = 0.0 if found is None else _error(found)
                yield Target(f"{name}: points that a linear probe loses", LOST[precision], lost, error=error)
                if precision in COSINE:
                    cosine = None if found is None else found["patch_cosine"]
                    text = f"{name}: mean cosine of a patch token with fp32's"
                    yield Target(text, COSINE[precision], cosine, at_least=True, digits=4)
    models = _massive(results)
    for variant, outliers in MASSIVE.items():
        for format, precisions in PRECISIONS.items():
            for precision in precisions:
                lost = mean_drop(models, variant, f"{format}-{precision}") if models else None
                text = f"digits with massive activations{outliers}: {format} `{precision}`: points of top-1 lost, mean"
                yield Target(text, LOST[precision], lost)


def _error(found: Result) -> float:
    """Of the points that a linear probe loses: by what differs, and no less than what nothing that differs can show."""
    return 100 * max(NORMAL_95 * found["linear_probe_error"], NONE_OF / found["told"])


def _massive(results: Mapping[str, Result]) -> list[Result]:
    return [result for result in results.values() if "massive" in result]


def render(results: Mapping[str, Result]) -> str:
    """A table a model, then those with massive activations."""
    models = _massive(results)
    parts = [_pretrained(results)]
    if models:
        parts += ["### Precisions of ViTs with massive activations", facts_line(models[0]), _seen(models)]
        parts += [models_line(models), losses_table(models)]
    return "\n\n".join(part for part in parts if part)


def _seen(models: Sequence[Result]) -> str:
    found = [result["massive"] for result in models]
    return (
        "The residual stream where it is most massive: "
        + "; ".join(
            f"up to {seen['largest']:.0f}, {seen['largest'] / seen['median']:.0f} times the median, in "
            f"{seen['channels']} channels of {seen['tokens']:.0%} of the tokens"
            for seen in found
        )
        + "."
    )


def _pretrained(results: Mapping[str, Result]) -> str:
    return "\n\n".join(
        part
        for model in dict.fromkeys(result["model"] for result in results.values())
        if f"{model}-{FP32}" in results
        for part in (
            f"### Precisions of {MODELS.get(model, model)}",
            facts_line(results[f"{model}-{FP32}"]),
            _words(results, model),
            _files(results, model),
        )
    )


def _words(results: Mapping[str, Result], model: str) -> str:
    fp32, usual = results[f"{model}-{FP32}"], Counts()
    text = (
        f"Of {fp32['told']} photographs fp32's linear probes tell {fp32['linear_probe']:.1%} and its nearest "
        f"neighbours {fp32['knn']:.1%}. Losses are means over {fp32['halvings']} ways of halving the photographs, with "
        f"95 % of where they may be, for which targets take no less than {NONE_OF:g} photographs (where none is lost, "
        f"as many may be); cosines are over all tokens of {usual.compared}, and of {usual.compared_exact} where "
        f"precisions are all but exact."
    )
    if fp32.get("made_of", fp32["told"]) < fp32["told"]:
        text += f" What is halved are the first {fp32['made_of']}, and all others are told by both sides in turn."
    if "known" in fp32:
        text += f" Files were calibrated on {fp32['calibrated']} others, and {fp32['known']} more were known to probes."
    if fp32["told"] < usual.read:
        text += f" That is less than a whole run has, which tells {usual.read}."
    there = [found for name in _names() if (found := results.get(f"{model}-{name}")) is not None]
    for count in sorted({found["told"] for found in there} - {fp32["told"]}, reverse=True):
        names = ", ".join(f"`{found['artifact']}`" for found in there if found["told"] == count)
        text += f" {names}: the first {count}."
    return text


def _names() -> list[str]:
    return [f"{format}-{name}" for format, names in PRECISIONS.items() for name in ("fp32", *names)]


def _files(results: Mapping[str, Result], model: str) -> str:
    columns = (
        *("artifact", "MB", "ms", "over fp32", "patch tokens: cosine", "worst", "class token: cosine", "worst"),
        *("linear probe lost", "as fp32", "neighbours lost", "as fp32"),
    )
    times: Result = results.get(f"{model}-latency", {"latency": []})
    rows = []
    for format, precisions in PRECISIONS.items():
        for precision in ("fp32", *precisions):
            name = f"{format}-{precision}"
            found = results.get(f"{model}-{name}")
            if found is None:
                continue
            entry = next((each for each in times["latency"] if each["way"] == name), None)
            ratio = None if entry is None else latency_ratio(times, name, f"{format}-fp32")
            rows.append(
                (
                    f"`{name}`" + ("" if found["proven"] else ", not proven"),
                    number(found["bytes"] / 1e6, 1),
                    number(None if entry is None else p50_ms(entry), 1),
                    number(ratio, 2),
                    *(number(found[key], 4) for key in ("patch_cosine", "worst_patch_cosine")),
                    *(number(found[key], 4) for key in ("class_cosine", "worst_class_cosine")),
                    _lost(found, "linear_probe"),
                    f"{found['probe_agreement']:.1%}",
                    _lost(found, "knn"),
                    f"{found['knn_agreement']:.1%}",
                )
            )
    return table(columns, rows)


def _lost(found: Result, way: str) -> str:
    points = number(100 * (found[f"fp32_{way}"] - found[way]), 2)
    return f"{points} ± {number(100 * NORMAL_95 * found[f'{way}_error'], 2)}"
