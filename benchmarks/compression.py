"""What do pruning, clustering and quantization-aware training cost and bring: `python -m benchmarks.compression`.

The ViTs of `benchmarks.digits`, three seeds: trained on the training images, of which a fifth is held out to choose the
epoch by, and measured on images that no training saw. Each result is held to the targets below.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "compression"
MAX_DROP = 0.7  # points of top-1 that each may lose
MAX_GZIP = 0.45  # of the uncompressed TFLite's gzipped size, for the better one of pruned and clustered
WAYS: Mapping[str, Mapping[str, Any]] = {
    "prune": {"epochs": 30, "learning_rate": 2e-3, "patience": 0},
    "cluster": {"epochs": 8},
    "qat": {"epochs": 8},
}


def measure_one(model: Path, method: str, *, speed: bool) -> dict[str, Any]:
    """One trained model, compressed by one method, in plain JSON values."""
    from benchmarks.__main__ import progress
    from vit_deploy import checkpoints
    from vit_deploy.artifact import versions
    from vit_deploy.compress import CompressOptions
    from vit_deploy.compress.data import open_images
    from vit_deploy.compress.job import as_artifact
    from vit_deploy.compress.stage import compress
    from vit_deploy.compress.table import measure, verdicts
    from vit_deploy.host import read_host

    kind, seed = model.stem.rpartition("-")[0], int(model.stem.rpartition("-")[2])
    data = model.with_name(f"{kind}-train.npz")
    options = CompressOptions(method, seed=seed, **WAYS[method])
    before, started = checkpoints.load(model), datetime.now(UTC)
    progress(f"{model.stem}: {method}")
    with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
        result = compress(before, options, data, state=Path(folder) / "training")
        test = open_images(model.with_name(f"{kind}-test.npz"), as_artifact(before, model))
        # What was learned stands against images that the uncompressed model is calibrated on.
        rows = measure(
            before, result.checkpoint, test, Path(folder), quantized=method == "qat", speed=speed, calibrate=data
        )
    return {
        "schema": 1,
        "model": model.stem,
        "method": method,
        "options": options.to_dict(),
        "images": len(test),
        "started": f"{started:%Y-%m-%d %H:%M} UTC",
        "host": read_host().to_dict(),
        "versions": versions("tensorflow-cpu", "tf_keras", "tensorflow-model-optimization", "ai-edge-litert"),
        "best_epoch": result.best_epoch,
        "files": [each.to_dict() for each in rows],
        "verdicts": verdicts(rows),
    }


def unmet(result: Mapping[str, Any]) -> list[str]:
    """Targets that one result does not reach, in words."""
    before, after = ({each["name"]: each for each in result["files"] if each["state"] == at} for at in STATES)
    exact, said = before["tflite-fp32"], []
    judged = ("int8-static",) if result["method"] == "qat" else ("fp32",)
    for precision in judged:
        found = after.get(f"tflite-{precision}")
        drop = None if found is None else 100 * (exact["top1"] - found["top1"])
        if drop is None or drop > MAX_DROP:
            told = "failed its proof" if drop is None else f"lost {drop:.2f} points"
            said.append(f"{result['model']} {result['method']} tflite-{precision} {told}; at most {MAX_DROP}")
    if result["method"] == "cluster":
        share = after["tflite-fp32"]["gzip_bytes"] / exact["gzip_bytes"]
        if share > MAX_GZIP:
            said.append(f"{result['model']} clustered is gzipped {share:.3f} of what it was; at most {MAX_GZIP}")
    full, was = after.get("tflite-int8-full"), before.get("tflite-int8-full")
    if result["method"] == "qat" and was and (full is None or full["top1"] < was["top1"]):
        told = "failed its proof" if full is None else f"{full['top1']:.2%}"
        said.append(f"{result['model']} qat tflite-int8-full {told}; post-training {was['top1']:.2%}")
    return said


STATES = ("before", "after")


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: a line a file, before and after side by side."""
    lines = [
        "| model | method | file | top-1 before | after | zeros | distinct | gzipped | latency |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        before, after = ({each["name"]: each for each in result["files"] if each["state"] == at} for at in STATES)
        for name, one in after.items():
            was = before.get(name)
            if was is None:
                continue
            speed = "-" if not one["latency_ms"] else f"{one['latency_ms'] / was['latency_ms']:.2f}"
            lines.append(
                f"| {result['model']} | {result['method']} | {name} | {was['top1']:.2%} | {one['top1']:.2%} "
                f"| {one['sparsity']:.1%} | {one['distinct']} | {one['gzip_bytes'] / was['gzip_bytes']:.2f} | {speed} |"
            )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, compress, measure, store, print the table and what is unmet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compression", description=__doc__)
    parser.add_argument("--trained", type=Path, required=True, metavar="DIR", help="what benchmarks.digits wrote")
    parser.add_argument("--method", action="append", choices=WAYS, help="repeat for more; default all")
    parser.add_argument("--model", action="append", help="such as digits-0; repeat for more; default all digits")
    parser.add_argument("--no-speed", action="store_true", help="time nothing")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--table", action="store_true", help="only print what is stored")
    options = parser.parse_args(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    if not options.table:
        names = options.model or [each.stem for each in sorted(options.trained.glob("digits-*.keras"))]
        for name in names:
            for method in options.method or WAYS:
                result = measure_one(options.trained / f"{name}.keras", method, speed=not options.no_speed)
                text = json.dumps(result, separators=(",", ":"))
                (options.results / f"{name}-{method}.json").write_text(text + "\n", encoding="utf-8")
    found = [json.loads(each.read_text(encoding="utf-8")) for each in sorted(options.results.glob("*.json"))]
    print(table(found))
    for line in [line for each in found for line in unmet(each)] or ["every target is met"]:
        print(line)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    main()
