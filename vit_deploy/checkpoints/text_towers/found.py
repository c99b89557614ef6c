"""A text tower in a file: where its weights are, and how its texts become tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vit_deploy.checkpoints.assumed import Assumed
from vit_deploy.checkpoints.gathering import Origin
from vit_deploy.checkpoints.source import TensorFile
from vit_deploy.core.weights import Float32, weight_specs
from vit_deploy.errors import CheckpointError
from vit_deploy.text.tokens import Tokenizer
from vit_deploy.text.tower import TextConfig, TextTower

LISTED = 8
GET_AGAIN = "the file is damaged or of another model: get it again"


@dataclass(frozen=True)
class Found:
    """A text tower that was found.

    Args:
        file: that holds it.
        config: its function.
        origins: where each of its weights comes from; of a projection as far as there is one.
        scale: the name of the logarithm of what cosines are multiplied by.
        bias: the name of what is added then, or "".
        tokenizer: reads the tokenizer in a folder or a file.
        assumed: what the files do not say.
    """

    file: TensorFile
    config: TextConfig
    origins: Mapping[str, Origin]
    scale: str
    bias: str
    tokenizer: Callable[[Path], Tokenizer]
    assumed: tuple[Assumed, ...] = ()

    def tower(self) -> TextTower:
        """The tower, read and checked.

        Raises:
            CheckpointError: weights that are missing, of another shape, or not finite.
        """
        stored = frozenset(self.file.names())
        missing = [name for origin in self.origins.values() for name in origin.names if name not in stored]
        missing += [] if self.scale in stored else [self.scale]
        if missing:
            listed = ", ".join(dict.fromkeys(missing[:LISTED]))
            more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
            raise CheckpointError(f"its text tower has no {listed}{more}", fix=GET_AGAIN)
        weights, problems = {}, []
        for name, origin in self.origins.items():
            try:
                weights[name] = np.asarray(origin.make(*map(self.file.read, origin.names)))
            except (ValueError, IndexError) as error:
                problems.append(f"{name} cannot be made of {', '.join(origin.names)}: {error}")
        problems += self._misfits(weights)
        if problems:
            shown = "; ".join(problems[:LISTED])
            raise CheckpointError(f"its text tower does not fit together: {shown}", fix=GET_AGAIN)
        bias = self._number(self.bias) if self.bias else 0.0
        return TextTower(self.config, weights, math.exp(self._number(self.scale)), bias, by_itself=bool(self.bias))

    def _misfits(self, weights: Mapping[str, Float32]) -> list[str]:
        config = self.config
        specs = weight_specs(config.of_blocks)
        shapes: dict[str, tuple[int | None, ...]] = {
            "tokens": (None, config.width),
            "positions": (config.context, config.width),
            "projection.kernel": (config.width, None),
        }
        shapes |= {name: specs[name].shape for name in weights if name in specs}
        shapes |= {name: (config.width,) for name in weights if name.endswith(".gamma")}
        problems = []
        for name, weight in weights.items():
            expected = shapes.get(name)
            if expected is not None and (
                len(expected) != weight.ndim
                or any(side not in (None, own) for side, own in zip(expected, weight.shape, strict=True))
            ):
                shown = ", ".join("any" if side is None else str(side) for side in expected)
                problems.append(f"{name} has shape {weight.shape}, expected ({shown})")
            elif not np.isfinite(weight).all():
                problems.append(f"{name} has values that are NaN or infinite")
        return problems

    def _number(self, name: str) -> float:
        values = self.file.read(name)
        if values.size != 1 or not np.isfinite(values).all():
            raise CheckpointError(f"{name} has the shape {values.shape}; expected one finite number", fix=GET_AGAIN)
        return float(values.reshape(-1)[0])
