"""What was done to keep a file in 16-bit floats from overflowing, as its manifest records it and as it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.listing import listed
from vit_deploy.core.narrow_floats import PROTECTED
from vit_deploy.exporters.quantization.float16_kernels import LARGEST

ROOM = 4  # times what was measured, that images which nobody has seen may reach
LIMIT = LARGEST / ROOM
SHOWN = 6  # places that are told


@dataclass(frozen=True)
class Protection:
    """Places that 16-bit floats do not hold, and what became of them.

    Args:
        float32: layers and products that stay in float32, with the largest value measured there.
        rescaled: layers whose outputs are divided by a power of two, with the power; what reads them is multiplied.
    """

    float32: Mapping[str, float] = field(default_factory=dict)
    rescaled: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"float32": {name: float(f"{size:.4g}") for name, size in self.float32.items()}, **self._scales()}

    def _scales(self) -> dict[str, Any]:
        return {"rescaled": dict(self.rescaled)} if self.rescaled else {}


def notes_on_protection(artifact: Artifact) -> list[str]:
    """What whoever made the file should know; nothing of models that 16-bit floats hold as they are."""
    recorded = artifact.options.get("recipe", {}).get(PROTECTED, {})
    notes = []
    if kept := recorded.get("float32"):
        largest, names = max(kept.values()), listed(list(kept), SHOWN)
        notes.append(
            f"{artifact.name}: {names} compute in float32, for values there reach {largest:.3g} and 16-bit floats end "
            f"at {LARGEST:g}"
        )
    if scaled := recorded.get("rescaled"):
        places = [f"{name} by 2^-{power}" for name, power in scaled.items()]
        notes.append(
            f"{artifact.name}: outputs are scaled and scaled back where they are read: {listed(places, SHOWN)}"
        )
    return notes
