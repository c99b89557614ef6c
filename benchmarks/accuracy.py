"""What does each precision cost a trained model?

Small ViTs, trained on scikit-learn's digits with three seeds, and one on photographs. All precisions of each are made,
calibrated on training images, and evaluated on images that no training saw; and once more after outliers were planted,
see `planted`.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.job import Job
from benchmarks.making import make_all, name_of
from benchmarks.progress import progress
from benchmarks.records import run_facts
from benchmarks.trained import on_digits, on_photographs
from vit_deploy import checkpoints
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.datasets import read_dataset
from vit_deploy.core.manifest import read_artifact
from vit_deploy.verification.accuracy import evaluate, to_json

OUTLIERS = 10  # channels of each place
FACTOR = 30.0  # that they become larger by
SEED = 0


def planted(checkpoint: Checkpoint) -> Checkpoint:
    """The same function with outliers: ten channels 30 times as large at each place of a block where that is possible.

    These are the channels that attention and MLP read from their norms, and the attention's values. What reads them
    has weights 30 times as small.
    """
    weights = {name: values.copy() for name, values in checkpoint.weights.items()}
    rng = np.random.default_rng(SEED)
    for index in range(checkpoint.config.num_layers):
        block = f"block_{index}"
        places = (
            (f"{block}.norm1", ("scale", "bias"), tuple(f"attention.{role}" for role in ("query", "key", "value"))),
            (f"{block}.norm2", ("scale", "bias"), ("ffn.up",)),
            (f"{block}.attention.value", ("kernel", "bias"), ("attention.out",)),
        )
        for written, parts, readers in places:
            channels = rng.choice(checkpoint.config.embed_dim, OUTLIERS, replace=False)
            for part in parts:
                weights[f"{written}.{part}"][..., channels] *= FACTOR
            for reader in readers:
                weights[f"{block}.{reader}.kernel"][channels] /= FACTOR
    return dataclasses.replace(checkpoint, weights=weights)


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """A result a trained model."""
    for model in (*on_digits(job), *on_photographs(job)):
        with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
            yield model.stem, measure_model(model, Path(folder))


def measure_model(model: Path, folder: Path, plant: Callable[[Checkpoint], Checkpoint] = planted) -> dict[str, Any]:
    """One trained model as it is and with outliers, in plain JSON values.

    Args:
        model: `<kind>-<seed>.keras`; `<kind>-train.npz` and `<kind>-test.npz` lie beside it.
        folder: for the artifacts.
        plant: gives the same function with outliers.
    """
    facts, kind = run_facts(), model.stem.rpartition("-")[0]
    checkpoint = checkpoints.load(model)
    dataset = read_dataset(model.with_name(f"{kind}-test.npz"))
    found: dict[str, Any] = {}
    for name, variant in (("plain", checkpoint), ("planted", plant(checkpoint))):
        progress(f"{model.stem}, {name}: making all precisions")
        path = folder / f"{name}.safetensors"
        checkpoints.save(variant, path)
        made = make_all([str(path)], folder / name, model.with_name(f"{kind}-train.npz"))
        artifacts = [read_artifact(Path(each["path"])) for each in made if each["path"]]
        progress(f"{model.stem}, {name}: evaluating on {len(dataset)} images")
        found[name] = [
            to_json(each) | {"artifact": each.artifact.name, "reference": each.reference.name}
            for each in evaluate(artifacts, dataset)
        ]
        failed = [name_of(each) for each in made if not each["path"]]
        if failed:
            progress(f"{model.stem}, {name}: failed their proof: {', '.join(failed)}")
    return {**facts, "model": model.stem, "data": kind, "images": len(dataset), **found}
