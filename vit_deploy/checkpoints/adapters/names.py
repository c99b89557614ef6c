"""Which tensor of a base model an adapter's module is, though another version of its library has named it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from vit_deploy.checkpoints.huggingface import names as hf
from vit_deploy.checkpoints.source import KEY_END

# What PEFT puts before the names of the model inside, and trainings around that.
WRAPPED = re.compile(rf"^(?:[^{KEY_END}]+{KEY_END})*(?:module\.|model\.|_orig_mod\.)*base_model\.model\.")
BLOCK = re.compile(r"^(?P<prefix>(?:.*\.)?)(?:encoder\.layers?|layers)\.(?P<number>\d{1,6})\.(?P<part>.+)$")
BLOCKS = ("encoder.layer", "encoder.layers", "layers")
PACKED: Mapping[str, int] = {"mlp.gate_proj": 0, "mlp.up_proj": 1}  # halves of `mlp.weights_in`


@dataclass(frozen=True)
class Place:
    """Where a module of an adapter is in the base model.

    Args:
        module: name of the module there.
        half: which half of its rows, where two are packed into one; None for all.
    """

    module: str
    half: int | None = None


def placed(module: str, names: frozenset[str], part: str = "weight") -> Place | None:
    """The place of a module whose tensor `part` is in the base model; None if there is none, or more than one.

    Args:
        module: an adapter's name, without PEFT's prefix.
        names: of the base model's tensors.
        part: of the module.
    """
    for place in _called(module):
        if f"{place.module}.{part}" in names:
            return place
    for place in _called(module):
        ending = f"{place.module}.{part}"
        found = [name for name in names if name.endswith(f".{ending}") or ending.endswith(f".{name}")]
        if len(found) == 1:
            return Place(found[0].removesuffix(f".{part}"), place.half)
    return None


def _called(module: str) -> Iterator[Place]:
    """What the module may be called, its own name first."""
    yield Place(module)
    found = BLOCK.match(module)
    if not found:
        return
    parts = [found["part"], *_other_names(found["part"], hf.WITHIN.values())]
    for block in BLOCKS:
        path = f"{found['prefix']}{block}.{found['number']}."
        yield from (Place(path + part) for part in parts)
        if found["part"] in PACKED:
            yield Place(path + hf.PACKED_GATES, PACKED[found["part"]])


def _other_names(part: str, choices: Iterable[Iterable[str]]) -> Iterator[str]:
    for names in choices:
        if part in names:
            yield from (name for name in names if name != part)
