"""Weight files as plain dictionaries of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.checkpoints.containers.safetensors_file import open_safetensors, write_safetensors

Tensors = dict[str, NDArray[Any]]


def read(path: Path) -> Tensors:
    with open_safetensors(path) as file:
        return {name: file.read(name) for name in file.names()}


def write(path: Path, tensors: Mapping[str, NDArray[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(path, {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}, {})
    return path
