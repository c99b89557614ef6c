"""Positions in TensorFlow's operators for images whose size is known when they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from vit_deploy.core.config import ViTConfig


class TensorFlowArithmetic:
    """`core.open_positions.Arithmetic` in tensors."""

    def constant(self, values: NDArray[Any]) -> Any:
        """See `Arithmetic`."""
        return tf.constant(values, tf.float32)

    def counted(self, count: Any) -> Any:
        """See `Arithmetic`."""
        return tf.range(tf.reshape(count, ()), dtype=tf.float32)[:, None]

    def absolute(self, value: Any) -> Any:
        """See `Arithmetic`."""
        return tf.abs(value)

    def least(self, one: Any, other: Any) -> Any:
        """See `Arithmetic`."""
        return tf.minimum(one, other)

    def largest(self, one: Any, other: Any) -> Any:
        """See `Arithmetic`."""
        return tf.maximum(one, other)

    def cosine(self, value: Any) -> Any:
        """See `Arithmetic`."""
        return tf.cos(value)

    def sine(self, value: Any) -> Any:
        """See `Arithmetic`."""
        return tf.sin(value)

    def product(self, left: Any, right: Any) -> Any:
        """See `Arithmetic`."""
        return tf.matmul(left, right)

    def row_sum(self, value: Any) -> Any:
        """See `Arithmetic`."""
        return tf.reduce_sum(value, axis=-1, keepdims=True)

    def reshaped(self, value: Any, sides: Sequence[int]) -> Any:
        """See `Arithmetic`."""
        return tf.reshape(value, sides)

    def part(self, value: Any, start: int, end: int | None) -> Any:
        """See `Arithmetic`."""
        return value[start:end]

    def joined(self, values: Sequence[Any], axis: int) -> Any:
        """See `Arithmetic`."""
        return tf.concat(values, axis=axis)


def grid_of(images: Any, config: ViTConfig) -> tuple[Any, Any]:
    """The patches along (height, width) of images `(batch, height, width, channels)`, as float32.

    Images that are not cut into whole patches end in an error that says so.
    """
    counts = []
    for name, axis, patch in zip(("height", "width"), (1, 2), config.patch_size, strict=True):
        pixels = tf.shape(images)[axis]
        said = f"the {name} of images must be a multiple of {patch}"
        named = f"{name}_must_be_a_multiple_of_{patch}"
        with tf.control_dependencies([tf.debugging.assert_equal(pixels % patch, 0, message=said, name=named)]):
            counts.append(tf.cast(tf.reshape(pixels // patch, (1,)), tf.float32))
    return counts[0], counts[1]
