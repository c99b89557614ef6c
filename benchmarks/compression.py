"""What do pruning, clustering and quantization-aware training cost and bring: `python -m benchmarks.compression`.

The ViTs of `benchmarks.digits`: trained on the training images, of which a fifth is held out to choose the epoch by,
and measured on images that no training saw.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.job import Job
from benchmarks.progress import progress
from benchmarks.records import RESULTS, store
from benchmarks.trained import on_digits

_PRUNED: Mapping[str, Any] = {"method": "prune", "epochs": 30, "learning_rate": 2e-3, "patience": 0}
WAYS: Mapping[str, Mapping[str, Any]] = {
    "prune": _PRUNED,
    "prune-2of4": {**_PRUNED, "pattern": "2:4"},
    "prune-randaugment": {**_PRUNED, "augment": ("randaugment", "crop")},
    "cluster": {"method": "cluster", "epochs": 8},
    "qat": {"method": "qat", "epochs": 8},
}
"""What is measured: name to options of `compress`."""


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """A result a way and model."""
    for way in WAYS:
        for model in on_digits(job):
            yield f"{model.stem}-{way}", measure_one(model, way, speed=True, epochs=1 if job.quick else None)


def measure_one(model: Path, way: str, *, speed: bool, epochs: int | None = None) -> dict[str, Any]:
    """One trained model, compressed in one way, in plain JSON values; `epochs` in place of those of the way."""
    from vit_deploy import checkpoints
    from vit_deploy.artifact import versions
    from vit_deploy.compress import CompressOptions, table
    from vit_deploy.compress.data import open_images
    from vit_deploy.compress.job import as_artifact
    from vit_deploy.compress.stage import compress
    from vit_deploy.host import read_host

    kind, seed = model.stem.rpartition("-")[0], int(model.stem.rpartition("-")[2])
    data = model.with_name(f"{kind}-train.npz")
    options = CompressOptions(seed=seed, **WAYS[way])
    options = options if epochs is None else dataclasses.replace(options, epochs=epochs)
    before, started = checkpoints.load(model), datetime.now(UTC)
    progress(f"{model.stem}: {way}")
    with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
        result = compress(before, options, data, state=Path(folder) / "training")
        test = open_images(model.with_name(f"{kind}-test.npz"), as_artifact(before, model))
        # What was learned stands against images that the uncompressed model is calibrated on.
        measured = table.measure(
            before,
            result.checkpoint,
            test,
            Path(folder),
            quantized=options.method == "qat",
            speed=speed,
            calibrate=result.trained_on,
        )
    return {
        "schema": 1,
        "model": model.stem,
        "method": way,
        "options": options.to_dict(),
        "images": len(test),
        "started": f"{started:%Y-%m-%d %H:%M} UTC",
        "host": read_host().to_dict(),
        "versions": versions("tensorflow-cpu", "tf_keras", "tensorflow-model-optimization", "ai-edge-litert"),
        "best_epoch": result.best_epoch,
        "history": [dict(each) for each in result.history],
        "files": [each.to_dict() for each in measured.rows],
        "verdicts": [*table.verdicts(measured.rows), *measured.failures],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, compress, measure, store; `python -m benchmarks --tables` renders what is stored."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compression", description=__doc__)
    parser.add_argument("--trained", type=Path, required=True, metavar="DIR", help="what benchmarks.digits wrote")
    parser.add_argument("--way", action="append", choices=WAYS, help="repeat for more; default all")
    parser.add_argument("--model", action="append", help="such as digits-0; repeat for more; default all digits")
    parser.add_argument("--no-speed", action="store_true", help="time nothing")
    parser.add_argument("--results", type=Path, default=RESULTS / "compression", metavar="DIR")
    options = parser.parse_args(arguments)
    for way in options.way or WAYS:
        for name in options.model or [each.stem for each in sorted(options.trained.glob("digits-*.keras"))]:
            result = measure_one(options.trained / f"{name}.keras", way, speed=not options.no_speed)
            store(result, options.results / f"{name}-{way}.json")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    main()
