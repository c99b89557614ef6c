"""Qualcomm's chips with a Hexagon tensor processor (HTP), and the numbers by which its compiler knows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PROVIDER = "htp"
EMULATED = "htp-emulated"  # what executes where there is no such processor


@dataclass(frozen=True)
class Chip:
    """A chip.

    Args:
        name: Qualcomm's part number.
        title: the name that it is sold under.
        number: the number that the compiler takes, `soc_model`.
        hexagon: the version of its tensor processor's instructions.
        has_floats: whether that processor computes in 16-bit floats.
    """

    name: str
    title: str
    number: int
    hexagon: int
    has_floats: bool = True

    @property
    def in_words(self) -> str:
        """Its names."""
        return f"{self.name.upper()} ({self.title}, Hexagon v{self.hexagon})"


CHIPS: Mapping[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip("sm8350", "Snapdragon 888", 30, 68, has_floats=False),
        Chip("sm8450", "Snapdragon 8 Gen 1", 36, 69),
        Chip("sm8550", "Snapdragon 8 Gen 2", 43, 73),
        Chip("sm8650", "Snapdragon 8 Gen 3", 57, 75),
        Chip("sm8750", "Snapdragon 8 Elite", 69, 79),
        Chip("sm8850", "Snapdragon 8 Elite Gen 5", 87, 81),
        Chip("sc8380xp", "Snapdragon X Elite", 60, 73),
    )
}
USUAL = CHIPS["sm8650"]
"""The chip that is emulated where none is named."""


def providers() -> tuple[str, ...]:
    """What the runtime can be asked for: the processor, or one of a chip by name, as `htp-sm8550`, to emulate."""
    return (PROVIDER, *(f"{PROVIDER}-{name}" for name in CHIPS))


def chip_of(provider: str) -> Chip:
    """The chip that a provider names; the usual one where it names none."""
    return CHIPS.get(provider.removeprefix(f"{PROVIDER}-"), USUAL)
