"""What accelerators require of an operator besides supporting it.

A rule says in words what is against an operator, and nothing where it is met. Those are here that decide about the
operators of a ViT; `accelerators.json` says which of them a device has, and of which document. Of the rest, the makers'
compilers know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from vit_deploy.formats.tflite.operators import Step
from vit_deploy.formats.tflite.schema import Conv2DOptions, StridedSliceOptions

Rule = Callable[[Step], str]

LONGEST_SOFTMAX = 16_000  # elements, of the Edge TPU
MOST_ROWS = 65_535  # of a softmax, of Ethos-U
LONGEST_MEAN = 4096  # elements, of Ethos-U


def fixed_sizes(step: Step) -> str:
    """All sizes are known before."""
    return "its sizes are open" if any(tensor.is_open for tensor in (*step.inputs, *step.outputs)) else ""


def dimensions(most: int) -> Rule:
    """No tensor has more dimensions."""

    def rule(step: Step) -> str:
        wide = any(len(tensor.shape) > most for tensor in (*step.inputs, *step.outputs))
        return f"has more than {most} dimensions" if wide else ""

    return rule


def three_inner_dimensions(step: Step) -> str:
    """All dimensions before the last three are 1."""
    wide = any(math.prod(tensor.shape[:-3]) > 1 for tensor in (*step.inputs, *step.outputs) if not tensor.is_constant)
    return "has more than 3 dimensions" if wide else ""


def one_image(*but: str) -> Rule:
    """The first of four dimensions is 1, but for some operators."""

    def rule(step: Step) -> str:
        shape = step.inputs[0].shape
        several = len(shape) == 4 and shape[0] != 1 and step.kind not in but
        return "has a batch of more than one" if several else ""

    return rule


def one_row(step: Step) -> str:
    """The output has one dimension, others are 1."""
    return "its output has more than one row" if math.prod(step.outputs[0].shape[:-1]) > 1 else ""


def short_row(step: Step) -> str:
    """A softmax is that of one row, which is not too long."""
    long = math.prod(step.inputs[0].shape[-1:]) > LONGEST_SOFTMAX
    return one_row(step) or (f"has more than {LONGEST_SOFTMAX} elements" if long else "")


def joins_no_constant(step: Step) -> str:
    """What is joined is computed, or is one block of zeros beside one that is computed."""
    constants = [tensor for tensor in step.inputs if tensor.is_constant]
    if not constants:
        return ""
    zeros = all((constant.values() == np.array(constant.zero_point)).all() for constant in constants)
    return "" if zeros and len(step.inputs) == 2 else "joins a constant"


def channels_by_four(step: Step) -> str:
    """A mean over channels is one of a multiple of four."""
    odd = _reduces_channels(step) and step.inputs[0].shape[-1] % 4
    return "is over channels that are no multiple of 4" if odd else ""


def plain_slice(step: Step) -> str:
    """A slice takes every value, and makes no axis."""
    strides = step.inputs[3].values() if step.inputs[3].is_constant else np.zeros(1)
    options = StridedSliceOptions.of(step.options) if step.options else None
    masked = options is not None and (options.ellipsis_mask or options.new_axis_mask)
    return "has strides or masks" if masked or (strides != 1).any() else ""


def wide_strides_unpadded(step: Step) -> str:
    """A convolution that moves by more than three has neither padding nor holes."""
    if step.options is None:
        return ""
    options = Conv2DOptions.of(step.options)
    met = max(options.strides) <= 3 or (options.is_unpadded and max(options.dilation) <= 1)
    return "" if met else "has strides above 3 and padding"


def mean_of_a_plane(step: Step) -> str:
    """A mean over channels has one of height, width and channels 1, and is not too long."""
    shape = step.inputs[0].shape
    if not _reduces_channels(step):
        return ""
    if len(shape) > 2 and min(shape[-3:]) > 1:
        return "is over the channels of rows and columns"
    return f"is over more than {LONGEST_MEAN}" if shape[-1] > LONGEST_MEAN else ""


def few_rows(step: Step) -> str:
    """A softmax has not too many rows."""
    return "has too many rows" if math.prod(step.inputs[0].shape[-3:-1]) > MOST_ROWS else ""


def eight_bit_kernel(step: Step) -> str:
    """The kernel is a constant of 8 bits."""
    kernel = step.inputs[1]
    met = kernel.is_constant and kernel.dtype in ("int8", "uint8")
    return "" if met else "its kernel is no constant of 8 bits"


def kernel_of_its_kind(step: Step) -> str:
    """The kernel has integers where the input has, and floats where it has floats."""
    floats = step.inputs[0].dtype.startswith("float")
    met = floats == step.inputs[1].dtype.startswith("float")
    return "" if met else f"multiplies {step.inputs[0].dtype} with {step.inputs[1].dtype}"


def input_of(*dtypes: str) -> Rule:
    """What is read first is of one of these types."""

    def rule(step: Step) -> str:
        found = step.inputs[0].dtype
        return "" if found in dtypes else f"computes in {found}"

    return rule


PLAIN: Mapping[str, Rule] = {
    rule.__name__: rule
    for rule in (
        *(fixed_sizes, three_inner_dimensions, one_row, short_row, joins_no_constant, channels_by_four, plain_slice),
        *(wide_strides_unpadded, mean_of_a_plane, few_rows, eight_bit_kernel, kernel_of_its_kind),
    )
}
MADE: Mapping[str, Callable[..., Rule]] = {rule.__name__: rule for rule in (dimensions, one_image, input_of)}


def named(name: str, *arguments: str | int) -> Rule:
    """A rule by its name and what it is about, as data write it.

    Raises:
        KeyError: there is none.
    """
    return MADE[name](*arguments) if name in MADE else PLAIN[name]


def _reduces_channels(step: Step) -> bool:
    rank = len(step.inputs[0].shape)
    axes = step.inputs[1].values().tolist() if step.inputs[1].is_constant else [-1]
    return rank > 0 and rank - 1 in [axis % rank for axis in axes]
