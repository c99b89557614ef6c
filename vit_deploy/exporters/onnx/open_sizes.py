"""An ONNX graph for images of any height and width, made of the graph for one size.

The graph is traced at a size whose numbers of patches and tokens are like no other number in the model, so that each
constant with one of them is known to follow from the size. Positions are then computed from height and width, as
`core.open_positions` says; what is left to find the tokens by is an open side of a shape.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.open_positions import position_table, rotary_tables
from vit_deploy.core.outputs import Kind, Output
from vit_deploy.core.reference import weights_of
from vit_deploy.core.resampling import Filter
from vit_deploy.core.rotary_angles import angles, tables
from vit_deploy.errors import ExportError
from vit_deploy.exporters.onnx.arithmetic import Computed, Operators
from vit_deploy.exporters.onnx.constants import constant
from vit_deploy.exporters.onnx.size_nodes import MUST_BE, SIDES

WHOLE = 2**31 - 1  # the end of a part that is everything
PLACES = {"nhwc": (1, 2), "nchw": (2, 3)}  # of height and width
FIRST_COUNT = 101
TABLE = "pos_embed.table"


def at_a_telling_size(checkpoint: Checkpoint, batch: int | None = None) -> Checkpoint:
    """The same structure for images whose numbers of patches and of tokens are like no other number of the model.

    Its position table is not the checkpoint's.

    Args:
        checkpoint: of the structure.
        batch: images a call, which is such a number as well; None for any.
    """
    config = checkpoint.config
    height, width = config.patch_size
    others = {number for number in vars(config).values() if isinstance(number, int)}
    others |= {
        config.head_dim,
        config.attention_dim,
        config.probe_heads,
        config.probe_mlp_dim,
        height,
        width,
        config.pooled_dim,
        batch or 0,
    }
    count = FIRST_COUNT
    while {count, 2 * count, 2 * count + config.num_prefix_tokens} & others:
        count += 1
    traced = config.replace(image_size=(2 * height, count * width))
    table = np.zeros((traced.sequence_length, traced.embed_dim), np.float32)
    return dataclasses.replace(checkpoint, config=traced, weights={**checkpoint.weights, TABLE: table})


def open_image_size(
    graph: ir.Graph,
    checkpoint: Checkpoint,
    traced: ViTConfig,
    kind: Filter,
    *,
    layout: str,
    batch: int | None,
    outputs: Sequence[Output] = (),
) -> None:
    """Let a tidy graph take images of any size that is a multiple of the patch.

    Args:
        graph: the graph of the traced structure; changed in place.
        checkpoint: of whose weights it will be.
        traced: the config that it was traced with.
        kind: the filter that positions are resampled with.
        layout: of its input.
        batch: images a call, None for any number.
        outputs: the outputs of the graph by name; none for the one that the config says.

    Raises:
        ExportError: something in it follows from the size in an unknown way.
    """
    images, config = graph.inputs[0], checkpoint.config
    xp = Operators(graph)
    places = PLACES[layout]
    grid = _grid(xp, images, config, places)
    table = next(value for node in graph for value in node.inputs if value is not None and value.name == TABLE)
    readers = table.uses()
    positions = position_table(xp, kind, Computed(xp, table), config, grid)
    for reader, index in readers:
        reader.replace_input_with(index, positions.value)
    _open_rotary(xp, graph, checkpoint, traced, grid)
    _open_maps(xp, graph, traced, images, places)
    if traced.pixel_norm:
        _open_pixels(xp, graph, traced, images, places)
    _open_shapes(xp, graph, traced, images, batch)
    xp.insert_first()
    for value in list(graph.initializers.values()):
        if not value.uses():
            graph.initializers.pop(str(value.name))
    _check(graph, traced)
    sides: list[int | str | None] = list(images.shape or ())
    for place, side in zip(places, SIDES, strict=True):
        sides[place] = side
    images.shape = ir.Shape(sides)
    maps = {output.name for output in outputs if output.kind is Kind.MAP}
    for value in graph.outputs:
        value.shape = ir.Shape(_open_sides(list(value.shape or ()), traced, is_map=value.name in maps))


def _open_sides(known: Sequence[Any], traced: ViTConfig, *, is_map: bool) -> list[Any]:
    """The sides of an output, by names where they follow from the size of the images."""
    if is_map:
        return [known[0], "rows", "columns", known[-1]]
    counts = {traced.sequence_length, traced.num_patches}
    return [*known[:1], *("tokens" if side in counts else side for side in known[1:])]


def _grid(xp: Operators, images: ir.Value, config: ViTConfig, places: Sequence[int]) -> tuple[Computed, Computed]:
    """The patches along each side as float32; an image that is no multiple of its patch fails at a node that says so.

    Where something is left over, a count is repeated once more for each pixel of it, and then is not one number.
    """
    found = []
    for side, place, patch in zip(SIDES, places, config.patch_size, strict=True):
        pixels = xp.node("Shape", images, start=place, end=place + 1)
        step, one = xp.whole_numbers([patch]), xp.whole_numbers([1])
        left = xp.node("Mod", pixels, step)
        repeated = xp.node("Expand", xp.node("Div", pixels, step), xp.node("Add", left, one))
        count = xp.node("Reshape", repeated, one, name=f"{side}{MUST_BE}{patch}")
        found.append(Computed(xp, xp.node("Cast", count, to=ir.DataType.FLOAT)))
    return found[0], found[1]


def _open_maps(xp: Operators, graph: ir.Graph, traced: ViTConfig, images: ir.Value, places: Sequence[int]) -> None:
    """Let maps of patches have the rows and columns that images of any size have."""
    whole = (-1, *traced.grid, traced.embed_dim)
    readers = [node for node in graph if node.op_type == "Reshape" and _numbers(node.inputs[1]) == whole]
    if not readers:
        return
    counts = [
        xp.node("Div", xp.node("Shape", images, start=place, end=place + 1), xp.whole_numbers([patch]))
        for place, patch in zip(places, traced.patch_size, strict=True)
    ]
    sides = xp.node("Concat", xp.whole_numbers([-1]), *counts, xp.whole_numbers([traced.embed_dim]), axis=0)
    for node in readers:
        node.replace_input_with(1, sides)


def _open_pixels(xp: Operators, graph: ir.Graph, traced: ViTConfig, images: ir.Value, places: Sequence[int]) -> None:
    """Let the pixels of patches, which are normalized side by side, be cut out of images of any size and put back."""
    height, width = (xp.node("Shape", images, start=place, end=place + 1) for place in places)
    columns = xp.node("Div", width, xp.whole_numbers([traced.patch_size[1]]))
    whole = (-1, *traced.image_size, traced.channels)
    for node in list(graph):
        sides = _numbers(node.inputs[1]) if node.op_type == "Reshape" else ()
        if sides == whole:
            parts = [xp.whole_numbers([-1]), height, width, xp.whole_numbers([traced.channels])]
        elif len(sides) == len(whole) and traced.grid[1] in sides:
            parts = [columns if side == traced.grid[1] else xp.whole_numbers([side]) for side in sides]
        else:
            continue
        node.replace_input_with(1, xp.node("Concat", *parts, axis=0))


def _open_shapes(xp: Operators, graph: ir.Graph, traced: ViTConfig, images: ir.Value, batch: int | None) -> None:
    """Let shapes and parts that name the number of tokens or of patches take whatever number there is."""
    counts = (traced.sequence_length, traced.num_patches)
    shapes: dict[tuple[int, ...], ir.Value] = {}
    first: list[ir.Value] = []
    for node in list(graph):
        if node.op_type == "Reshape" and (sides := _numbers(node.inputs[1])) and any(side in counts for side in sides):
            if sides not in shapes:
                rest = [-1 if side in counts else side for side in sides[1:]]
                if sides[0] not in (-1, 0) or rest.count(-1) != 1:
                    raise _unknown(node.name, "shapes")
                if batch is None:
                    first = first or [xp.node("Shape", images, start=0, end=1)]
                    shapes[sides] = xp.node("Concat", first[0], xp.whole_numbers(rest), axis=0)
                else:
                    shapes[sides] = xp.whole_numbers([batch, *rest])
            node.replace_input_with(1, shapes[sides])
        elif node.op_type == "Slice" and (ends := _numbers(node.inputs[2])) and any(end in counts for end in ends):
            open_ends = [WHOLE if end in counts else end for end in ends]
            node.replace_input_with(2, xp.whole_numbers(open_ends))


def _open_rotary(
    xp: Operators, graph: ir.Graph, checkpoint: Checkpoint, traced: ViTConfig, grid: tuple[Computed, Computed]
) -> None:
    """Compute the tables of rotary positions, which are constants of the graph, from the grid."""
    if traced.rotary is None:
        return
    made: list[tuple[NDArray[Any], Computed]] = []
    for index in range(traced.num_layers):
        learned = weights_of(f"block_{index}.attention", checkpoint.weights)
        fixed = [table.astype(np.float32) for table in tables(angles(traced, learned))]
        if any(np.array_equal(fixed[0], known) for known, _ in made):
            continue
        made += zip(fixed, rotary_tables(xp, checkpoint.config, grid, learned), strict=True)
    opened: dict[str, ir.Value] = {}
    for node in list(graph):
        for index, value in enumerate(node.inputs):
            known = constant(value)
            if value is None or known is None or known.ndim < 2 or known.dtype != np.float32:
                continue
            if traced.sequence_length not in known.shape:
                continue
            name = str(value.name)
            if name not in opened:
                opened[name] = _opened(xp, known, made, traced)
            node.replace_input_with(index, opened[name])


def _opened(
    xp: Operators, known: NDArray[Any], made: Sequence[tuple[NDArray[Any], Computed]], traced: ViTConfig
) -> Any:
    """The computed table that a constant stands for, with its scale, in its order of axes."""
    scale = float(np.float32(1 / math.sqrt(traced.head_dim)))
    for fixed, computed in made:
        for order, factor, turned in _forms(fixed, scale):
            if turned.size == known.size and np.array_equal(np.squeeze(turned), np.squeeze(known)):
                table = computed if factor == 1 else computed * factor
                moved = xp.node("Transpose", table.value, perm=list(order))
                sides = [-1 if side == traced.sequence_length else side for side in known.shape]
                return xp.node("Reshape", moved, xp.whole_numbers(sides))
    raise _unknown(f"a constant of {known.shape}", "positions")


def _forms(fixed: NDArray[Any], scale: float) -> Iterator[tuple[tuple[int, ...], float, NDArray[Any]]]:
    orders = [(0, 1), (1, 0)] if fixed.ndim == 2 else [(0, 1, 2), (0, 2, 1), (1, 0, 2)]
    for order in orders:
        for factor in (1.0, scale):
            yield order, factor, np.ascontiguousarray(fixed.transpose(order)) * np.float32(factor)


def _check(graph: ir.Graph, traced: ViTConfig) -> None:
    """Raise `ExportError` if a constant of the graph still holds for one size alone."""
    counts = {traced.sequence_length, traced.num_patches, traced.grid[1]}
    for node in graph:
        for value in node.inputs:
            known = constant(value)
            if known is None:
                continue
            named = set(known.ravel().tolist()) if known.dtype == np.int64 else set()
            if counts & (set(known.shape) | named):
                raise _unknown(node.name, "shapes")


def _unknown(what: str | None, kind: str) -> ExportError:
    return ExportError(
        f"{what} follows from the size of the images in a way that the ONNX exporter cannot leave open ({kind})",
        fix="export one size, or report this with the model's config",
    )


def _numbers(value: ir.Value | None) -> tuple[int, ...]:
    known = constant(value)
    return () if known is None or known.ndim != 1 else tuple(int(number) for number in known)
