"""What does each precision cost a trained model: `python -m benchmarks.accuracy`.

Small ViTs are trained on scikit-learn's digits with three seeds, and with `--data` one on photographs (a folder, or a
zip, with a folder a class); `--trained` takes what was trained before. All precisions of each are made, calibrated on
training images, and evaluated on images that no training saw; and once more after outliers were planted, see `planted`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import precision_tables
from benchmarks.__main__ import HERE, LIBRARIES, progress
from benchmarks.export_time import ROOT, environment
from benchmarks.making import make_all, name_of
from vit_deploy import checkpoints
from vit_deploy.artifact import read_artifact, versions
from vit_deploy.checkpoint import Checkpoint
from vit_deploy.datasets import read_dataset
from vit_deploy.evaluation import evaluate, to_json
from vit_deploy.host import read_host

RESULTS = HERE / "results" / "accuracy"
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


def measure(model: Path, data: Path, folder: Path) -> dict[str, Any]:
    """One trained model as it is and with outliers, in plain JSON values.

    Args:
        model: `<data>-<seed>.keras`; `<data>-train.npz` and `<data>-test.npz` lie in `data`.
        data: the folder of the images.
        folder: for the bundles.
    """
    host, started, kind = read_host(), datetime.now(UTC), model.stem.rpartition("-")[0]
    checkpoint = checkpoints.load(model)
    dataset = read_dataset(data / f"{kind}-test.npz")
    found: dict[str, Any] = {}
    for name, variant in (("plain", checkpoint), ("planted", planted(checkpoint))):
        progress(f"{model.stem}, {name}: making all precisions")
        path = folder / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoints.save(variant, path)
        made = make_all([str(path)], folder / name, data / f"{kind}-train.npz")
        artifacts = [read_artifact(Path(each["path"])) for each in made if each["path"]]
        progress(f"{model.stem}, {name}: evaluating on {len(dataset)} images")
        found[name] = [
            to_json(each) | {"artifact": each.artifact.name, "reference": each.reference.name}
            for each in evaluate(artifacts, dataset)
        ]
        failed = [name_of(each) for each in made if not each["path"]]
        if failed:
            progress(f"{model.stem}, {name}: failed their proof: {', '.join(failed)}")
    return {
        "schema": 1,
        "model": model.stem,
        "data": kind,
        "images": len(dataset),
        "started": f"{started:%Y-%m-%d %H:%M} UTC",
        "host": host.to_dict(),
        "versions": versions(*LIBRARIES, "ai-edge-quantizer", "scikit-learn"),
        **found,
    }


def trained(folder: Path, data: Path | None) -> list[Path]:
    """The trained models in `folder`, trained now where they are not there."""
    if not sorted(folder.glob("digits-*.keras")):
        progress("training on digits")
        _run("benchmarks.digits", "-o", str(folder))
    if data is not None and not sorted(folder.glob("photos-*.keras")):
        progress("training on photographs")
        _run("benchmarks.photos", "--data", str(data), "-o", str(folder))
    return sorted([*folder.glob("digits-*.keras"), *folder.glob("photos-*.keras")])


def _run(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, env=environment(), check=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options, train, measure, store, render."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--data", type=Path, metavar="FOLDER|FILE.zip", help="photographs, a folder a class")
    parser.add_argument("--trained", type=Path, metavar="DIR", help="of trained models, or where they go")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--readme", type=Path, default=HERE / "README.md", metavar="FILE")
    options = parser.parse_args(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
        home = options.trained or Path(folder) / "trained"
        for model in trained(home, options.data):
            result = measure(model, home, Path(folder) / model.stem)
            text = json.dumps(result, separators=(",", ":"))
            (options.results / f"{model.stem}.json").write_text(text + "\n", encoding="utf-8")
    precision_tables.rewrite(options.readme, options.results.with_name("precisions"), options.results)
    progress(f"the tables are in {options.readme}")


if __name__ == "__main__":
    main()
