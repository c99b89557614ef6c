"""Rotary positions: queries and keys turned by angles that follow from where a patch is (Su et al. 2021).

A head's features are pairs, of which one stands in the first half and its partner in the second. Each pair is turned by
an angle of its own: for every patch `head_dim / 2` of them, the first half of which usually comes from one axis of the
grid and the second from the other. Programs differ in the coordinates, in the frequencies and in the axes' order, which
is what a convention names. Those that store pairs side by side have their queries' and keys' weights put into this
order when they are read, which changes no score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from vit_deploy.core.older_python import StrEnum
from vit_deploy.errors import ConfigError

Grid = tuple[int, int]


class RotaryConvention(StrEnum):
    """Whose rotary positions.

    `dinov3` is Siméoni et al. 2025: coordinates from -1 to 1, a period for each pair, rounded to bfloat16 as Meta's
    files hold them; `dinov3_float32` has them unrounded, as timm and transformers compute them. `eva` is EVA-02 (Fang
    et al. 2023), rows first. `pe` is Perception Encoder (Bolya et al. 2025), columns first and counted from one where
    there is a class token. `rope_vit` and `rope_vit_mixed` are Heo et al. 2024; the latter learns the frequencies of
    each head and layer along both axes. `pixtral` gives rows the even and columns the odd frequencies of one series.
    `mlcd` is `eva` with a learned angle of the class token.
    """

    DINOV3 = "dinov3"
    DINOV3_FLOAT32 = "dinov3_float32"
    EVA = "eva"
    PE = "pe"
    ROPE_VIT = "rope_vit"
    ROPE_VIT_MIXED = "rope_vit_mixed"
    PIXTRAL = "pixtral"
    MLCD = "mlcd"


class Traits(NamedTuple):
    """What a convention is made of.

    Args:
        base: the base of its frequencies unless a config says another.
        centred: whether coordinates go from -1 to 1, each patch at its centre, and frequencies are whole turns.
        columns_first: whether the first half of the angles comes from the column instead of the row.
        rounded: whether periods are rounded to bfloat16.
        alternating: whether both axes share one series of frequencies in turn.
        weight: the name of what a block learns for it, beside its queries; empty for none.
    """

    base: float
    centred: bool = False
    columns_first: bool = False
    rounded: bool = False
    alternating: bool = False
    weight: str = ""


FREQUENCIES, CLASS_ANGLES = "frequencies", "class_angles"
CONVENTIONS: Mapping[RotaryConvention, Traits] = MappingProxyType(
    {
        RotaryConvention.DINOV3: Traits(100.0, centred=True, rounded=True),
        RotaryConvention.DINOV3_FLOAT32: Traits(100.0, centred=True),
        RotaryConvention.EVA: Traits(10000.0),
        RotaryConvention.PE: Traits(10000.0, columns_first=True),
        RotaryConvention.ROPE_VIT: Traits(100.0, columns_first=True),
        RotaryConvention.ROPE_VIT_MIXED: Traits(10.0, columns_first=True, weight=FREQUENCIES),
        RotaryConvention.PIXTRAL: Traits(10000.0, alternating=True),
        RotaryConvention.MLCD: Traits(10000.0, weight=CLASS_ANGLES),
    }
)


@dataclass(frozen=True)
class Rotary:
    """The rotary positions of a ViT.

    Args:
        convention: whose.
        base: the base of the frequencies; None for the convention's own.
        reference_grid: patches along (height, width) of the images it was trained on, where coordinates are those of
            that grid whatever the size of an image; None where they count patches.

    Raises:
        ConfigError: values that no rotary positions have; the message lists all that is wrong.
    """

    convention: RotaryConvention
    base: float | None = None
    reference_grid: Grid | None = None

    def __post_init__(self) -> None:
        if problems := [*self._settle()]:
            raise ConfigError("; ".join(problems), fix="correct the options named above")

    def _settle(self) -> list[str]:
        problems = []
        if self.convention in list(RotaryConvention):
            object.__setattr__(self, "convention", RotaryConvention(self.convention))
            if self.base is None:
                object.__setattr__(self, "base", self.traits.base)
            if self.reference_grid is not None and not self._counts_patches:
                problems.append(f"rotary.reference_grid is given, and {self.convention} has coordinates of its own")
        else:
            problems.append(f"rotary.convention is {self.convention!r}; expected one of {', '.join(RotaryConvention)}")
        base: object = self.base
        if isinstance(base, int | float) and not isinstance(base, bool) and 1 < base < math.inf:
            object.__setattr__(self, "base", float(base))
        elif base is not None:
            problems.append(f"rotary.base is {base!r}; expected a number above 1")
        grid: object = self.reference_grid
        if isinstance(grid, Sequence) and len(grid) == 2 and all(type(side) is int and side > 0 for side in grid):
            object.__setattr__(self, "reference_grid", (grid[0], grid[1]))
        elif grid is not None:
            problems.append(f"rotary.reference_grid is {grid!r}; expected patches along (height, width)")
        return problems

    @property
    def traits(self) -> Traits:
        """What its convention is made of."""
        return CONVENTIONS[self.convention]

    @property
    def _counts_patches(self) -> bool:
        return not (self.traits.centred or self.learns_frequencies)

    @property
    def learns_frequencies(self) -> bool:
        """Whether each head and layer has frequencies of its own along both axes."""
        return self.traits.weight == FREQUENCIES

    @property
    def turns_class_token(self) -> bool:
        """Whether a token that is no patch is turned as well."""
        return self.traits.weight == CLASS_ANGLES

    def weight_shapes(self, num_heads: int, head_dim: int) -> dict[str, tuple[int, ...]]:
        """The shapes of what each block learns for it, by name within its attention."""
        match self.traits.weight:
            case "":
                return {}
            case name if name == FREQUENCIES:
                return {name: (2, num_heads, head_dim // 2)}
            case name:
                return {name: (1, head_dim // 2)}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one a field."""
        grid = None if self.reference_grid is None else list(self.reference_grid)
        return {"convention": str(self.convention), "base": self.base, "reference_grid": grid}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Rotary:
        """The inverse of `to_dict`.

        Raises:
            ConfigError: unknown fields, or values that no rotary positions have.
        """
        known = ("convention", "base", "reference_grid")
        if unknown := sorted(set(values) - set(known)):
            raise ConfigError(
                f"unknown fields of rotary: {', '.join(unknown)}; known are {', '.join(known)}",
                fix="remove them, or update vit-deploy if the file is newer than this version",
            )
        if "convention" not in values:
            raise ConfigError("rotary has no convention", fix=f"say one of {', '.join(RotaryConvention)}")
        return cls(**values)


def as_rotary(value: object) -> Rotary | None:
    """Rotary positions as they are, as `to_dict` wrote them, or by their convention's name.

    Raises:
        ConfigError: none of these.
    """
    if value is None or isinstance(value, Rotary):
        return value
    if isinstance(value, str):
        return Rotary(convention=value)  # type: ignore[arg-type]
    if isinstance(value, Mapping):
        return Rotary.from_dict(value)
    raise ConfigError(
        f"rotary is {value!r}; expected the name of a convention, or an object with it",
        fix=f"give one of {', '.join(RotaryConvention)}",
    )
