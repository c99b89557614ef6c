"""What does removing heads, hidden units and blocks cost and bring, beside training the small model from nothing?

The ViTs of `benchmarks.digits` and `benchmarks.photos`, shrunk on the images that they were trained on, and measured on
images that no training saw. python -m benchmarks.shrink --trained DIR [--data FOLDER|FILE.zip] only trains: what is
trained stays in DIR and is not trained again, so that a part measured later takes minutes. A run that was killed goes
on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.job import Job
from benchmarks.processes import ROOT, environment
from benchmarks.progress import progress
from benchmarks.records import run_facts
from benchmarks.trained import on_digits, on_photographs
from vit_deploy.core.child_processes import python

BATCH = 64  # images a step
# Of so few images the original's answers are learned in many epochs, of mixtures too (Beyer et al. 2022).
_DIGITS: Mapping[str, Any] = {
    "epochs": 300,
    "held_out": 0.1,
    "patience": 0,
    "schedule": "constant",
    "augment": ("crop", "mixup"),
    "distill": 1.0,
}
_PHOTOS: Mapping[str, Any] = {"epochs": 10, "patience": 0, "schedule": "constant", "augment": ("crop", "flip")}
WAYS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "digits": {
        "1.5x": {**_DIGITS, "keep_layers": 2, "keep_heads": 3, "keep_mlp": 128},
        "2x": {**_DIGITS, "keep_layers": 2, "keep_heads": 2, "keep_mlp": 96},
    },
    "photos": {
        "1.5x": {**_PHOTOS, "keep_layers": 3},
        "2x": {**_PHOTOS, "keep_layers": 3, "keep_heads": 3, "keep_mlp": 256},
    },
}
"""What is measured of each kind of images: the speed-up aimed at, and options of `compress --method shrink`."""


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """A result a model and way."""
    for model in [*on_digits(job), *on_photographs(job)]:
        for way in WAYS[kind_of(model)]:
            yield f"{model.stem}-{way}", measure_one(model, way, epochs=1 if job.quick else None)


def kind_of(model: Path) -> str:
    """ "digits" or "photos"."""
    return model.stem.partition("-")[0]


def measure_one(model: Path, way: str, *, epochs: int | None = None) -> dict[str, Any]:
    """One trained model, shrunk in one way, in plain JSON values; `epochs` in place of those of the way."""
    from vit_deploy import checkpoints
    from vit_deploy.compression import table
    from vit_deploy.compression.data import open_images
    from vit_deploy.compression.job import as_artifact
    from vit_deploy.core.cost import macs

    about = trained(model, way, epochs)
    facts, before, after = run_facts(), checkpoints.load(model), checkpoints.load(_file(model, way))
    progress(f"{model.stem}: measuring {way}")
    with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
        test = open_images(model.with_name(f"{kind_of(model)}-test.npz"), as_artifact(before, model))
        measured = table.measure(before, after, test, Path(folder), quantized=False, int8=True, speed=True)
    return {
        **facts,
        "model": model.stem,
        "way": way,
        **about,
        "images": len(test),
        "multiply_adds": [macs(before.config), macs(after.config)],
        "files": [each.to_dict() for each in measured.rows],
        "verdicts": [*table.verdicts(measured.rows), *measured.failures],
    }


def trained(model: Path, way: str, epochs: int | None = None) -> dict[str, Any]:
    """What is known of the training of a shrunk model and of its like from nothing, which is done where it was not."""
    about = _file(model, way).with_suffix(".json")
    if not about.exists():
        options = _shrunk(model, way, epochs)
        progress(f"{model.stem}: training {way} from nothing")
        found = {"options": options, "from_nothing": _from_nothing(model, way, options["epochs"])}
        about.write_text(json.dumps(found), encoding="utf-8")
    return dict(json.loads(about.read_text(encoding="utf-8")))


def _file(model: Path, way: str) -> Path:
    return model.with_name(f"{model.stem}-shrunk-{way}.safetensors")


def _shrunk(model: Path, way: str, epochs: int | None) -> dict[str, Any]:
    from vit_deploy import checkpoints
    from vit_deploy.compression import CompressOptions
    from vit_deploy.compression.stage import compress
    from vit_deploy.compression.training_folder import training_folder

    kind, _, seed = model.stem.partition("-")
    chosen = {**WAYS[kind][way], **({} if epochs is None else {"epochs": epochs})}
    options = CompressOptions("shrink", seed=int(seed), **chosen)
    file = _file(model, way)
    if not file.exists():
        progress(f"{model.stem}: shrinking {way}")
        data = model.with_name(f"{kind}-train.npz")
        with training_folder(file.with_suffix(".training")) as state:
            result = compress(checkpoints.load(model), options, data, state=state, progress=lambda doing: None)
            checkpoints.save(result.checkpoint, file)
            shutil.rmtree(state.path)
    return options.to_dict()


def _from_nothing(model: Path, way: str, epochs: int) -> float:
    """Fraction of the test images that the same small model gets right, trained for as long and as the large one was.

    Keras 3 trains it in a process of its own: this one may have the other Keras.
    """
    command = python("-m", "benchmarks.shrink", "--from-nothing", str(model), "--way", way, "--epochs", str(epochs))
    done = subprocess.run(command, cwd=ROOT, env=environment(), check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def from_nothing(model: Path, way: str, epochs: int) -> float:
    """Train it here."""
    from benchmarks import digits, photos
    from vit_deploy import checkpoints

    kind, _, seed = model.stem.partition("-")
    config = checkpoints.load(_file(model, way)).config
    names = ("num_heads", "head_width", "num_layers", "mlp_dim")
    sizes = {name: getattr(config, name) for name in names}
    test, images = (np.load(model.with_name(f"{kind}-{part}.npz")) for part in ("test", "train"))
    if kind == "digits":
        # An epoch there has every image five times; steps are what is compared.
        count = len(images["labels"])
        steps, of_an_epoch = epochs * -(-count // BATCH), -(-5 * count // BATCH)
        small = digits.train(digits.load(), int(seed), -(-steps // of_an_epoch), **sizes)
    else:
        labels = checkpoints.load(model).labels
        small = photos.train(images["images"], images["labels"], list(labels), int(seed), epochs, **sizes)
    answers = small.predict(small.preprocess.normalize(test["images"]), verbose=0).argmax(axis=-1)
    return float(np.mean(answers == test["labels"]))


def main() -> int:
    """Train what is to be measured, or one small model from nothing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shrink", description=__doc__)
    parser.add_argument("--trained", type=Path, metavar="DIR", help="of the trained models, where all stays")
    parser.add_argument("--data", type=Path, metavar="FOLDER|FILE.zip", help="photographs to train on too")
    parser.add_argument("--only", metavar="MODEL", help="digits-0, photos-1, …")
    parser.add_argument("--from-nothing", type=Path, metavar="MODEL.keras", help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.from_nothing:
        print(from_nothing(options.from_nothing, options.way, options.epochs))
        return 0
    if options.trained is None:
        parser.error("--trained DIR is needed")
    job = Job(options.trained, options.trained.absolute(), options.data and options.data.absolute())
    for model in [*on_digits(job), *on_photographs(job)]:
        if options.only in (None, model.stem):
            for way in WAYS[kind_of(model)]:
                progress(f"{model.stem} {way}: from nothing {trained(model, way)['from_nothing']:.4f}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    sys.exit(main())
