"""The layers around the blocks: projection, patch embedding, prefix tokens, positions.

Every variable's path is its canonical name (see `vit_deploy.core.weights`). The layers compute no dynamic
shape but the batch of the class token, so that converters get a static graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from vit_deploy.core.config import ViTConfig
from vit_deploy.core.outputs import Kind, Output
from vit_deploy.core.weights import LAYER_SCALE
from vit_deploy.model.options import WeightOptions

HALF_TYPES = ("float16", "bfloat16")


class NamedVariables(keras.layers.Layer):  # type: ignore[misc]
    """A layer that stores its variables under their names instead of numbers."""

    def save_own_variables(self, store: Any) -> None:
        """Write each variable under its own name."""
        for variable in self._own_variables():
            store[variable.name] = variable

    def load_own_variables(self, store: Any) -> None:
        """Read each variable by its own name.

        Raises:
            ValueError: the stored names are not those of this layer (Keras reports it with the layer's path).
        """
        own = {variable.name: variable for variable in self._own_variables()}
        if set(own) != set(store.keys()):
            raise ValueError(f"layer {self.path!r} holds {sorted(own)}, the file holds {sorted(store.keys())}")
        for name, variable in own.items():
            variable.assign(store[name])

    def _own_variables(self) -> list[Any]:
        return [*self._trainable_variables, *self._non_trainable_variables]


@keras.saving.register_keras_serializable("vit_deploy")
class Projection(NamedVariables):
    """x @ kernel + bias over the last axis.

    Unlike `keras.layers.Dense` it multiplies a sequence by a kernel with a leading axis of one, which
    TensorFlow traces to a single batched product instead of a chain of reshapes.
    """

    by_rows = False
    """Whether a sequence is multiplied as one matrix of rows, which TFLite's converter makes FULLY_CONNECTED."""

    def __init__(
        self,
        units: int,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make kernel (inputs, units) and bias (units)."""
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
            )

    def call(self, inputs: Any) -> Any:
        """`(batch, inputs)` or `(batch, tokens, inputs)` to the same with `units` last."""
        if self.by_rows and len(inputs.shape) == 3:
            rows = self._product(ops.reshape(inputs, (-1, inputs.shape[-1])), self.kernel)
            return ops.reshape(rows, (-1, inputs.shape[1], self.units))
        return self._product(inputs, self.kernel if len(inputs.shape) == 2 else ops.expand_dims(self.kernel, 0))

    def _product(self, inputs: Any, kernel: Any) -> Any:
        outputs = ops.matmul(inputs, kernel)
        return outputs + self.bias if self.use_bias else outputs

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape with `units` last."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        config: dict[str, Any] = super().get_config()
        return config | {
            "units": self.units,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
        }


@keras.saving.register_keras_serializable("vit_deploy")
class LinearPreLogits(Projection):
    """A projection between pooling and head; by its class Keras tells it from the head in a file."""


@keras.saving.register_keras_serializable("vit_deploy")
class PreLogits(Projection):
    """A projection and a tanh, between pooling and head."""

    def call(self, inputs: Any) -> Any:
        """`(batch, inputs)` to `(batch, units)`."""
        return ops.tanh(super().call(inputs))


@keras.saving.register_keras_serializable("vit_deploy")
class PatchEmbedding(NamedVariables):
    """A convolution whose stride is its kernel: images `(batch, h, w, c)` to `(batch, patches, embed_dim)`."""

    def __init__(
        self,
        embed_dim: int,
        patch_size: tuple[int, int],
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        padding: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.embed_dim = embed_dim
        self.patch_size = tuple(patch_size)
        self.padding = padding
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make kernel (height, width, channels, embed_dim) and bias."""
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.patch_size, input_shape[-1], self.embed_dim),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        self.bias = self.add_weight(
            name="bias",
            shape=(self.embed_dim,),
            initializer=self.bias_initializer,
            regularizer=self.bias_regularizer,
        )

    def call(self, images: Any) -> Any:
        """Patches in row-major order."""
        if self.padding:
            images = self._moved(images)
        # NHWC is said outright: Keras reads its default from a user-wide file.
        maps = ops.conv(images, self.kernel, strides=self.patch_size, padding="valid", data_format="channels_last")
        rows, columns = side_of(maps, 1), side_of(maps, 2)
        return ops.reshape(maps + self.bias, (-1, rows * columns, self.embed_dim))

    def _moved(self, images: Any) -> Any:
        """Images with zeros above and left of them, and as much less at the other end: patches then divide them."""
        edge = self.padding
        padded = ops.pad(images, ((0, 0), (edge, 0), (edge, 0), (0, 0)))
        return padded[:, :-edge, :-edge]  # last, for a padding right in front of a convolution becomes a part of it

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """`(batch, patches, embed_dim)`."""
        rows, columns = (input_shape[axis + 1] // self.patch_size[axis] for axis in (0, 1))  # type: ignore[operator]
        return (input_shape[0], rows * columns, self.embed_dim)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        config: dict[str, Any] = super().get_config()
        return config | {
            "embed_dim": self.embed_dim,
            "patch_size": list(self.patch_size),
            "padding": self.padding,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
        }


@keras.saving.register_keras_serializable("vit_deploy")
class PrefixTokens(NamedVariables):
    """Prepends the learned tokens: `(batch, patches, dim)` to `(batch, prefix + patches, dim)`.

    Args:
        config: the config of the whole ViT, which says which tokens there are.
        weights: initializers of the layer's weights.
    """

    def __init__(
        self,
        config: ViTConfig | Mapping[str, Any],
        weights: WeightOptions | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = config if isinstance(config, ViTConfig) else ViTConfig.from_dict(config)
        self.weight_options = WeightOptions.of(weights)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the tokens, each kind (count, dim)."""
        config = self.config
        counts = {
            "class": int(config.class_token),
            "distillation": int(config.distillation_token),
            "registers": config.register_tokens,
        }
        self.tokens = [
            self.add_weight(
                name=name, shape=(count, input_shape[-1]), initializer=self.weight_options.drawn(f"class_token.{name}")
            )
            for name, count in counts.items()
            if count
        ]

    def call(self, patches: Any) -> Any:
        """The tokens in front of every image's patches."""
        if not self.tokens:
            return patches
        kinds = [ops.cast(ops.convert_to_tensor(token), patches.dtype) for token in self.tokens]
        tokens = kinds[0] if len(kinds) == 1 else ops.concatenate(kinds, axis=0)
        prefix = ops.broadcast_to(ops.expand_dims(tokens, 0), (ops.shape(patches)[0], *tokens.shape))
        return ops.concatenate([prefix, patches], axis=1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The prefix more."""
        batch, tokens, dim = input_shape
        return (batch, None if tokens is None else tokens + self.config.num_prefix_tokens, dim)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        config: dict[str, Any] = super().get_config()
        return config | {"config": self.config.to_dict(), "weights": self.weight_options.to_config()}


@keras.saving.register_keras_serializable("vit_deploy")
class PositionEmbedding(NamedVariables):
    """Adds the learned absolute position of each token, then drops some values out while training."""

    resampled: Any = None
    """What is added in place of the table; set where it is computed for images of another size."""

    def __init__(self, initializer: Any = "zeros", dropout_rate: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initializer = keras.initializers.get(initializer)
        self.dropout_rate = dropout_rate
        self.dropout = keras.layers.Dropout(dropout_rate, name="dropout", dtype=self.dtype_policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the table (tokens, dim)."""
        self.table = self.add_weight(name="table", shape=tuple(input_shape[1:]), initializer=self.initializer)
        self.dropout.build(input_shape)

    def call(self, tokens: Any, training: bool | None = None) -> Any:
        """`(batch, tokens, dim)` to the same."""
        return self.dropout(tokens + (self.table if self.resampled is None else self.resampled), training=training)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        config: dict[str, Any] = super().get_config()
        return config | {
            "initializer": keras.initializers.serialize(self.initializer),
            "dropout_rate": self.dropout_rate,
        }


@keras.saving.register_keras_serializable("vit_deploy")
class LayerScale(NamedVariables):
    """Scales each feature by a learned factor (Touvron et al. 2021, arXiv 2103.17239)."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make gamma (dim,)."""
        first = keras.initializers.Constant(LAYER_SCALE)
        self.gamma = self.add_weight(name="gamma", shape=(input_shape[-1],), initializer=first)

    def call(self, inputs: Any) -> Any:
        """`(batch, tokens, dim)` to the same."""
        return inputs * self.gamma

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's."""
        return input_shape


def pool(tokens: Any, config: ViTConfig) -> Any:
    """`(batch, tokens, dim)` to one vector by the config's pooling, or unchanged without one; "map" has a layer."""
    match config.effective_pooling:
        case "cls":
            return ops.squeeze(take_tokens(tokens, 0, 1), axis=1)
        case "mean":
            return ops.mean(take_patches(tokens, config), axis=1)
        case "cls_distillation":
            return ops.reshape(take_tokens(tokens, 0, 2), (-1, config.pooled_dim))
        case "cls_mean":
            token = ops.squeeze(take_tokens(tokens, 0, 1), axis=1)
            return ops.concatenate([token, ops.mean(take_patches(tokens, config), axis=1)], axis=-1)
        case "prefix_mean":
            return ops.mean(take_tokens(tokens, 0, config.num_prefix_tokens), axis=1)
        case "max":
            return ops.max(take_patches(tokens, config), axis=1)
        case _:
            return tokens


def part_of(tokens: Any, output: Output, config: ViTConfig, grid: tuple[Any, Any] | None = None) -> Any:
    """The tokens that an output holds, of all tokens `(batch, tokens, dim)`, or of the first where it holds those.

    Args:
        tokens: of whatever number where the size of the images is open.
        output: which.
        config: of the model.
        grid: the patches along (height, width) where they follow from the images; None for the config's.
    """
    start, stop = output.rows(config)
    if tokens.shape[1] is None and stop == config.sequence_length:
        taken = tokens[:, start:] if start else tokens
    else:
        taken = tokens if stop - start == tokens.shape[1] else take_tokens(tokens, start, stop - start)
    if output.kind is Kind.VECTOR:
        return ops.squeeze(taken, axis=1)
    sides = (*(grid or config.grid), config.embed_dim)
    return ops.reshape(taken, (-1, *sides)) if output.kind is Kind.MAP else taken


def side_of(tensor: Any, axis: int) -> Any:
    """The size of one axis, which is computed where it is open, and nothing where it is not."""
    known = tensor.shape[axis]
    return ops.shape(tensor)[axis] if known is None else known


def take_patches(tokens: Any, config: ViTConfig) -> Any:
    """The tokens behind the prefix, of whatever number they are."""
    if tokens.shape[1] is None:
        return tokens[:, config.num_prefix_tokens :]
    return take_tokens(tokens, config.num_prefix_tokens, config.num_patches)


def take_tokens(tokens: Any, start: int, count: int) -> Any:
    """`count` tokens from `start` on."""
    batch, known, dim = tokens.shape
    if known is None:
        return ops.reshape(tokens[:, start : start + count], (-1, count, dim))
    if batch is None:
        return tokens[:, start : start + count]
    # Traced for a fixed batch this is TFLite's SLICE, which XNNPACK takes; it leaves STRIDED_SLICE out.
    return ops.slice(tokens, (0, start, 0), (batch, count, dim))
