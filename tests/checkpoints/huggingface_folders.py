"""The recorded folders of transformers: copies with something changed, what they answer, and how near is near."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.peers.make_huggingface_golden import EXPECTED, TARGET
from vit_deploy.checkpoints.containers.safetensors_file import open_safetensors, write_safetensors

Tensors = dict[str, NDArray[np.float32]]
LIMIT = 1e-5  # of the largest answer


def deviation(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """The largest difference as a part of the largest answer."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def expected_of(name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Images and what transformers answered to them."""
    with np.load(TARGET / name / EXPECTED) as expected:
        return expected["images"], expected["answer"]


def changed(
    folder: Path,
    name: str,
    tensors: Callable[[Tensors], Tensors] = lambda tensors: tensors,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """A copy in `folder`, as one file, with other tensors or entries of its config; None takes an entry out."""
    target = folder / name
    shutil.copytree(TARGET / name, target, ignore=shutil.ignore_patterns("*.safetensors*"))
    held: Tensors = {}
    for file in sorted((TARGET / name).glob("*.safetensors")):
        with open_safetensors(file) as opened:
            held |= {one: opened.read(one) for one in opened.names()}
    write_safetensors(target / "model.safetensors", tensors(held), {"format": "pt"})
    document = json.loads((target / "config.json").read_text())
    entries = {key: value for key, value in {**document, **(config or {})}.items() if value is not None}
    (target / "config.json").write_text(json.dumps(entries))
    return target
