"""The importance of blocks, heads and hidden units on images, and the loss of a model that was cut.

A part's importance is what removing it would change the loss by, to first order: what it gives times the gradient of
the loss by it, summed over one image, and its size averaged over all (Michel et al. 2019; Yang et al. 2023). The loss
is that of the classes, with answers softened as in training: those of a trained model are too sure to have a gradient.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from vit_deploy.compression.keras2 import build
from vit_deploy.compression.method import Call
from vit_deploy.compression.sizes import Importance
from vit_deploy.core.checkpoint import Checkpoint

Batch = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Normalised images `(batch, height, width, channels)`, and their classes."""


def importance(checkpoint: Checkpoint, batches: Iterable[Batch], temperature: float) -> Importance:
    """The importance of every part of a model.

    Args:
        checkpoint: the model.
        batches: images with their classes.
        temperature: that its answers are softened by.
    """
    config = checkpoint.config
    read: dict[str, Any] = {}

    def kept(name: str, dense: Any) -> Call:
        def call(x: Any) -> Any:
            read[name] = x
            return dense(x)

        return call

    twin = build(checkpoint, kept)
    names = [f"block_{index}.{last}" for index in range(config.num_layers) for last in ("attention.out", "ffn.down")]
    outputs = [twin.model.output, *(read[name] for name in names), *twin.stream]
    looked_at = tf_keras.Model(twin.model.inputs, outputs)

    @tf.function  # type: ignore[untyped-decorator]
    def changes(images: Any, labels: Any) -> tuple[list[Any], list[Any]]:
        with tf.GradientTape() as tape:
            logits, *values = looked_at(images)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits / temperature)
            total = tf.reduce_sum(loss)  # so that an image's gradient is its own loss's
        gradients = tape.gradient(total, values)
        inner, stream = values[: len(names)], values[len(names) :]
        features = [tf.reduce_sum(value * gradient, axis=1) for value, gradient in zip(inner, gradients, strict=False)]
        blocks = [
            tf.reduce_sum((after - before[:, : after.shape[1]]) * gradient, axis=(1, 2))
            for before, after, gradient in zip(stream, stream[1:], gradients[len(names) + 1 :], strict=False)
        ]
        return features, blocks

    blocks = np.zeros(config.num_layers)
    heads = np.zeros((config.num_layers, config.num_heads))
    units = np.zeros((config.num_layers, config.mlp_dim))
    for images, labels in batches:
        features, of_blocks = changes(images, labels)
        for index in range(config.num_layers):
            of_heads = features[2 * index].numpy().astype(np.float64)
            heads[index] += np.abs(of_heads.reshape(len(images), config.num_heads, -1).sum(axis=2)).sum(axis=0)
            units[index] += np.abs(features[2 * index + 1].numpy().astype(np.float64)).sum(axis=0)
            blocks[index] += np.abs(of_blocks[index].numpy().astype(np.float64)).sum()
    return Importance(blocks, heads, units)


def divergence(checkpoint: Checkpoint, batches: Iterable[Batch], answers: Iterable[NDArray[np.float32]]) -> float:
    """How far a model's softened answers are from others, `answers` of probabilities a batch: mean cross entropy."""
    model = build(checkpoint).model
    losses = [
        tf.nn.softmax_cross_entropy_with_logits(taught, model(images)).numpy()
        for (images, _), taught in zip(batches, answers, strict=True)
    ]
    return float(np.concatenate(losses).astype(np.float64).mean())


def answers(checkpoint: Checkpoint, batches: Iterable[Batch]) -> list[NDArray[np.float32]]:
    """A model's probabilities `(batch, classes)`."""
    model = build(checkpoint).model
    return [tf.nn.softmax(model(images)).numpy() for images, _ in batches]
