"""Recipes: which layers of a ViT become integers in a precision, of how many bits, found how, and why."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vit_deploy.core.config import ViTConfig
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.options.quantizing import Clipping
from vit_deploy.core.weights import layer_names
from vit_deploy.errors import ConfigError

# Said of a recipe as long as it is so: it can be asked for otherwise.
PAIRS_FIT = "No pair of products saturates on x86 processors without VNNI, for a decibel or two."


class Activations(StrEnum):
    """What the inputs of quantized layers are."""

    FLOAT = "float"
    DYNAMIC = "dynamic"  # integers, of ranges that are measured as the model runs
    STATIC = "static"  # integers, of ranges that were calibrated


class Part(StrEnum):
    """A kind of operator of a ViT."""

    PATCH_EMBED = "patch_embed"
    PROJECTIONS = "projections"  # query, key, value, out, and those of the feed-forward halves
    HEAD = "head"
    ATTENTION_PRODUCTS = "attention_products"  # with what only moves values into them and out of them
    SOFTMAX = "softmax"
    NORMS = "norms"
    ACTIVATION_FUNCTIONS = "activation_functions"
    RESIDUALS = "residuals"


LAYERS = (Part.PATCH_EMBED, Part.PROJECTIONS, Part.HEAD)
"""The parts that have kernels."""


HALF = "fp16"  # the precision of 16-bit floats
SIXTEEN_BITS = "int16x8"


@dataclass(frozen=True)
class Recipe:
    """What to quantize and how.

    Args:
        precision: its name, as in the contract.
        weight_bits: the bits of kernels; 32 leaves them as they are.
        activations: what the inputs of quantized layers are.
        parts: that become integers (or 16-bit floats); all others stay in float32.
        activation_bits: the bits of activations that are integers.
        block_size: weights that share a scale, along the inputs; 0 for one scale a channel.
        softmax_bits: the bits of softmax's activations that are integers.
        attention_bits: the bits of the activations of attention's matmuls that are integers.
        residual_bits: the bits of the activations of residual sums and norms that are integers.
        fixed_residual_bits: whether they were asked for, and stay what they are where calibration sees outliers.
        fixed_attention_bits: the same of those of attention's matmuls.
        eight_bits: patterns, as of `fnmatch`, of layers whose kernels get 8 bits where the others get fewer.
        wide_layers: names of layers, and of products of attentions, whose activations get 16 bits where those of the
            others get 8.
        whole: whether every value of the graph becomes integers, as the compilers of NPUs take it.
        integer_io: whether input and output of the file are integers too.
        all_integers: whether all that lies between is of integers in a file of 16-bit activations; activation functions
            then have 8 bits.
        half_io: whether input and output of a file of 16-bit floats have 16 bits as well.
        clipping: the clipping of calibrated ranges.
        percentile: the percentile of absolute values inside the range, for `Clipping.PERCENTILE`.
        smoothing: alpha of the migration of outliers from activations into weights (Xiao et al. 2023, SmoothQuant,
            eq. 4); None leaves them where they are.
        equalized: whether outliers are migrated by the weights alone, where no `smoothing` is asked for; needs no data.
        fitting_pairs: whether scales keep neighbouring weights from saturating sums of 16 bits; see `saturation`.
        compensated: whether rounding errors of kernels make up for each other, by what the layers read; see `rounding`.
        bias_correction: whether the mean error of a layer's output on the calibration images goes into its bias.
        keep_float: names of what stays in float32, such as `block_3.ffn.down`; see `quantizable`.
        reason: why it is as it is, in a sentence or two.
    """

    precision: str
    weight_bits: int
    activations: Activations
    parts: frozenset[Part]
    activation_bits: int = 8
    block_size: int = 0
    eight_bits: tuple[str, ...] = ()
    wide_layers: tuple[str, ...] = ()
    softmax_bits: int = 8
    attention_bits: int = 8
    residual_bits: int = 8
    fixed_residual_bits: bool = False
    fixed_attention_bits: bool = False
    whole: bool = False
    integer_io: bool = False
    all_integers: bool = False
    half_io: bool = False
    clipping: Clipping = Clipping.MIN_MAX
    percentile: float = 99.99
    smoothing: float | None = None
    equalized: bool = False
    fitting_pairs: bool = False
    compensated: bool = False
    bias_correction: bool = False
    keep_float: tuple[str, ...] = ()
    reason: str = ""

    def __post_init__(self) -> None:
        if self.activations is not Activations.STATIC and self.integer_io:
            raise ConfigError("a file of integers alone needs calibrated activations")

    def activation_bits_of(self, layer: str) -> int:
        """The bits of what a layer reads and writes, where they are integers."""
        return max(self.activation_bits, 16) if layer in self.wide_layers else self.activation_bits

    def bits_of(self, layer: str) -> int:
        """The bits of a layer's kernel."""
        wide = any(fnmatch.fnmatchcase(layer, pattern) for pattern in self.eight_bits)
        return max(self.weight_bits, 8) if wide else self.weight_bits

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without what it does not use."""
        lists = {name: list(getattr(self, name)) for name in ("keep_float", "eight_bits", "wide_layers")}
        reason = f"{self.reason} {PAIRS_FIT}" if self.fitting_pairs else self.reason
        values = {**dataclasses.asdict(self), "parts": sorted(self.parts), **lists, "reason": reason}
        return {name: value for name, value in values.items() if value not in (None, [], "", False)}

    @property
    def computes_in_half(self) -> bool:
        """Whether products are computed in 16-bit floats, and not only weights stored in them."""
        return self.precision == HALF and Part.ATTENTION_PRODUCTS in self.parts

    @property
    def has_products_alone(self) -> bool:
        """Whether the products of an attention are operators of their own, which 16-bit floats can be kept from."""
        return self.computes_in_half and Part.SOFTMAX not in self.parts

    @property
    def needs_ranges(self) -> bool:
        """Whether it cannot be made without ranges of activations, or their means."""
        return self.activations is Activations.STATIC or self.smoothing is not None or self.bias_correction

    @property
    def needs_calibration(self) -> bool:
        """Whether images go through the model before it is made."""
        return self.needs_ranges or self.compensated


def in_integers(recipe: Recipe) -> Recipe:
    """A recipe of 16-bit activations with everything in integers.

    LiteRT has kernels of 16 bits for norms, softmax, products and sums; compilers of accelerators have none for GELU.
    """
    return dataclasses.replace(
        recipe,
        parts=frozenset(Part),
        softmax_bits=16,
        attention_bits=16,
        residual_bits=16,
        all_integers=True,
        reason="Activations in 16 bits for accelerators, with nothing in float between input and output. Activation "
        "functions have 8 bits, for which alone compilers have tables: of a ViT of two layers 33 dB in place of 37. On "
        "a CPU the kernels are the reference ones, many times slower than fp32.",
    )


def quantizable(recipe: Recipe, config: ViTConfig) -> tuple[str, ...]:
    """Names of what a recipe quantizes one by one, in the order in which the network uses it.

    These are all layers, and where the products of an attention become integers or 16-bit floats too, those of each
    attention as one: `block_0.attention.products`, behind its values.
    """
    integers = recipe.activations is Activations.STATIC and Part.ATTENTION_PRODUCTS in recipe.parts
    found = []
    for name in layer_names(config):
        found.append(name)
        attention, _, role = name.rpartition(".")
        if role == "value" and (integers or recipe.has_products_alone):
            found.append(products_of(attention))
    return tuple(found)


def products_of(attention: str) -> str:
    """The name by which the products of an attention are kept in float, as `block_0.attention.products`."""
    return f"{attention}.products"


def recipe_for(format: str, precision: str, target: str = "cpu") -> Recipe:
    """The recipe by which a precision of a format is made.

    Args:
        format: the format of the file.
        precision: its name.
        target: what the file is made for, of `core.format.Target`.

    Raises:
        ConfigError: the format has no such precision.
    """
    recipes = recipes_of(format, target)
    if precision not in recipes:
        made_for = "" if target == "cpu" else f" for {target}"
        raise ConfigError(
            f"{format}{made_for} cannot be quantized to {precision!r}",
            fix=f"{format}{made_for} has {', '.join(recipes)}" if recipes else "let what reads the file quantize it",
        )
    return recipes[precision]


def recipes_of(format: str, target: str = "cpu") -> Mapping[str, Recipe]:
    """The recipes of a format, made for a target, by precision; empty where it has none."""
    plugin = FORMATS[format].recipes.get(target)
    recipes: Mapping[str, Recipe] = {} if plugin is None else plugin.load()
    return recipes
