"""Activations of 16 bits in a TFLite file of integers alone, where 8 are too coarse for what calibration saw."""

from __future__ import annotations

import dataclasses

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.choices import Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.exporters.quantization.recipes import Recipe
from vit_deploy.exporters.tflite.bits import EIGHT
from vit_deploy.exporters.tflite.coarse import coarse_layers, coarse_products
from vit_deploy.exporters.tflite.layers import find_layers, find_tensors
from vit_deploy.exporters.tflite.matmuls import integer_products
from vit_deploy.exporters.tflite.ranges import Observations
from vit_deploy.exporters.tflite.squares import has_squared_differences, with_products_for_squares
from vit_deploy.formats.tflite.file import opened, root

SUMMED_UP = (None, Pooling.CLS, Pooling.CLS_DISTILLATION, Pooling.CLS_MEAN)  # poolings that read the class token
WRITERS = (".attention.out", ".ffn.down")  # layers whose outputs go into residual sums


def widened(source: Artifact, recipe: Recipe, seen: Observations | None) -> tuple[Recipe, bytes | None]:
    """The recipe with 16 bits where 8 are too coarse, and the file that it is of where that is another.

    Norms and residual sums are widened together, with the layers that write into these sums and are too coarse in 8
    bits; squares of norms become products for that, and where some cannot, which have 8 bits, nothing would be gained.
    Of attention, those products whose sides are too coarse.

    Args:
        source: the float artifact.
        recipe: of a file of integers alone.
        seen: what calibration saw.
    """
    with opened(source.model_path) as model:
        layers, between = find_layers(model, source.config), find_tensors(model, source.config)
        products = integer_products(model, recipe, between)
    narrow = recipe.fixed_residual_bits and recipe.residual_bits == EIGHT
    sums = () if narrow else coarse_layers(layers, recipe, seen)
    content = bytes(with_products_for_squares(source.model_path.read_bytes())) if sums else None
    if content is not None and has_squared_differences(root(content)):
        sums, content = (), None
    wide = [name for name in sums if name.endswith(WRITERS)]
    wide += () if recipe.fixed_attention_bits else coarse_products(products, recipe, seen)
    residual_bits = 16 if sums else recipe.residual_bits
    return dataclasses.replace(recipe, residual_bits=residual_bits, wide_layers=tuple(wide)), content


def tokens_beside_summary(config: ViTConfig) -> int:
    """How many tokens an image has, of which the first sums it up; 0 where no token does.

    Ranges that lose least over all tokens cut off what one in 257 has alone, and with it what is read in the end: in
    DINOv2-small's `int8-full` the cosine of class tokens was 0.992 so, and is 0.996 where the class token weighs as
    much as all others.
    """
    return config.sequence_length if config.class_token and config.effective_pooling in SUMMED_UP else 0
