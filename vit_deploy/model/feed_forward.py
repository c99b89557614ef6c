"""The feed-forward of a block, with its activations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from vit_deploy.core.activation_functions import GATES, GELU_LIMIT
from vit_deploy.core.choices import Activation, FFNType
from vit_deploy.model.layers import NamedVariables, Projection
from vit_deploy.model.norms import Norm
from vit_deploy.model.options import WeightOptions


def _mish_gate(share: Any) -> Any:
    # tanh(softplus(x)) of sigmoid(x), which no power overflows: TFLite has no softplus.
    odds = share * (2 - share)
    return odds / (2 - odds)


ACTIVATIONS: Mapping[Activation, Any] = {
    Activation.GELU: lambda x: ops.gelu(x, approximate=False),
    Activation.GELU_TANH: lambda x: ops.gelu(x, approximate=True),
    Activation.QUICK_GELU: lambda x: x * ops.sigmoid(1.702 * x),
    Activation.RELU: ops.relu,
    Activation.RELU6: ops.relu6,
    Activation.LEAKY_RELU: ops.leaky_relu,
    Activation.LEAKY_RELU_TORCH: lambda x: ops.leaky_relu(x, negative_slope=0.01),
    Activation.SQUARED_RELU: lambda x: ops.square(ops.relu(x)),
    Activation.GELU_CLIPPED: lambda x: ops.clip(ops.gelu(x, approximate=False), -GELU_LIMIT, GELU_LIMIT),
    Activation.MISH: lambda x: x * _mish_gate(ops.sigmoid(x)),
    Activation.ELU: ops.elu,
    Activation.SILU: lambda x: x * ops.sigmoid(x),
    Activation.HARD_SILU: ops.hard_silu,
    Activation.SIGMOID: ops.sigmoid,
    Activation.TANH: ops.tanh,
}


def _gelu_by_erf(x: Any) -> Any:
    return 0.5 * x * (1 + ops.erf(x / math.sqrt(2)))


BY_ERF: Mapping[Activation, Any] = {
    **ACTIVATIONS,
    Activation.GELU: _gelu_by_erf,
    Activation.GELU_CLIPPED: lambda x: ops.clip(_gelu_by_erf(x), -GELU_LIMIT, GELU_LIMIT),
}
"""The same functions without the complement of erf, which is more exact where GELU is next to nothing."""


@keras.saving.register_keras_serializable("vit_deploy")
class FeedForward(NamedVariables):
    """The feed-forward half: up, activation, down; gated kinds multiply by an activated second projection.

    With `by_erf`, GELU is spelled for readers that do not know the complement of erf.
    """

    by_erf = False

    def __init__(
        self,
        embed_dim: int,
        mlp_dim: int,
        ffn_type: str = FFNType.MLP,
        activation: str = Activation.GELU,
        dropout_rate: float = 0.0,
        weights: WeightOptions | Mapping[str, Any] | None = None,
        prefix: str = "ffn",
        norm: str = "",
        epsilon: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.embed_dim = embed_dim
        self.mlp_dim = mlp_dim
        self.ffn_type = FFNType(ffn_type)
        self.activation = Activation(activation)
        self.dropout_rate = dropout_rate
        self.weight_options = WeightOptions.of(weights)
        self.prefix = prefix
        gated = self.ffn_type is not FFNType.MLP
        self.gate = self._projection("gate", mlp_dim) if gated else None
        self.up = self._projection("up", mlp_dim)
        self.norm = Norm(norm, epsilon, name="norm", dtype=self.dtype_policy) if norm else None
        self.epsilon = epsilon
        self.down = self._projection("down", embed_dim)
        self.dropout = keras.layers.Dropout(dropout_rate, name="dropout", dtype=self.dtype_policy)

    def _projection(self, role: str, units: int) -> Projection:
        options = self.weight_options.projection(f"{self.prefix}.{role}")
        return Projection(units, name=role, dtype=self.dtype_policy, **options)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Build the two or three projections."""
        if self.gate is not None:
            self.gate.build(input_shape)
        self.up.build(input_shape)
        if self.norm is not None:
            self.norm.build((*input_shape[:-1], self.mlp_dim))
        self.down.build((*input_shape[:-1], self.mlp_dim))

    def call(self, x: Any, training: bool | None = None) -> Any:
        """`(batch, tokens, dim)` to the same."""
        activations = BY_ERF if self.by_erf else ACTIVATIONS
        if self.gate is None:
            hidden = activations[self.activation](self.up(x))
        else:
            hidden = activations[GATES[self.ffn_type]](self.gate(x)) * self.up(x)
        hidden = hidden if self.norm is None else self.norm(hidden)
        return self.down(self.dropout(hidden, training=training))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        config: dict[str, Any] = super().get_config()
        return config | {
            "embed_dim": self.embed_dim,
            "mlp_dim": self.mlp_dim,
            "ffn_type": str(self.ffn_type),
            "activation": str(self.activation),
            "dropout_rate": self.dropout_rate,
            "weights": self.weight_options.to_config(),
            "prefix": self.prefix,
            "norm": "" if self.norm is None else str(self.norm.kind),
            "epsilon": self.epsilon,
        }
