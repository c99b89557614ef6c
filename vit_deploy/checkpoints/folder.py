"""What is a checkpoint that is a folder: which of its files hold the weights, and what do those beside them say?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from vit_deploy.checkpoints.documents import MAX_JSON_BYTES, explained, parse_json
from vit_deploy.checkpoints.paths import SUFFIXES
from vit_deploy.checkpoints.source import TensorFile
from vit_deploy.errors import CheckpointError
from vit_deploy.weights import Float32

INDEX_SUFFIX = ".index.json"  # of the file that says which weights are in which shard
WEIGHT_FILES = (
    *("model.safetensors", f"model.safetensors{INDEX_SUFFIX}", "open_clip_model.safetensors"),
    *("pytorch_model.bin", f"pytorch_model.bin{INDEX_SUFFIX}", "model.weights.h5"),
)
"""Usual names of the weights in a folder, best first."""

Opener = Callable[[Path], AbstractContextManager[TensorFile]]


def weights_in(folder: Path) -> Path:
    """The file of a folder that holds the weights.

    Raises:
        CheckpointError: there is none, or more than one with no usual name.
    """
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    found = [each for each in sorted(folder.glob("*")) if each.suffix in SUFFIXES and each.is_file()]
    if len(found) == 1:
        return found[0]
    raise CheckpointError(
        f"{folder} is a folder that holds {'several checkpoints' if found else 'no checkpoint'}",
        fix=f"give the file: {', '.join(each.name for each in found)}" if found else "give a checkpoint file",
    )


@contextmanager
def open_beside(path: Path, opener: Opener) -> Iterator[TensorFile]:
    """The tensors of a file or of its shards, with the JSON files beside it as documents.

    Args:
        path: of a weight file, or of the index of its shards.
        opener: opens one file.

    Raises:
        CheckpointError: an index that is damaged, or names files that are missing or elsewhere.
    """
    with ExitStack() as stack:
        file: TensorFile
        if path.name.endswith(INDEX_SUFFIX):
            shards = _shards(path)
            opened = {name: stack.enter_context(opener(path.parent / name)) for name in dict.fromkeys(shards.values())}
            file = Sharded(path, next(iter(opened.values())).container, {}, opened, shards)
        else:
            file = stack.enter_context(opener(path))
        yield Beside(file, Documents(file.documents, path.parent))


def _shards(index: Path) -> dict[str, str]:
    """Name of each tensor to the file that holds it."""
    values = parse_json(_text(index), index.name)
    with explained(index.name):
        shards = {str(name): str(file) for name, file in values["weight_map"].items()}
    problems = []
    for name in dict.fromkeys(shards.values()):
        if PurePath(name).name != name or name in ("", ".", ".."):
            problems.append(f"{name!r} lies elsewhere")
        elif not (index.parent / name).is_file():
            problems.append(f"{name} is missing")
    if not shards:
        problems.append("it names no weights")
    if problems:
        raise CheckpointError(f"{index.name}: {'; '.join(problems)}", fix="get all files of the checkpoint again")
    return shards


def _text(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path.name} has {path.stat().st_size} bytes", fix="get the file again")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path.name}: {error.strerror}", fix="check its permissions") from error


class Documents(Mapping[str, Any]):
    """What a file says itself, and after that the JSON files in its folder, each parsed when it is asked for."""

    def __init__(self, own: Mapping[str, Any], folder: Path) -> None:
        self._own = own
        self._folder = folder

    def __getitem__(self, name: str) -> Any:
        if name in self._own:
            return self._own[name]
        path = self._folder / name
        if PurePath(name).name != name or path.suffix != ".json" or not path.is_file():
            raise KeyError(name)
        return parse_json(_text(path), name)

    def __iter__(self) -> Iterator[str]:
        beside = (each.name for each in sorted(self._folder.glob("*.json")) if each.is_file())
        return iter(dict.fromkeys((*self._own, *beside)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))


@dataclass(frozen=True)
class Beside:
    """A `TensorFile` with more documents."""

    file: TensorFile
    documents: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.file.path

    @property
    def container(self) -> str:
        """Of the file."""
        return self.file.container

    def names(self) -> Iterable[str]:
        """Of the file's tensors."""
        return self.file.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor."""
        return self.file.shape(name)

    def dtype(self, name: str) -> str:
        """Of one tensor."""
        return self.file.dtype(name)

    def read(self, name: str) -> Float32:
        """One tensor as float32."""
        return self.file.read(name)


@dataclass(frozen=True)
class Sharded:
    """A `TensorFile` over several, each tensor in the one that the index names."""

    path: Path
    container: str
    documents: Mapping[str, Any]
    files: Mapping[str, TensorFile]
    shards: Mapping[str, str]

    def __post_init__(self) -> None:
        held = {name: set(file.names()) for name, file in self.files.items()}
        problems = [f"{file} has no {name}" for name, file in self.shards.items() if name not in held[file]]
        problems += [
            f"{file} has {name}, which the index leaves out"
            for file, names in held.items()
            for name in sorted(names)
            if name not in self.shards
        ]
        if problems:
            raise CheckpointError(
                f"the shards are not those of {self.path.name}: {'; '.join(problems[:20])}",
                fix="get all files of the checkpoint again",
            )

    def names(self) -> Iterable[str]:
        """Of all files' tensors."""
        return self.shards.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor."""
        return self.files[self.shards[name]].shape(name)

    def dtype(self, name: str) -> str:
        """Of one tensor."""
        return self.files[self.shards[name]].dtype(name)

    def read(self, name: str) -> Float32:
        """One tensor as float32."""
        return self.files[self.shards[name]].read(name)
