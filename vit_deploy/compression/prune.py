"""Pruning: the smallest weights of each kernel become zero while the rest learns to make up for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import tensorflow_model_optimization as tfmot

from vit_deploy.compression import CompressOptions, Pattern, Schedule
from vit_deploy.compression.keras2 import Twin
from vit_deploy.compression.method import Call
from vit_deploy.core.checkpoint import Ranges
from vit_deploy.core.weights import Float32

END = 0.5  # of the training, by which the polynomial schedule has reached its sparsity
FREQUENCY = 10  # steps between two masks, at most
SETTLING = 2  # steps until the masks of a schedule are on


class Prune:
    """Magnitude pruning, by tensorflow-model-optimization; see `method.Method`."""

    def __init__(self, options: CompressOptions, layers: Collection[str], steps: int) -> None:
        self.options = options
        self.layers = frozenset(layers)
        self.wrapped: dict[str, Any] = {}
        gradual = options.schedule is Schedule.POLYNOMIAL and options.pattern is Pattern.ANY
        self.end = max(int(steps * END), 1) if gradual else 0

    def wrap(self, name: str, dense: Any) -> Call:
        """A layer that keeps a mask over the kernel."""
        if name not in self.layers:
            return dense  # type: ignore[no-any-return]
        by_pattern = {"sparsity_m_by_n": (2, 4)} if self.options.pattern is Pattern.TWO_OF_FOUR else {}
        layer = tfmot.sparsity.keras.prune_low_magnitude(dense, pruning_schedule=self._schedule(), **by_pattern)
        self.wrapped[name] = layer
        return layer  # type: ignore[no-any-return]

    def _schedule(self) -> Any:
        keras, sparsity = tfmot.sparsity.keras, self.options.sparsity
        if not self.end:
            return keras.ConstantSparsity(sparsity, begin_step=1, end_step=-1, frequency=FREQUENCY)
        # Its last mask has to have the whole sparsity, so the last step is one at which masks are made.
        frequency = min(FREQUENCY, self.end)
        end = 1 + self.end // frequency * frequency
        return keras.PolynomialDecay(0.0, sparsity, begin_step=1, end_step=end, frequency=frequency)

    def begin(self, twin: Twin, batches: Iterable[Any]) -> None:
        """Count from the first step."""
        for layer in self.wrapped.values():
            layer.pruning_step.assign(0)

    def end_epoch(self) -> None:
        """Zero what the last step moved."""
        for layer in self.wrapped.values():
            layer.pruning_obj.weight_mask_op()

    def is_settled(self, step: int) -> bool:
        """Whether the schedule has ended."""
        return step >= self.end + SETTLING

    def kernels(self) -> Mapping[str, Float32]:
        """The kernels with zeros where the masks have them."""
        found = {}
        for name, layer in self.wrapped.items():
            ((kernel, mask, _),) = layer.pruning_vars
            found[f"{name}.kernel"] = kernel.numpy() * mask.numpy()
        return found

    def ranges(self) -> Ranges:
        """None are learned."""
        return {}
