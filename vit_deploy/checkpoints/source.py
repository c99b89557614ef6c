"""What does a container offer, and what does a dialect make of it?

A container (zip with HDF5, HDF5, safetensors) is opened once and read lazily, as a `TensorFile`. A dialect
is a `Source`: a table of renames and a function that reads the config out of what the file says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vit_deploy.checkpoint import Checkpoint
from vit_deploy.config import ViTConfig
from vit_deploy.errors import CheckpointError
from vit_deploy.weights import Float32, WeightSpec, weight_specs

MAX_AXES = 16
MAX_NUMBERS = 1 << 48  # in one tensor; NumPy can still describe an array of that many


class TensorFile(Protocol):
    """An open weight file: names are known, numbers are read when they are asked for.

    Attributes:
        path: of the file.
        container: key of `CONTAINERS`.
        documents: what it says besides tensors, parsed: `config.json` of a `.keras` file, each entry of a
            safetensors' metadata.
    """

    path: Path
    container: str
    documents: Mapping[str, Any]

    def names(self) -> Iterable[str]:
        """Names of all tensors, as the file has them."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor; reads no numbers."""

    def dtype(self, name: str) -> str:
        """Stored type of one tensor, by the container's own name for it."""

    def read(self, name: str) -> Float32:
        """One tensor as float32, whatever float type the file has.

        Raises:
            CheckpointError: it cannot be read, or holds no floats.
        """


class Source(Protocol):
    """One dialect."""

    def detects(self, file: TensorFile) -> bool:
        """Whether the names and documents are of this dialect."""

    def read(self, file: TensorFile, config: ViTConfig | None) -> Checkpoint:
        """The checkpoint; `config` is what the user says where the file is silent.

        Raises:
            CheckpointError: what is in the file is no ViT, or is damaged. Messages need not name the file.
        """


def gather(file: TensorFile, names: Mapping[str, str], config: ViTConfig) -> dict[str, Float32]:
    """The weights by canonical name, for `names` from canonical to the file's own.

    What does not fit the config is not read: an empty stand-in of its shape is enough for `Checkpoint`
    to list it with everything else that is wrong.

    Raises:
        CheckpointError: the config asks for far more than the file has.
    """
    if config.num_layers > len(names):  # a config can claim any number of layers, and costs memory for each
        raise CheckpointError(
            f"its config says {config.num_layers} layers, and it holds {len(names)} weights in all",
            fix="the file is damaged: get it again",
        )
    specs = weight_specs(config)
    return {name: _fitting(file, stored, specs.get(name)) for name, stored in names.items()}


def _fitting(file: TensorFile, stored: str, spec: WeightSpec | None) -> Float32:
    shape = file.shape(stored)
    if spec is None or shape != spec.shape:
        if len(shape) > MAX_AXES or math.prod(max(side, 1) for side in shape) > MAX_NUMBERS:
            raise CheckpointError(f"{stored} declares the shape {shape}", fix="the file is damaged: get it again")
        return np.broadcast_to(np.float32(0), shape)
    return file.read(stored)


def settled_config(found: ViTConfig | None, given: ViTConfig | None) -> ViTConfig:
    """The config of the file, or the one given where the file has none.

    Raises:
        CheckpointError: there is neither, or they differ.
    """
    if found is not None and given is not None and found != given:
        theirs, ours = found.to_dict(), given.to_dict()
        differing = [f"{name} is {theirs[name]}, not {ours[name]}" for name in theirs if theirs[name] != ours[name]]
        raise CheckpointError(
            f"it has a config of its own, other than the one given: {'; '.join(differing)}",
            fix="leave --config out",
        )
    config = found or given
    if config is None:
        raise CheckpointError(
            "it holds weights and no config",
            fix="give the config that they were saved with: --config FILE.json, or load(path, config=ViTConfig(…))",
        )
    return config
