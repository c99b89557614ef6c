"""Proof on the wire: files of each convention in plain engines, beside what the model's own library answers."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import vit_deploy
from benchmarks.job import Job
from benchmarks.progress import progress
from benchmarks.records import run_facts
from tests.peers import plain_engines
from tests.peers.census import Array, distance
from tests.peers.conventions import CONVENTIONS, Convention, Proof, installed
from vit_deploy.core.options import CheckpointOptions

FORMATS = tuple(plain_engines.ENGINES)
PRECISIONS = ("fp32", "int8", "int8-static")  # SavedModel has the first alone
MINIATURE = ("EVA-02",)


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """One result a convention."""
    for name, convention in CONVENTIONS.items():
        if (job.quick and name not in MINIATURE) or not installed(convention):
            continue
        progress(f"conventions: {name}")
        facts = run_facts()
        with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
            yield slug(name), {**facts, "convention": name, **proven(convention, Path(folder))}


def slug(name: str) -> str:
    """A name that files can have."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def proven(convention: Convention, folder: Path) -> dict[str, Any]:
    """How far each format's file is from the library at both sizes, and what became of each precision."""
    proof = convention.make(folder / "model")
    trained = proof.trained
    reading = CheckpointOptions()
    if trained.stated:
        stated = folder / "stated.json"
        stated.write_text(json.dumps(dict(trained.stated)))
        reading = CheckpointOptions(config=stated)
    assert trained.images is not None and trained.answer is not None
    made = vit_deploy.export(
        trained.path, folder / "trained", formats=FORMATS, precisions=PRECISIONS, reading=reading, check=False
    )
    return {
        "library": convention.library,
        "wire": _distances(folder / "trained", trained.images, trained.answer),
        "other_size": _other_size(proof, reading, folder / "other"),
        "precisions": {
            result.artifact.name: {"failures": list(result.parity.failures), "snr_db": result.parity.snr_db}
            for result in made.made.results
        },
    }


def _other_size(proof: Proof, reading: CheckpointOptions, folder: Path) -> dict[str, Any]:
    """Of images of another size, by the library's own answer; or why there is none."""
    if proof.other_size is None:
        return {"none": proof.why_not}
    assert proof.images is not None and proof.answer is not None
    vit_deploy.export(proof.trained.path, folder, formats=FORMATS, reading=reading, image_size=proof.other_size)
    return _distances(folder, proof.images, proof.answer)


def _distances(folder: Path, images: Array, answer: Array) -> dict[str, float]:
    return {
        format: distance(answered(folder, images.astype(np.float32)), answer)
        for format, answered in plain_engines.ENGINES.items()
    }
