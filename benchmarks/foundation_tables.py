"""Tables of what precisions cost a real pretrained model: targets, then a row a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.figures import latency_ratio, p50_ms
from benchmarks.markdown import number, table
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

PRECISIONS: Mapping[str, Sequence[str]] = {
    "onnx": ("fp16", "int8", "int8-static", "int4"),
    "tflite": ("fp16", "int8", "int8-static", "int8-full", "int16x8", "int4"),
}
SLOW = ("int16x8",)  # on a CPU: seconds an image
LOST = {"fp16": 0.3, "int8": 0.3, "int16x8": 0.3, "int8-static": 0.7, "int8-full": 1.5, "int4": 1.5}  # points
COSINE = {"fp16": 0.999, "int16x8": 0.999, "int8": 0.995, "int8-static": 0.99, "int8-full": 0.98}
SAME = 1e-3  # between the checkpoint and the backbone it was taken from, both in float32, of values to 10
MODELS = {"dinov2-small": "DINOv2-small"}


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
                yield Target(f"{name}: points that a linear probe loses", LOST[precision], lost)
                if precision in COSINE:
                    cosine = None if found is None else found["patch_cosine"]
                    text = f"{name}: mean cosine of a patch token with fp32's"
                    yield Target(text, COSINE[precision], cosine, at_least=True, digits=4)


def render(results: Mapping[str, Result]) -> str:
    """A table a model."""
    return "\n\n".join(
        part
        for model in dict.fromkeys(result["model"] for result in results.values())
        if f"{model}-onnx-fp32" in results
        for part in (
            f"### Precisions of {MODELS.get(model, model)}",
            facts_line(results[f"{model}-onnx-fp32"]),
            _words(results, model),
            _files(results, model),
        )
    )


def _words(results: Mapping[str, Result], model: str) -> str:
    fp32 = results[f"{model}-onnx-fp32"]
    text = (
        f"Of {fp32['told']} photographs fp32's linear probe tells {fp32['linear_probe']:.1%} and its nearest "
        f"neighbours {fp32['knn']:.1%}; cosines over all tokens of {fp32['compared']}."
    )
    for precision in SLOW:
        slow = results.get(f"{model}-tflite-{precision}")
        if slow is not None:
            text += f" `{precision}` was run on {slow['told']} and {slow['compared']} of them."
    return text


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
                    number(100 * (found["fp32_linear_probe"] - found["linear_probe"]), 2),
                    f"{found['probe_agreement']:.1%}",
                    number(100 * (found["fp32_knn"] - found["knn"]), 2),
                    f"{found['knn_agreement']:.1%}",
                )
            )
    return table(columns, rows)
