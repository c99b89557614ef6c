"""Relative position bias in the Keras model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from vit_deploy.core.config import ViTConfig
from vit_deploy.core.relative_positions import relative_index
from vit_deploy.core.weights import OF_BLOCKS, RELATIVE, SHARED, TABLES, relative_names, weight_specs
from vit_deploy.model.layers import NamedVariables
from vit_deploy.model.options import WeightOptions


@keras.saving.register_keras_serializable("vit_deploy")
class RelativeScores(NamedVariables):
    """What is added to the scores of all pairs of tokens; its one weight is a table of distances or the scores.

    Args:
        config: the config of the whole ViT.
        owner: canonical name of the layer that holds this one; empty for the model.
        weights: initializers of the layer's weights.
    """

    def __init__(
        self,
        config: ViTConfig | Mapping[str, Any],
        owner: str = "",
        weights: WeightOptions | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = config if isinstance(config, ViTConfig) else ViTConfig.from_dict(config)
        self.owner = owner
        self.weight_options = WeightOptions.of(weights)

    @classmethod
    def of(cls, given: RelativeScores | Mapping[str, Any] | None) -> RelativeScores | None:
        """A layer as it is, or of its config."""
        return given if given is None or isinstance(given, cls) else cls.from_config(dict(given))

    @classmethod
    def of_block(cls, config: ViTConfig, owner: str, weights: WeightOptions, dtype: Any) -> RelativeScores | None:
        """The layer of one attention; None where there is none."""
        has = config.relative_positions in OF_BLOCKS
        return cls(config, owner, weights, name=RELATIVE, dtype=dtype) if has else None

    @classmethod
    def shared(cls, config: ViTConfig, weights: WeightOptions, dtype: Any) -> RelativeScores | None:
        """The layer of the whole model; None where there is none."""
        has = config.relative_positions in SHARED
        return cls(config, "", weights, name=RELATIVE, dtype=dtype) if has else None

    def build(self, input_shape: tuple[int | None, ...] | None = None) -> None:
        """Make the table (distances, heads) or the scores (heads, tokens, tokens)."""
        name = relative_names(self.config)[0]
        kind = name.rpartition(".")[2]
        full = f"{self.owner}.{RELATIVE}.{kind}".lstrip(".")
        self.kept = self.add_weight(
            name=kind, shape=weight_specs(self.config)[name].shape, initializer=self.weight_options.drawn(full)
        )
        self.built = True

    def scores_of_pairs(self) -> Any:
        """`(heads, tokens, tokens)`."""
        if self.config.relative_positions not in TABLES:
            return ops.convert_to_tensor(self.kept)
        index = relative_index(self.config.grid, self.config.num_prefix_tokens)
        return ops.transpose(ops.take(ops.convert_to_tensor(self.kept), index, axis=0), (2, 0, 1))

    def call(self, scores: Any) -> Any:
        """Scores `(batch, heads, tokens, tokens)` with what is added."""
        return scores + self.scores_of_pairs()

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        config: dict[str, Any] = super().get_config()
        return config | {
            "config": self.config.to_dict(),
            "owner": self.owner,
            "weights": self.weight_options.to_config(),
        }
