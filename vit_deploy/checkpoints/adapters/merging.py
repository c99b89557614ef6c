"""Which tensors of a base model the matrices of a LoRA adapter belong to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vit_deploy.checkpoints.adapters.config import MERGE, LoraConfig, lora_config
from vit_deploy.checkpoints.adapters.lora import Sum
from vit_deploy.checkpoints.adapters.merged import Merged
from vit_deploy.checkpoints.adapters.names import WRAPPED, Place, placed
from vit_deploy.checkpoints.source import TensorFile
from vit_deploy.errors import CheckpointError

DOWN, UP = re.compile(r"\.lora_(embedding_)?A(\.[^.]+)?(\.weight)?$"), "lora_{}B{}{}"
LENGTHS = re.compile(r"\.lora_magnitude_vector(\.[^.]+)?(\.weight)?$")
SAVED = re.compile(r"\.modules_to_save\.([^.]+)\.")
LISTED = 5
MAX_ADAPTERS = 1
# The layer behind torch's own attention, which is adapted as a part of it.
BEHIND_ATTENTION = re.compile(r"\.base_layer\.out_proj$")
ADAPTED = ("weight", "in_proj_weight")  # what matrices are added to, of a layer and of torch's own attention


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
    replaced: dict[str, tuple[TensorFile, str]] = {}
    halves: dict[str, list[tuple[int, TensorFile, str]]] = {}
    pairs, rest = _pairs(adapter)
    sums, unknown = _sums(adapter, pairs, config, names)
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


def unwrapped(file: TensorFile, document: Mapping[str, Any]) -> Merged:
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
    sums, unknown = _sums(file, pairs, config, held)
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


def _sums(
    file: TensorFile, pairs: Mapping[str, tuple[str, str, str | None]], config: LoraConfig, names: frozenset[str]
) -> tuple[dict[str, list[Sum]], list[str]]:
    """What is added to each tensor of the base model, and the first matrix of each module that it does not have.

    Args:
        file: the matrices.
        pairs: their names by module, as `_pairs` gives them.
        config: of the adapter.
        names: tensors of the base model.

    Raises:
        CheckpointError: lengths that belong to no rows.
    """
    sums: dict[str, list[Sum]] = {}
    unknown = []
    for module, matrices in pairs.items():
        adapted = _adapted(module, names)
        if adapted is None:
            unknown.append(matrices[0])
            continue
        weight, target = adapted
        sums.setdefault(weight, []).append(_sum(file, module, matrices, config, target))
    return sums, unknown


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
