"""The protocols of containers and dialects: what a file offers, and what is made of it.

A container (zip with HDF5, HDF5, safetensors, …) is opened once and read lazily, as a `TensorFile`. A dialect
is a `Source`: a table of where the canonical weights come from, and a function that reads the config out of what
the file says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

KEY_END = "\x1d"
"""Between the key of a state dict in a file that holds several and the name of a tensor in it; no name has it."""

MODULES = "modules"
"""The document of a torch file that has what pickled modules say of their function, by the keys that lead to them."""

TRAINING = "training"
"""The document of a torch file that has what a training has saved of itself, see `containers.torch_training`."""

STATE_DICTS = ("safetensors", "torch", "npz")
"""Keys of `CONTAINERS` that state dicts of PyTorch are kept in."""

Stated = Mapping[str, Any]
"""Fields of the config that the user states: all of them, some, or none."""


class TensorFile(Protocol):
    """An open weight file: names are known, numbers are read when they are asked for."""

    @property
    def path(self) -> Path:
        """The path of the file, or of the index of its shards."""

    @property
    def container(self) -> str:
        """Key of `CONTAINERS`."""

    @property
    def documents(self) -> Mapping[str, Any]:
        """What it says besides tensors, parsed when it is asked for.

        `config.json` of a `.keras` file, each entry of a safetensors' metadata, the JSON files beside it.
        """

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


@dataclass(frozen=True)
class TensorView:
    """The base of a `TensorFile` that is another one but for what it overrides; it has no documents of its own.

    Args:
        file: that is read.
    """

    file: TensorFile

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.file.path

    @property
    def container(self) -> str:
        """The container of the file."""
        return self.file.container

    def names(self) -> Iterable[str]:
        """Names of all tensors, as they are here."""
        return self.file.names()

    def stored_name(self, name: str) -> str:
        """The name in the file of a tensor."""
        return name

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor."""
        return self.file.shape(self.stored_name(name))

    def dtype(self, name: str) -> str:
        """The dtype of one tensor."""
        return self.file.dtype(self.stored_name(name))

    def read(self, name: str) -> Float32:
        """One tensor as float32."""
        return self.file.read(self.stored_name(name))


def original_name(file: TensorFile, name: str) -> str:
    """The name of a tensor in the container, through all views of it."""
    while isinstance(file, TensorView):
        name, file = file.stored_name(name), file.file
    return name.replace(KEY_END, ".")


@runtime_checkable
class WholeNumbers(Protocol):
    """A container that gives whole numbers too."""

    def words(self, name: str) -> NDArray[np.uint32]:
        """One tensor of whole numbers of 32 bits without a sign, as it is stored."""


def whole_numbers(file: TensorFile, name: str) -> NDArray[np.uint32]:
    """One tensor of whole numbers, through all views of a file.

    Raises:
        CheckpointError: the container gives none.
    """
    while isinstance(file, TensorView):
        name, file = file.stored_name(name), file.file
    if not isinstance(file, WholeNumbers):
        raise CheckpointError(f"{name} is {file.dtype(name)}; expected float", fix="save it in a file of safetensors")
    return file.words(name)


class Source(Protocol):
    """One dialect."""

    @property
    def heads(self) -> re.Pattern[str] | None:
        """Found in the names of a head's tensors, where a file without them is read as one without a head.

        None where the file's own config says whether there is a head.
        """

    def detects(self, file: TensorFile) -> bool:
        """Whether the names and documents are of this dialect."""

    def read(self, file: TensorFile, stated: Stated) -> Checkpoint:
        """The checkpoint; `stated` is what the user says where the file is silent.

        Raises:
            CheckpointError: what is in the file is no ViT, or is damaged. Messages need not name the file.
        """


class OwnConfigError(CheckpointError):
    """A file with a config of its own, other than the one given."""


def settled_config(found: ViTConfig | None, stated: Stated) -> ViTConfig:
    """The config of the file, or the one stated where the file has none.

    Raises:
        CheckpointError: there is neither.
        OwnConfigError: they differ.
    """
    if found is not None:
        theirs = found.to_dict()
        ours = found.replace(**stated).to_dict() if stated else theirs
        if differing := [
            f"{name} is {theirs[name]}, not {ours[name]}" for name in theirs if theirs[name] != ours[name]
        ]:
            raise OwnConfigError(
                f"it has a config of its own, other than the one given: {'; '.join(differing)}",
                fix="leave --config out",
            )
        return found
    if not stated:
        raise CheckpointError(
            "it holds weights and no config",
            fix="give the config that they were saved with: --config FILE.json, or load(path, config=ViTConfig(…))",
        )
    return ViTConfig.from_dict(stated)
