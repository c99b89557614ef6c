"""Checkpoints that are folders: which files hold the weights, and what those beside them say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.checkpoints.documents import MAX_JSON_BYTES, explained, parse_json
from vit_deploy.checkpoints.paths import SUFFIXES
from vit_deploy.checkpoints.source import TensorFile, TensorView, whole_numbers
from vit_deploy.checkpoints.wrapping.runs import Taken, folder_of_run, weights_of_run
from vit_deploy.core.manifest import bundles_in, not_a_bundle
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
INDEX_SUFFIX = ".index.json"  # of the file that says which weights are in which shard
WEIGHT_FILES = (
    *("model.safetensors", f"model.safetensors{INDEX_SUFFIX}", "open_clip_model.safetensors"),
    *("pytorch_model.bin", f"pytorch_model.bin{INDEX_SUFFIX}", "model.weights.h5"),
)
"""Usual names of the weights in a folder, best first."""

BACKBONE_FILE, HEAD_FILES = "model.weights.h5", ("task.weights.h5", "task.json")  # in a preset of keras-hub

SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)")
MAX_FOLDERS = 3  # that are gone into to find the weights of a run
MAX_SHARDS = 500  # each is an open file
LISTED = 20  # problems shown in full before the rest is counted
GET_ALL = "get all files of the checkpoint again"

Opener = Callable[[Path], AbstractContextManager[TensorFile]]


def weights_in(folder: Path, depth: int = MAX_FOLDERS) -> Taken:
    """The file of a folder that holds the weights: the usual one, the only one, or the obvious one of a run.

    Raises:
        CheckpointError: there is none, more than one of which none is the obvious one, shards without their index, or
            a model in pieces.
    """
    for name in WEIGHT_FILES:
        if _is_file(folder / name):
            return Taken(folder / name)
    found = [path for path in sorted(folder.glob("*")) if path.name.endswith(SUFFIXES) and _is_file(path)]
    found = [path for path in found if not path.name.startswith(".")]  # macOS leaves such beside copied files
    found = [path for path in found if path.name not in ADAPTERS] or found  # the base model beside its adapter
    if shard := next((match for path in found if (match := SHARD.fullmatch(path.name))), None):
        raise CheckpointError(
            f"{folder} is a folder that holds shards, and no {shard[1]}{shard[2]}{INDEX_SUFFIX} that lists them",
            fix=GET_ALL,
        )
    if taken := weights_of_run(folder, found):
        return taken
    if depth and (inside := folder_of_run(folder)):
        inner = weights_in(inside.path, depth - 1)
        return Taken(inner.path, inner.why or inside.why, inner.others or inside.others)
    if not found and bundles_in(folder):
        said = not_a_bundle(folder)
        raise CheckpointError(f"{said.message}, and holds no checkpoint", fix=said.fix)
    raise CheckpointError(
        f"{folder} is a folder that holds {'several checkpoints' if found else 'no checkpoint'}",
        fix=f"give the file: {', '.join(path.name for path in found)}" if found else "give a checkpoint file",
    )


def weight_files(path: Path) -> tuple[Path, ...]:
    """All files that the weights of a checkpoint lie in.

    Args:
        path: of a weight file, of the index of its shards, or of a folder that holds either.

    Raises:
        CheckpointError: as `weights_in`, or an index that is damaged.
    """
    taken = weights_in(path).path if path.is_dir() else path
    if taken.name.endswith(INDEX_SUFFIX):
        return tuple(taken.parent / name for name in dict.fromkeys(_shards(taken).values()))
    return (taken, taken.parent / HEAD_FILES[0]) if _has_head_beside(taken) else (taken,)


def _has_head_beside(path: Path) -> bool:
    """Whether a file holds the backbone of a preset of keras-hub, whose head lies in another."""
    return path.name == BACKBONE_FILE and all(_is_file(path.parent / name) for name in HEAD_FILES)


@contextmanager
def open_beside(path: Path, opener: Opener) -> Iterator[TensorFile]:
    """The tensors of a file or of its shards, with the JSON files beside it as documents.

    Args:
        path: the path of a weight file, or of the index of its shards.
        opener: opens one file.

    Raises:
        CheckpointError: an index that is damaged, or names files that are missing or elsewhere; or one shard of many.
    """
    if match := SHARD.fullmatch(path.name):
        raise CheckpointError(
            "it is one of the files that the weights are spread over",
            fix=f"give the folder, or {match[1]}{match[2]}{INDEX_SUFFIX}",
        )
    with ExitStack() as stack:
        file: TensorFile
        if path.name.endswith(INDEX_SUFFIX):
            shards = _shards(path)
            opened = _opened(path.parent, dict.fromkeys(shards.values()), opener, stack)
            file = Sharded(path, next(iter(opened.values())).container, {}, opened, shards)
        elif _has_head_beside(path):
            opened = _opened(path.parent, (HEAD_FILES[0], path.name), opener, stack)
            shards = {name: part for part, tensors in opened.items() for name in tensors.names()}
            file = Sharded(path, opened[path.name].container, {}, opened, shards)
        else:
            file = stack.enter_context(opener(path))
        yield Beside(file, Documents(file.documents, path.parent))


def _opened(folder: Path, names: Iterable[str], opener: Opener, stack: ExitStack) -> dict[str, TensorFile]:
    """Every file by its name; those that cannot be opened are told together."""
    opened: dict[str, TensorFile] = {}
    problems = []
    for name in names:
        try:
            opened[name] = stack.enter_context(opener(folder / name))
        except CheckpointError as error:
            message = error.message.replace(str(folder / name), name)
            problems.append(message if message.startswith(name) else f"{name}: {message}")
    if problems:
        raise CheckpointError(_listed(problems), fix=GET_ALL)
    return opened


def _shards(index: Path) -> dict[str, str]:
    """Name of each tensor to the file that holds it."""
    values = parse_json(_text(index), index.name)
    with explained(index.name):
        shards = {str(name): str(file) for name, file in values["weight_map"].items()}
    files = list(dict.fromkeys(shards.values()))
    problems = [] if files else ["it names no weights"]
    if len(files) > MAX_SHARDS:
        problems.append(f"it names {len(files)} files; expected {MAX_SHARDS} at most")
    for name in files[:MAX_SHARDS]:
        if any(character in name for character in "/\\:\0") or name in ("", ".", ".."):
            problems.append(f"{name!r} lies elsewhere")
        elif name.endswith(INDEX_SUFFIX) or not _is_file(index.parent / name):
            problems.append(f"{name} is missing")
    if problems:
        raise CheckpointError(f"{index.name}: {_listed(problems)}", fix=GET_ALL)
    return shards


def _is_file(path: Path) -> bool:
    """Whether a file is there, through links as well: the cache of a hub is made of them."""
    try:
        return path.is_file()
    except OSError:  # a name that is too long, or a folder that may not be entered
        return False


def _listed(problems: Sequence[str]) -> str:
    more = [f"and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
    return "; ".join([*problems[:LISTED], *more])


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
        if PurePath(name).name != name or path.suffix != ".json" or not _is_file(path):
            raise KeyError(name)
        return parse_json(_text(path), name)

    def __iter__(self) -> Iterator[str]:
        beside = (path.name for path in sorted(self._folder.glob("*.json")) if _is_file(path))
        return iter(dict.fromkeys((*self._own, *beside)))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))


@dataclass(frozen=True)
class Beside(TensorView):
    """A `TensorFile` with more documents."""

    documents: Mapping[str, Any]


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
        problems += [
            f"{file} has {name}, which the index has in {self.shards[name]}"
            for file, names in held.items()
            for name in sorted(names)
            if self.shards.get(name, file) != file
        ]
        if problems:
            raise CheckpointError(f"the shards are not those of {self.path.name}: {_listed(problems)}", fix=GET_ALL)

    def names(self) -> Iterable[str]:
        """The names of all files' tensors."""
        return self.shards.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor."""
        return self.files[self.shards[name]].shape(name)

    def dtype(self, name: str) -> str:
        """The dtype of one tensor."""
        return self.files[self.shards[name]].dtype(name)

    def read(self, name: str) -> Float32:
        """One tensor as float32."""
        return self.files[self.shards[name]].read(name)

    def words(self, name: str) -> NDArray[np.uint32]:
        """One tensor of whole numbers of 32 bits."""
        return whole_numbers(self.files[self.shards[name]], name)
