"""A ViT traced by TensorFlow: its structure, with the weights as inputs."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.open_positions import position_table, rotary_tables
from vit_deploy.core.outputs import Output, tokens_read
from vit_deploy.core.reference import weights_of
from vit_deploy.core.resampling import Filter
from vit_deploy.core.weights import learned_positions
from vit_deploy.errors import EngineError
from vit_deploy.exporters.folding import Affine
from vit_deploy.exporters.open_tracing import TensorFlowArithmetic, grid_of
from vit_deploy.model.attention import Attention
from vit_deploy.model.feed_forward import FeedForward
from vit_deploy.model.layers import Projection
from vit_deploy.model.rotary import Tables, fixed_tables
from vit_deploy.model.vit import ViT


class TracedViT:
    """The structure of a checkpoint's ViT, callable with the weights given from outside.

    Args:
        checkpoint: whose config and preprocessing are traced; its weights are not touched.
        spec: the input that the exported file will have.
        by_rows: spell projections as products of plain matrices, see `Projection.by_rows`, norms of heads by rows, the
            largest of all tokens as that of a window, and products of attention as
            products with a matrix that is given by its rows, which LiteRT's integer kernels take as they are.
        read_alone: compute in the last block no more than the tokens that are read, such as the class token.
        outputs: what a call gives; none for the one that the config says.
        moved: what norms lack whose results are outputs, see `folding.moved_affines`.
        turned_first: turn queries and keys before their heads are taken apart, see `Attention.turned_first`.
        by_erf: spell GELU with erf in place of its complement, see `FeedForward.by_erf`.
        open_positions: resample positions for the size of the images that are given, by this filter; None where they
            are of the config's size.

    Rotary positions are constants, whatever the checkpoint learned for them; those of the last block's queries are left
    out where no query that is read is turned.

    Raises:
        EngineError: Keras runs on another backend in this process.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        spec: InputSpec,
        *,
        outputs: Sequence[Output] = (),
        moved: Mapping[str, Affine] = MappingProxyType({}),
        by_rows: bool = False,
        read_alone: bool = False,
        turned_first: bool = False,
        by_erf: bool = False,
        open_positions: Filter | None = None,
    ) -> None:
        if keras.backend.backend() != "tensorflow":
            raise EngineError(
                f"exporting traces with TensorFlow, and Keras runs on {keras.backend.backend()} in this process",
                fix="set KERAS_BACKEND=tensorflow, or export from the command line",
            )
        keras.config.disable_flash_attention()
        with keras.name_scope(""):
            self._model = ViT.from_structure(checkpoint.config, dtype="float32")
        for layer in self._model._flatten_layers():
            if isinstance(layer, Projection):
                layer.by_rows = by_rows
            elif isinstance(layer, FeedForward):
                layer.by_erf = by_erf
            elif isinstance(layer, Attention):
                layer.transposed_product = functools.partial(tf.matmul, transpose_b=True) if by_rows else None
                layer.norms_by_rows = by_rows
                if checkpoint.config.rotary is not None:
                    layer.turned_first = turned_first
                    layer.tables = _rotary_tables(checkpoint, layer)
        self._model.largest_in = functools.partial(_largest_in, checkpoint.config.grid) if by_rows else None
        self._model.read_outputs = tuple(outputs)
        self._model.restored = functools.partial(_restored, moved) if moved else None
        count = tokens_read(checkpoint.config, outputs)
        if read_alone and count < checkpoint.config.sequence_length:
            self._model.transformer_layers[-1].attention.num_queries = count
        if checkpoint.config.rotary is not None and count <= checkpoint.config.num_prefix_tokens:
            self._model.transformer_layers[-1].attention.queries_read = count
        self._preprocess = checkpoint.preprocess
        self._open_positions = open_positions
        self._learned = {
            index: weights_of(f"block_{index}.attention", checkpoint.weights)
            for index in range(checkpoint.config.num_layers if checkpoint.config.rotary is not None else 0)
        }
        self.config = checkpoint.config
        self.spec = spec
        learned = learned_positions(checkpoint.config)
        self.names: tuple[str, ...] = tuple(name for name in self._model.canonical_variables() if name not in learned)
        """Canonical names of the weights, in the order in which `call` takes them."""

    def images_spec(self) -> tf.TensorSpec:
        """Signature of the images."""
        return tf.TensorSpec(self.spec.shape, tf.as_dtype(self.spec.dtype), name=self.spec.name)

    def weight_specs(self) -> list[tf.TensorSpec]:
        """Signatures of the weights, in the order of `names`."""
        variables = self._model.canonical_variables()
        return [tf.TensorSpec(tuple(variables[name].shape), tf.float32, name=name) for name in self.names]

    def call(self, images: Any, weights: Sequence[Any]) -> Any:
        """The model's output for images as the file takes them, computed with `weights` in the order of `names`.

        Where it was made for outputs by name, a list of them in their order.
        """
        if self.spec.preprocessing_inside:
            scale, offset = self._preprocess.scale_and_offset()
            channels = (-1, 1, 1) if self.spec.layout == "nchw" else (-1,)
            images = tf.cast(images, tf.float32) * scale.reshape(channels) + offset.reshape(channels)
        if self.spec.layout == "nchw":
            images = tf.transpose(images, (0, 2, 3, 1))
        variables = self._model.canonical_variables()
        given = dict(zip(self.names, weights, strict=True))
        # What the tables stand for is read by nothing.
        given = {name: tf.zeros(variables[name].shape) for name in learned_positions(self.config)} | given
        if self._open_positions is not None:
            self._resample(images, given["pos_embed.table"])
        given_back, _ = self._model.stateless_call(
            [given[_canonical(variables, variable)] for variable in self._model.trainable_variables],
            [variable.value for variable in self._model.non_trainable_variables],
            images,
            training=False,
        )
        return given_back

    def _resample(self, images: Any, table: Any) -> None:
        """Let the model add the positions, and turn by the angles, of images `(batch, height, width, channels)`."""
        assert self._open_positions is not None  # whoever calls has looked
        xp, grid = TensorFlowArithmetic(), grid_of(images, self.config)
        rows, columns = (tf.cast(tf.reshape(count, ()), tf.int32) for count in grid)
        self._model.open_grid = rows, columns
        self._model.pos_embed.resampled = position_table(xp, self._open_positions, table, self.config, grid)
        for index, learned in self._learned.items():
            attention = self._model.transformer_layers[index].attention
            attention.tables = rotary_tables(xp, self.config, grid, learned)


def outputs_by_name(traced: Any, outputs: Sequence[Output], config: ViTConfig) -> dict[str, Any]:
    """What `TracedViT.call` gives, by the names of the file's outputs."""
    if not outputs:
        return {config.output_name: traced}
    return {output.name: value for output, value in zip(outputs, traced, strict=True)}


def _largest_in(window: tuple[int, int], grid: Any) -> Any:
    return tf.nn.max_pool2d(grid, window, strides=1, padding="VALID")


def _restored(moved: Mapping[str, Affine], name: str, values: Any) -> Any:
    """For tokens, or for several of them side by side."""
    if name not in moved:
        return values
    affine = moved[name]
    scale, bias = (
        None if part is None else np.tile(part, values.shape[-1] // len(part)) for part in (affine.scale, affine.bias)
    )
    values = values if scale is None else values * scale
    return values if bias is None else values + bias


def _rotary_tables(checkpoint: Checkpoint, attention: Attention) -> Tables:
    return fixed_tables(checkpoint.config, weights_of(attention.prefix, checkpoint.weights))


def _canonical(variables: Mapping[str, Any], wanted: Any) -> str:
    return next(name for name, variable in variables.items() if variable is wanted)
