"""Positions computed in float32 for a size that is not known before are those that are resampled in float64."""

from __future__ import annotations

import numpy as np
import pytest

from vit_deploy.core import resampling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.open_positions import SAMPLINGS, interpolation, position_table, rotary_tables
from vit_deploy.core.resize import FILTERS, resized_positions
from vit_deploy.core.rotary import RotaryConvention
from vit_deploy.core.rotary_angles import angles, tables

FEW_ROUNDINGS = 4e-7  # weights are at most 1.1


class NumPy:
    """The arithmetic in plain NumPy, in float32."""

    def constant(self, values):
        return np.asarray(values, np.float32)

    def counted(self, count):
        return np.arange(int(np.ravel(count)[0]), dtype=np.float32)[:, None]

    absolute, least, largest = staticmethod(np.abs), staticmethod(np.minimum), staticmethod(np.maximum)
    cosine, sine, product = staticmethod(np.cos), staticmethod(np.sin), staticmethod(np.matmul)

    def row_sum(self, value):
        return value.sum(axis=-1, keepdims=True)

    def reshaped(self, value, sides):
        return value.reshape(sides)

    def part(self, value, start, end):
        return value[start:end]

    def joined(self, values, axis):
        return np.concatenate(values, axis=axis)


def grid_of(rows, columns):
    return np.float32([rows]), np.float32([columns])


@pytest.mark.parametrize("kind", SAMPLINGS)
@pytest.mark.parametrize(
    ("source", "target"), [(14, 14), (14, 5), (7, 16), (37, 16), (3, 40), (5, 1), (1, 6), (16, 30)]
)
def test_every_filter_has_the_weights_of_its_definition(kind, source, target):
    made = interpolation(NumPy(), kind, source, np.float32([target]), np.float32([1]))

    assert made.dtype == np.float32
    np.testing.assert_allclose(made, kind(source, target), rtol=0, atol=FEW_ROUNDINGS)


def test_every_convention_has_a_filter_that_can_be_computed_where_the_size_is_open():
    assert {filters.positions for filters in FILTERS.values()} <= set(SAMPLINGS)
    assert resampling.progression not in SAMPLINGS


@pytest.mark.parametrize("convention", FILTERS)
def test_a_table_for_its_own_grid_stays_bit_for_bit(convention):
    config = ViTConfig(image_size=(24, 40), patch_size=(8, 4), embed_dim=8, num_heads=2, register_tokens=2)
    table = np.random.default_rng(3).standard_normal((config.sequence_length, 8)).astype(np.float32)

    made = position_table(NumPy(), FILTERS[convention].positions, table, config, grid_of(3, 10))

    np.testing.assert_array_equal(made, table)


@pytest.mark.parametrize("convention", FILTERS)
@pytest.mark.parametrize("grid", [(3, 7), (5, 10), (2, 17), (1, 1)])
def test_a_table_is_resampled_as_its_convention_does(convention, grid):
    config = ViTConfig(image_size=(24, 40), patch_size=(8, 4), embed_dim=8, num_heads=2, register_tokens=2)
    table = np.random.default_rng(3).standard_normal((config.sequence_length, 8)).astype(np.float32)
    kind = FILTERS[convention].positions

    made = position_table(NumPy(), kind, table, config, grid_of(*grid))

    expected = resized_positions(table, config.grid, grid, kind, config.num_prefix_tokens)
    np.testing.assert_allclose(made, expected, rtol=0, atol=2e-6)
    assert np.abs(expected).max() > 1


def has_own_coordinates(convention):
    return convention.startswith("dinov3") or convention == RotaryConvention.ROPE_VIT_MIXED


@pytest.mark.parametrize(
    ("convention", "reference"),
    [
        *((convention, None) for convention in RotaryConvention),
        *((convention, (3, 10)) for convention in RotaryConvention if not has_own_coordinates(convention)),
    ],
)
@pytest.mark.parametrize("grid", [(3, 10), (5, 4), (1, 24)])
def test_rotary_tables_follow_the_grid(convention, reference, grid):
    fields = {"convention": convention, "reference_grid": list(reference) if reference else None}
    config = ViTConfig(
        image_size=(24, 40), patch_size=(8, 4), embed_dim=24, num_heads=3, register_tokens=1, rotary=fields
    )
    rng = np.random.default_rng(5)
    shapes = config.rotary.weight_shapes(config.num_heads, config.head_dim)
    learned = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}

    made = rotary_tables(NumPy(), config, grid_of(*grid), learned)

    resized = config.replace(image_size=(grid[0] * 8, grid[1] * 4))
    for found, expected in zip(made, tables(angles(resized, learned)), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=6e-6)  # float32's angles of up to 24 radians
