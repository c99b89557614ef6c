"""Mean-centering: weights rewritten so that layer norms need no mean.

A layer norm takes the mean of a token's features away before it divides. The mean that one product adds to the residual
stream can be taken out of that product's weights instead (Ashkboos et al. 2024, SliceGPT). If all that is added has
none, neither has the stream, and a layer norm of it is an RMS norm, which is two operators shorter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import NormalizationPosition, NormalizationType, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.outputs import Output
from vit_deploy.core.weights import Float32

TOKENS = ("class_token.", "pos_embed.")
ADDED = ("attention.out", "ffn.down")  # what each block adds to it
MOST_ZEROS = 0.01  # of a kernel that nobody pruned
MOST_CLUSTERS = 256
SAMPLE = 4096  # weights that show whether a kernel is clustered


def centre_stream(checkpoint: Checkpoint, outputs: Sequence[Output] = ()) -> Checkpoint:
    """A checkpoint of the same function with RMS norms and a stream without a mean; the one given where it cannot be.

    Kernels that were pruned or clustered stay as they are, and so does whatever ranges were learned for, which is
    centred before it is trained.

    Args:
        checkpoint: whose norms have given their biases to what reads them, see `folding.fold_norms`.
        outputs: the outputs by name that have to stay as they are; none for the one that the config says.
    """
    if any(_is_stream(output, checkpoint.config) for output in outputs):
        return checkpoint
    config, weights = checkpoint.config, checkpoint.weights
    norms = [name for name in weights if name.endswith((".norm1.bias", ".norm2.bias")) or name == "norm.bias"]
    written = ["patch_embed", *(f"block_{index}.{name}" for index in range(config.num_layers) for name in ADDED)]
    possible = _has_one_stream(config) and not any(weights[name].any() for name in norms)
    if not possible or checkpoint.ranges or any(_is_compressed(weights[f"{name}.kernel"]) for name in written):
        return checkpoint
    centred = {
        name: _without_mean(weight) if name.startswith(TOKENS) or name.rpartition(".")[0] in written else weight
        for name, weight in weights.items()
        if name not in norms
    }
    config = config.replace(normalization_type=NormalizationType.RMS_NORM)
    return dataclasses.replace(checkpoint, config=config, weights=centred)


def _is_stream(output: Output, config: ViTConfig) -> bool:
    """Whether an output is tokens as they are in the residual stream."""
    of_tokens = config.last_norm and not config.norm_after_pooling
    return output.part is not None and not (output.normed or (output.block is None and of_tokens))


def _without_mean(weight: Float32) -> Float32:
    centred: Float32 = weight - weight.mean(axis=-1, keepdims=True)
    return centred


def _has_one_stream(config: ViTConfig) -> bool:
    """Whether layer norms read sums of linear functions, and nothing else reads them."""
    # Of two vectors side by side each has its own mean, and a maximum takes features from several tokens.
    side_by_side = config.pooled_dim != config.embed_dim
    mixed = config.norm_after_pooling and (side_by_side or config.effective_pooling is Pooling.MAX)
    return (
        config.normalization_type is NormalizationType.LAYER_NORM
        and config.normalization_position in (NormalizationPosition.PRE, NormalizationPosition.PARALLEL)
        and not (config.pre_norm or config.patch_norm or config.pixel_norm or config.qk_norm)
        and not (config.attention_norm or config.ffn_norm or mixed)
        and config.effective_pooling is not Pooling.MAP
        and config.last_norm
    )


def _is_compressed(kernel: Float32) -> bool:
    """Whether many weights are zero or equal, which a smaller file or a faster product may rest on."""
    sample = kernel.ravel()[:SAMPLE]
    distinct = np.unique(sample).size
    clustered = distinct <= MOST_CLUSTERS and 2 * distinct < sample.size
    return bool(clustered or np.mean(kernel == 0) > MOST_ZEROS)
