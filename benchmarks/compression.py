"""What do pruning, clustering and quantization-aware training cost and bring?

The ViTs of `benchmarks.digits`: trained on the training images, of which a fifth is held out to choose the epoch by,
and measured on images that no training saw.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.job import Job
from benchmarks.progress import progress
from benchmarks.records import run_facts
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
            yield f"{model.stem}-{way}", measure_one(model, way, epochs=1 if job.quick else None)


def measure_one(model: Path, way: str, *, epochs: int | None = None) -> dict[str, Any]:
    """One trained model, compressed in one way, in plain JSON values; `epochs` in place of those of the way."""
    from vit_deploy import checkpoints
    from vit_deploy.compression import CompressOptions, table
    from vit_deploy.compression.data import open_images
    from vit_deploy.compression.job import as_artifact
    from vit_deploy.compression.stage import compress
    from vit_deploy.compression.training_folder import training_folder

    kind, seed = model.stem.rpartition("-")[0], int(model.stem.rpartition("-")[2])
    data = model.with_name(f"{kind}-train.npz")
    options = CompressOptions(seed=seed, **WAYS[way])
    options = options if epochs is None else dataclasses.replace(options, epochs=epochs)
    facts, before = run_facts(), checkpoints.load(model)
    progress(f"{model.stem}: {way}")
    with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
        with training_folder(Path(folder) / "training") as state:
            result = compress(before, options, data, state=state)
        test = open_images(model.with_name(f"{kind}-test.npz"), as_artifact(before, model))
        # What was learned stands against images that the uncompressed model is calibrated on.
        measured = table.measure(
            before,
            result.checkpoint,
            test,
            Path(folder),
            quantized=options.method == "qat",
            speed=True,
            calibrate=result.trained_on,
        )
    return {
        **facts,
        "model": model.stem,
        "method": way,
        "options": options.to_dict(),
        "images": len(test),
        "best_epoch": result.best_epoch,
        "history": [dict(epoch) for epoch in result.history],
        "files": [row.to_dict() for row in measured.rows],
        "verdicts": [*table.verdicts(measured.rows), *measured.failures],
    }
