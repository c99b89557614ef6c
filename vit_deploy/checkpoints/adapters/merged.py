"""The tensors of a base model with an adapter added to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vit_deploy.checkpoints.adapters.config import FILE, MERGE, LoraConfig, lora_config
from vit_deploy.checkpoints.adapters.lora import Sum
from vit_deploy.checkpoints.adapters.names import WRAPPED, Place, placed
from vit_deploy.checkpoints.documents import MAX_JSON_BYTES, parse_json
from vit_deploy.checkpoints.folder import ADAPTERS
from vit_deploy.checkpoints.source import TensorFile, TensorView
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

DOWN, UP = re.compile(r"\.lora_(embedding_)?A(\.[^.]+)?(\.weight)?$"), "lora_{}B{}{}"
LENGTHS = re.compile(r"\.lora_magnitude_vector(\.[^.]+)?(\.weight)?$")
# What an adapter inside a model leaves in the names of its tensors.
TRACES = re.compile(r"\.base_layer\.|\.lora_|\.original_module\.|\.modules_to_save\.|\.(hada|lokr|oft|boft|vera|ia3)_")
SAVED = re.compile(r"\.modules_to_save\.([^.]+)\.")
LISTED = 5
MAX_ADAPTERS = 1
# The layer behind torch's own attention, which is adapted as a part of it.
BEHIND_ATTENTION = re.compile(r"\.base_layer\.out_proj$")
ADAPTED = ("weight", "in_proj_weight")  # what matrices are added to, of a layer and of torch's own attention

Opener = Callable[[Path], AbstractContextManager[TensorFile]]


@dataclass(frozen=True)
class Merged(TensorView):
    """A `TensorFile` with sums added to its tensors, and others in their place.

    Args:
        file: the base model.
        stored: name in the base model of each tensor that is left of it.
        sums: what is added, by the name here.
        halves: what is put in place of a half of the rows, by the name here: the half, the file and the name there.
        replaced: tensors in place of the base model's, or beside them: the file and the name there.
        note: what was merged, in words.
    """

    stored: Mapping[str, str]
    sums: Mapping[str, list[Sum]]
    halves: Mapping[str, list[tuple[int, TensorFile, str]]]
    replaced: Mapping[str, tuple[TensorFile, str]]
    note: Mapping[str, Any] = field(default_factory=dict)

    @property
    def documents(self) -> Mapping[str, Any]:
        """Of the base model."""
        return self.file.documents

    def names(self) -> Iterable[str]:
        """Names of all tensors."""
        return dict.fromkeys((*self.stored, *self.replaced))

    def stored_name(self, name: str) -> str:
        """The name in the base model, or its own where it is not of there."""
        return self.stored.get(name, name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor."""
        if name in self.replaced:
            file, theirs = self.replaced[name]
            return file.shape(theirs)
        return self.file.shape(self.stored[name])

    def dtype(self, name: str) -> str:
        """Of one tensor."""
        if name in self.replaced:
            file, theirs = self.replaced[name]
            return file.dtype(theirs)
        return self.file.dtype(self.stored[name])

    def read(self, name: str) -> Float32:
        """One tensor as float32, with what is added to it.

        Raises:
            CheckpointError: matrices that do not fit.
        """
        if name in self.replaced:
            file, theirs = self.replaced[name]
            return file.read(theirs)
        weight = self.file.read(self.stored[name])
        if name not in self.sums and name not in self.halves:
            return weight
        total = weight.astype(np.float64)
        for half, file, theirs in self.halves.get(name, ()):
            values = file.read(theirs)
            if 2 * len(values) != len(total):
                raise CheckpointError(
                    f"{theirs} {values.shape} is no half of {name} {weight.shape}", fix="get the adapter again"
                )
            total[half * len(values) : (half + 1) * len(values)] = values
        for term in self.sums.get(name, ()):
            rows = len(total) if term.half is None else len(total) // 2
            start = 0 if term.half is None else term.half * rows
            total[start : start + rows] = term.added_to(total[start : start + rows], weight.shape)
        return total.astype(np.float32)


@contextmanager
def adapted(file: TensorFile, given: object, opener: Opener) -> Iterator[TensorFile]:
    """The file with the adapter merged: that of a folder, that beside the file, or that inside it; or the file itself.

    Args:
        file: the base model.
        given: folder of an adapter, or None.
        opener: opens one file.

    Raises:
        CheckpointError: no adapter in the folder, one of another kind or for another model, or traces of one in the
            names of the file and nothing that says how it is merged.
    """
    inside = [name for name in file.names() if TRACES.search(name)]
    config = file.documents.get(FILE)
    if inside and all(WRAPPED.match(name) for name in file.names()) and not _wraps(inside):
        named = config.get("base_model_name_or_path") if isinstance(config, Mapping) else None
        raise CheckpointError(
            f"it is an adapter, without its base model{f' {named}' if named else ''}",
            fix="give the base model, and the adapter's folder with --adapter FOLDER",
        )
    if given is not None:
        if not isinstance(given, str | Path):
            raise CheckpointError(f"adapter is {given!r}; expected a folder", fix="give the folder that PEFT has saved")
        if inside:
            raise CheckpointError(
                f"an adapter is given, and the file holds one already ({inside[0]})", fix="leave --adapter out"
            )
        folder = Path(given)
        with opener(adapter_weights(folder)) as adapter:
            yield merge(file, adapter, _read_config(folder), folder.name)
        return
    if inside:
        if not isinstance(config, Mapping) or not _wraps(inside):
            raise CheckpointError(
                f"it holds an adapter that is not merged ({inside[0]}), and no {FILE} of PEFT's that says how",
                fix=MERGE,
            )
        yield _unwrapped(file, config)
        return
    beside = next((each for name in ADAPTERS if (each := file.path.parent / name).is_file()), None)
    if beside is None:
        yield file
        return
    if not isinstance(config, Mapping):
        raise CheckpointError(
            f"an adapter lies beside it ({beside.name}), and no {FILE} that says how it is merged",
            fix=f"put the {FILE} there that was saved with it, or take the adapter out of the folder",
        )
    with opener(beside) as adapter:
        yield merge(file, adapter, config, beside.name)


def _wraps(names: Iterable[str]) -> bool:
    """Whether these are names of a model with its layers inside an adapter's."""
    return any(".base_layer." in name for name in names)


def adapter_weights(folder: Path) -> Path:
    """The file of an adapter's matrices in its folder.

    Raises:
        CheckpointError: there is none.
    """
    found = next((each for name in ADAPTERS if (each := folder / name).is_file()), None)
    if found is None:
        raise CheckpointError(
            f"{folder} holds no adapter: neither {' nor '.join(ADAPTERS)}", fix="give the folder that PEFT has saved"
        )
    return found


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / FILE
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes", fix="get the file again")
        return parse_json(path.read_bytes(), str(path))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}", fix="get the adapter's folder again") from error


def merge(file: TensorFile, adapter: TensorFile, document: Mapping[str, Any], origin: str) -> Merged:
    """A base model with an adapter in a file of its own.

    Args:
        file: the base model.
        adapter: the matrices, and modules that were trained whole.
        document: the adapter's config.
        origin: its name, for what is noted.

    Raises:
        CheckpointError: an adapter of another kind, or tensors that belong to nothing in the base model.
    """
    config = lora_config(document)
    names = frozenset(file.names())
    sums: dict[str, list[Sum]] = {}
    replaced: dict[str, tuple[TensorFile, str]] = {}
    halves: dict[str, list[tuple[int, TensorFile, str]]] = {}
    unknown = []
    pairs, rest = _pairs(adapter)
    for module, matrices in pairs.items():
        adapted = _adapted(module, names)
        if adapted is None:
            unknown.append(matrices[0])
            continue
        weight, target = adapted
        sums.setdefault(weight, []).append(_sum(adapter, module, matrices, config, target))
    whole = _whole_modules(document)
    for name in rest:
        theirs = _inside(name)
        module, _, part = theirs.rpartition(".")
        place = placed(module, names, part)
        if place is not None and place.half is not None:
            halves.setdefault(f"{place.module}.{part}", []).append((place.half, adapter, name))
        elif place is not None:
            replaced[f"{place.module}.{part}"] = (adapter, name)
        elif any(part in whole for part in module.split(".")):
            replaced[theirs] = (adapter, name)
        else:
            unknown.append(name)
    if unknown or not (sums or replaced or halves):
        raise _misplaced(unknown, file)
    note = {"from": origin, "modules": len(pairs), "replaced": len(replaced)}
    return Merged(file, {name: name for name in names}, sums, halves, replaced, note)


def _unwrapped(file: TensorFile, document: Mapping[str, Any]) -> Merged:
    """A model that holds its adapter, as PEFT's own `state_dict` does."""
    config = lora_config(document)
    pairs, rest = _pairs(file)
    saved = {found[1] for name in rest if (found := SAVED.search(name))}
    if len(saved) > MAX_ADAPTERS:
        raise CheckpointError(f"it holds several adapters: {', '.join(sorted(saved))}", fix=MERGE)
    stored: dict[str, str] = {}
    for name in rest:
        if ".original_module." in name:  # what a module was before it was trained whole
            continue
        stored[_inside(name)] = name
    held = frozenset(stored)
    sums: dict[str, list[Sum]] = {}
    unknown = []
    for module, matrices in pairs.items():
        adapted = _adapted(module, held)
        if adapted is None:
            unknown.append(matrices[0])
            continue
        weight, target = adapted
        sums.setdefault(weight, []).append(_sum(file, module, matrices, config, target))
    endings = tuple(f".{part}" for part in ADAPTED)
    alone = [name for name in rest if ".base_layer." in name and name.endswith(endings)]
    if unknown or len(alone) != len(sums):
        raise CheckpointError(
            f"it holds {len(alone)} layers with adapters, and LoRA matrices for {len(sums)} of them", fix=MERGE
        )
    return Merged(file, stored, sums, {}, {}, {"from": file.path.name, "modules": len(pairs), "replaced": 0})


def _adapted(module: str, names: frozenset[str]) -> tuple[str, Place] | None:
    """The tensor that a module's matrices are added to, and its place; None if the base model has no such module."""
    inside = BEHIND_ATTENTION.sub(".out_proj", WRAPPED.sub("", module))
    for part in ADAPTED:
        if (place := placed(inside, names, part)) is not None:
            return f"{place.module}.{part}", place
    return None


def _inside(name: str) -> str:
    """The name of a tensor in the model that PEFT has wrapped."""
    return SAVED.sub(".", WRAPPED.sub("", name)).replace(".base_layer.", ".")


def _pairs(file: TensorFile) -> tuple[dict[str, tuple[str, str, str | None]], list[str]]:
    """Names of the two matrices of each module with those of its lengths, and of all other tensors.

    Raises:
        CheckpointError: a matrix without the other, several adapters, or matrices of another kind.
    """
    names = list(file.names())
    held = set(names)
    lengths = {name[: found.start()]: name for name in names if (found := LENGTHS.search(name))}
    pairs: dict[str, tuple[str, str, str | None]] = {}
    problems = []
    for name in names:
        found = DOWN.search(name)
        if not found:
            continue
        embedding, adapter, part = (group or "" for group in found.groups())
        up = name[: found.start() + 1] + UP.format(embedding, adapter, part)
        module = name[: found.start()]
        if up not in held or module in pairs:
            problems.append(name)
        pairs[module] = (name, up, lengths.get(module))
    used = {name for pair in pairs.values() for name in pair if name is not None}
    rest = [name for name in names if name not in used]
    problems += [name for name in rest if ".lora_" in name]
    if problems:
        raise CheckpointError(
            f"its adapter has tensors that no pair of matrices explains: {', '.join(problems[:LISTED])}", fix=MERGE
        )
    return pairs, rest


def _sum(file: TensorFile, module: str, names: tuple[str, str, str | None], config: LoraConfig, place: Place) -> Sum:
    down, up, lengths = names
    embedding = ".lora_embedding_" in down
    shape = file.shape(down)
    adapted = BEHIND_ATTENTION.sub("", WRAPPED.sub("", module))
    scale = config.scale(adapted, max(shape[0] if shape else 1, 1))
    if BEHIND_ATTENTION.search(module):
        scale *= 2  # PEFT adds this product with the attention's own, and then once more: when it trains as well
    if lengths is not None and embedding:
        raise CheckpointError(f"{lengths} has lengths for columns; expected those of rows", fix=MERGE)
    return Sum(file, down, up, scale, embedding, place.half, lengths)


def _whole_modules(document: Mapping[str, Any]) -> frozenset[str]:
    saved = document.get("modules_to_save")
    return frozenset(map(str, saved)) if isinstance(saved, list) else frozenset()


def _misplaced(unknown: list[str], file: TensorFile) -> CheckpointError:
    listed = ", ".join(unknown[:LISTED]) or "no matrices"
    first = next(iter(file.names()), "none")
    return CheckpointError(
        f"the adapter is for another model: it has {listed}, and the base model has tensors such as {first}",
        fix="give the base model that the adapter was trained on",
    )
