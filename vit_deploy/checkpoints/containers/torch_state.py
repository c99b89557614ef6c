"""State dicts in what a torch file holds: under whatever keys, in pickled modules and in TorchScript."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vit_deploy.checkpoints.containers.torch_modules import facts_of
from vit_deploy.checkpoints.containers.torch_pickle import Inert
from vit_deploy.checkpoints.containers.torch_tensors import Tensor, quantized_tensor
from vit_deploy.checkpoints.source import KEY_END
from vit_deploy.errors import CheckpointError

Keys = tuple[str, ...]
"""Keys that lead to a state dict."""

MAX_DEPTH = 12  # of keys
MAX_MODULES = 200_000
MAX_NESTED = 64  # modules inside of each other
MAX_ITEMS = 64  # of a list that is looked into
QUANTIZED = re.compile(r"(^|\.)nn\.quantized\.(?!functional|FloatFunctional)|\.ao\.nn\.quantized\.")
SCRIPTED = "__torch__."  # what TorchScript's classes begin with
MODULE_PARTS = ("_parameters", "_buffers", "_modules")
OPTIMIZERS = (
    *("optimizer", "optimizers", "optimizer_states", "optimizer_state_dict", "optim", "opt", "optimizer_state"),
    *("lr_schedulers", "lr_scheduler", "scheduler", "scaler", "amp_scaler"),
)
"""Keys of what holds a copy or two of each weight that is no weight."""


@dataclass(frozen=True)
class Found:
    """What a torch file holds.

    Args:
        tensors: by the keys that lead to their state dict, each followed by `KEY_END`, and the name.
        modules: what pickled modules say besides their tensors, by those keys.
    """

    tensors: Mapping[str, Tensor]
    modules: Mapping[Keys, Mapping[str, Any]]


def state_dicts(value: Any) -> Found:
    """All tensors with a name.

    Raises:
        CheckpointError: there are none; says what there is.
    """
    found: dict[str, Tensor] = {}
    modules: dict[Keys, list[Inert]] = {}
    for path, tensors in _groups(value, modules):
        prefix = "".join(f"{key}{KEY_END}" for key in path)
        for name, tensor in tensors.items():
            found.setdefault(f"{prefix}{name.replace(KEY_END, '.')}", tensor)
    if not found:
        raise CheckpointError(
            f"it holds no tensors by name but {_in_words(value)}",
            fix="save model.state_dict() itself, or under a key such as state_dict or model",
        )
    return Found(found, {path: facts for path, held in modules.items() if (facts := facts_of(held))})


def _groups(value: Any, modules: dict[Keys, list[Inert]]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Tensor]]]:
    """Each state dict with the keys that lead to it; what is there twice is found once."""
    pending: list[tuple[Keys, Any]] = [((), value)]
    visited: set[int] = set()
    while pending:
        path, held = pending.pop()
        if id(held) in visited or len(path) > MAX_DEPTH or len(visited) > MAX_MODULES:
            continue
        visited.add(id(held))
        if isinstance(held, Inert) and _is_module(held):
            yield path, dict(_of_module(held, visited, modules.setdefault(path, [])))
            continue
        entries = _entries(held)
        tensors = {str(key): inner for key, inner in entries.items() if isinstance(inner, Tensor)}
        if tensors:
            yield path, tensors
        inner_first = [
            ((*path, str(key).replace(KEY_END, ".")), inner)
            for key, inner in entries.items()
            if isinstance(inner, dict | Inert | list | tuple) and str(key) not in OPTIMIZERS
        ]
        pending += reversed(inner_first)


def _entries(value: Any) -> Mapping[Any, Any]:
    if isinstance(value, dict):
        return value
    if isinstance(value, Inert):
        return value.attributes
    return dict(enumerate(value)) if isinstance(value, list | tuple) and len(value) <= MAX_ITEMS else {}


def _is_module(value: Inert) -> bool:
    return value.name.startswith(SCRIPTED) or all(part in value.attributes for part in MODULE_PARTS)


def _of_module(root: Inert, visited: set[int], seen: list[Inert]) -> Iterator[tuple[str, Tensor]]:
    """The parameters and buffers of a pickled module by the path of its attributes, as in its state dict.

    A module that is used in several places has its tensors under each of these paths, but for those inside of itself.
    """
    pending: list[tuple[str, Inert, tuple[int, ...]]] = [("", root, ())]
    while pending:
        prefix, module, above = pending.pop()
        above = (*above, id(module))
        seen.append(module)
        if len(seen) > MAX_MODULES or len(above) > MAX_NESTED:
            raise CheckpointError(
                f"its model is of more than {MAX_MODULES} modules, or of {MAX_NESTED} inside of each other",
                fix="save model.state_dict() instead of the model",
            )
        attributes = module.attributes
        parts: list[Mapping[Any, Any]] = [attributes]
        if not module.name.startswith(SCRIPTED):
            parts = [found for part in MODULE_PARTS if isinstance(found := attributes.get(part), dict)]
        if QUANTIZED.search(module.name):  # its numbers are inside of an object, and would be missed without a word
            yield f"{prefix}_packed_params", quantized_tensor()
        dropped = attributes.get("_non_persistent_buffers_set")
        for name, value in ((str(key), value) for part in parts for key, value in part.items()):
            if isinstance(value, Tensor) and not (isinstance(dropped, list) and name in dropped):
                yield f"{prefix}{name}", value
            elif isinstance(value, Inert) and _is_module(value) and id(value) not in above:
                visited.add(id(value))
                pending.append((f"{prefix}{name}.", value, above))


def _in_words(value: Any) -> str:
    if isinstance(value, Inert):
        return f"a {value.name}, of which nothing was run"
    if not isinstance(value, dict):
        return type(value).__name__
    return f"the keys {', '.join(map(_key_in_words, list(value)[:8]))}"


def _key_in_words(key: Any) -> str:
    return key[:80] if isinstance(key, str) else type(key).__name__ if isinstance(key, Inert | bytes) else str(key)[:80]
