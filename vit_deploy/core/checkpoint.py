"""A model from any source: a config, canonical weights, and how to feed it."""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from vit_deploy.core.config import ViTConfig
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.provenance import Step
from vit_deploy.core.quantities import NOT_FINITE, not_finite
from vit_deploy.core.weights import Float32, draw_weights, weight_specs
from vit_deploy.errors import CheckpointError

Ranges = Mapping[str, tuple[float, float]]
"""Least and largest value of tensors, by name: of a layer's input and output, `block_0.ffn.up.input` to (low, high),
and of what operators between layers give, by their module, kind and number there: `block_0.norm1.mean.0`."""

LISTED = 20  # problems shown in full before the rest is counted


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A ViT as a value: the narrow waist between every source and every format.

    Args:
        config: the function it computes.
        weights: canonical name to float32 array; see `vit_deploy.core.weights`. Held in canonical order.
        preprocess: the preprocessing from image to input.
        labels: name of each class, or empty.
        provenance: what was done to it, oldest first.
        ranges: the ranges of activations, where training learned them; low is at most zero and high at least.

    Raises:
        CheckpointError: weights that are missing, unexpected, mis-shaped or not finite, all in one message,
            or labels and channels that do not fit the config.
    """

    config: ViTConfig
    weights: Mapping[str, Float32]
    preprocess: Preprocess
    labels: tuple[str, ...] = ()
    provenance: tuple[Step, ...] = ()
    ranges: Ranges = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check(self.weights)

    def _check(self, unchecked: Collection[str]) -> None:
        problems = weight_problems(self.config, self.weights, unchecked)
        classes = self.config.num_classes
        if self.labels and self.config.include_top and len(self.labels) != classes:
            problems.append(f"{len(self.labels)} labels for {classes} classes")
        if self.preprocess.channels != self.config.channels:
            problems.append(f"preprocessing of {self.preprocess.channels} channels for {self.config.channels}")
        whole = self.preprocess.input_size
        if whole and any(pixels < read for pixels, read in zip(whole, self.config.image_size, strict=True)):
            problems.append(f"preprocessing to {whole} pixels for images of {self.config.image_size}")
        problems += range_problems(self.config, self.ranges)
        if problems:
            raise misfit(problems)
        ordered = {name: self.weights[name] for name in weight_specs(self.config)}
        object.__setattr__(self, "weights", MappingProxyType(ordered))
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "provenance", tuple(self.provenance))
        ranges = {name: (float(low), float(high)) for name, (low, high) in sorted(self.ranges.items())}
        object.__setattr__(self, "ranges", MappingProxyType(ranges))

    @classmethod
    def random(cls, config: ViTConfig, seed: int, *, preprocess: Preprocess | None = None) -> Checkpoint:
        """A model with seeded random weights; the same arrays on every machine and backend."""
        return cls(
            config=config,
            weights=dict(draw_weights(config, seed)),
            preprocess=preprocess or Preprocess.for_channels(config.channels),
            provenance=(Step("random", {"seed": seed}),),
        )

    def with_step(self, action: str, **facts: Any) -> Checkpoint:
        """A copy whose provenance has one more step."""
        return dataclasses.replace(self, provenance=(*self.provenance, Step(action, facts)))

    def with_weights(
        self, changed: Mapping[str, Float32], *, config: ViTConfig, preprocess: Preprocess, step: Step
    ) -> Checkpoint:
        """A copy with some other weights and one more step; the numbers of those that it shares are not read again.

        Args:
            changed: canonical name to array.
            config: that the weights then fit.
            preprocess: the preprocessing in place of its own.
            step: that made it.

        Raises:
            CheckpointError: as on construction.
        """
        made = copy.copy(self)
        vars(made).pop("_digest", None)
        fields = {
            "config": config,
            "weights": {**self.weights, **changed},
            "preprocess": preprocess,
            "provenance": (*self.provenance, step),
        }
        for name, value in fields.items():
            object.__setattr__(made, name, value)
        made._check(changed)
        return made

    @property
    def num_parameters(self) -> int:
        """Numbers in all weights together."""
        return sum(weight.size for weight in self.weights.values())

    @property
    def num_bytes(self) -> int:
        """Bytes of all weights together, as float32."""
        return sum(weight.nbytes for weight in self.weights.values())

    def digest(self) -> str:
        """SHA-256 over sorted name, dtype, shape and little-endian bytes of every weight."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        return weights_digest(self.weights)


def weights_digest(weights: Mapping[str, Float32]) -> str:
    """SHA-256 over sorted name, dtype, shape and little-endian bytes of every weight."""
    return weights_digests(weights, weights)[0]


def weights_digests(before: Mapping[str, Float32], after: Mapping[str, Float32]) -> tuple[str, str]:
    """`weights_digest` of the same model before and after a change; what both begin with is read once."""
    shared = hashlib.sha256()
    names, later = sorted(before), sorted(after)
    start = 0
    while start < min(len(names), len(later)) and names[start] == later[start]:
        if before[names[start]] is not after[names[start]]:
            break
        _digest_into(shared, names[start], before[names[start]])
        start += 1
    old, new = shared.copy(), shared.copy()
    for sha, rest, weights in ((old, names[start:], before), (new, later[start:], after)):
        for name in rest:
            _digest_into(sha, name, weights[name])
    return old.hexdigest(), new.hexdigest()


def _digest_into(sha: hashlib._Hash, name: str, weight: Float32) -> None:
    sha.update(f"{name}\0float32\0{','.join(map(str, weight.shape))}\0".encode())
    sha.update(np.ascontiguousarray(weight, dtype="<f4").reshape(-1).view(np.uint8).data)


def misfit(problems: Sequence[str]) -> CheckpointError:
    """The error of weights that are not those of the config, with all that is wrong."""
    counted = f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}"
    if all(problem.endswith(NOT_FINITE) for problem in problems):
        return CheckpointError(
            f"the weights hold NaN or infinity, {counted}:\n{_bulleted(problems)}",
            fix="the training diverged or the file is damaged: take an earlier checkpoint, or get the file again",
        )
    fix = "give the config (scale, patch size, classes, variant) that the weights were saved with"
    if all(problem.startswith("missing head.") for problem in problems):
        fix = "get the file again: its head is missing"
    elif any(problem.startswith("unexpected ") for problem in problems):
        fix += "; where no output depends on what is unexpected, leave it out: --ignore PATTERN"
    return CheckpointError(f"the weights do not fit the config, {counted}:\n{_bulleted(problems)}", fix=fix)


def weight_problems(
    config: ViTConfig, weights: Mapping[str, Float32], unchecked: Collection[str] | None = None
) -> list[str]:
    """Every weight that is missing, unexpected, mis-shaped, of another type or not finite, in words.

    Args:
        config: whose weights they should be.
        weights: the weights by canonical name.
        unchecked: names of weights of which it is not known yet whether their numbers are finite; None means of any.
    """
    specs = weight_specs(config)
    problems = [f"missing {name} {spec.shape}" for name, spec in specs.items() if name not in weights]
    problems += [f"unexpected {name} {weights[name].shape}" for name in weights if name not in specs]
    for name, spec in specs.items():
        weight = weights.get(name)
        if weight is None:
            continue
        if weight.shape != spec.shape:
            problems.append(f"{name} has shape {weight.shape}, expected {spec.shape}")
        elif weight.dtype != np.float32:
            problems.append(f"{name} is {weight.dtype}, expected float32")
        elif (unchecked is None or name in unchecked) and not np.isfinite(weight).all():
            problems.append(f"{name} has {not_finite(int((~np.isfinite(weight)).sum()))}")
    return problems


def range_problems(config: ViTConfig, ranges: Ranges) -> list[str]:
    """Every range that is of no tensor, or that no activation can have, in words."""
    layers = {name.removesuffix(".kernel") for name in weight_specs(config) if name.endswith(".kernel")}
    modules = module_names(config)
    problems = []
    for name, values in ranges.items():
        layer, _, side = name.rpartition(".")
        module, _, operator = layer.rpartition(".")
        between = module in modules and operator.isidentifier() and side.isdecimal()
        if not between and (layer not in layers or side not in ("input", "output")):
            problems.append(f"a range of {name}, which is no layer's input or output and no module's operator")
        elif len(values) != 2 or not np.isfinite(values).all() or not values[0] <= 0 <= values[1]:
            problems.append(f"the range of {name} is {values}, expected finite numbers on either side of zero")
    return problems


def module_names(config: ViTConfig) -> frozenset[str]:
    """Everything that has weights, and all that these are part of: `block_0`, `block_0.norm1`; the whole is `model`."""
    parts = [name.split(".") for name in weight_specs(config)]
    return frozenset({"model"} | {".".join(part[:end]) for part in parts for end in range(1, len(part))})


def _bulleted(problems: Sequence[str]) -> str:
    shown = [f"  - {problem}" for problem in problems[:LISTED]]
    if len(problems) > LISTED:
        shown.append(f"  - and {len(problems) - LISTED} more")
    return "\n".join(shown)
