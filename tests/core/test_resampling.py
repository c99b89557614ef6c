"""Resampling against its originals, live and as recorded, and what holds for every matrix."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.peers.resize_originals import KERNELS, POSITIONS
from vit_deploy.core.resampling import (
    bicubic,
    bicubic_antialias,
    bicubic_dinov2,
    bilinear,
    bilinear_aligned,
    bilinear_antialias,
    resample,
    resample_kernel,
)
from vit_deploy.core.resize import FILTERS, Convention

FILES = np.load(Path(__file__).parents[1] / "peers" / "resize_golden.npz")
RECORDED = {name: FILES[name] for name in FILES.files}
KINDS = [bicubic, bicubic_antialias, bicubic_dinov2, bilinear, bilinear_antialias, bilinear_aligned]
SIZES = [
    ((14, 14), (7, 28)),
    ((14, 14), (24, 32)),
    ((24, 32), (14, 14)),
    ((16, 16), (30, 30)),
    ((37, 37), (16, 23)),
    ((7, 9), (9, 7)),
    ((1, 9), (5, 4)),
    ((9, 1), (3, 6)),
    ((7, 9), (1, 12)),
    ((7, 9), (12, 1)),
    ((3, 4), (1, 1)),
    ((1, 1), (3, 4)),
]
PATCHES = [((8, 4), (16, 7)), ((8, 4), (5, 3)), ((8, 4), (5, 9)), ((1, 1), (3, 2)), ((16, 16), (14, 14))]
CONVENTIONS = list(Convention)

side = st.integers(1, 20)
size = st.tuples(side, side)
kinds = st.sampled_from(KINDS)


def assert_same(ours, theirs):
    assert ours.dtype == theirs.dtype == np.float32
    assert ours.shape == theirs.shape
    assert np.isfinite(theirs).all()
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def grid_of(source, dim=3):
    return np.random.default_rng(math.prod(source)).standard_normal((*source, dim)).astype(np.float32)


def recorded(word, *names):
    return [(name, *key) for key in recorded_cases(word) for name in names]


def recorded_cases(word):
    for name in RECORDED:
        first, _, case = name.partition(" ")
        if first == word:
            yield (case, tuple(map(int, case.split(" ")[1].split("x"))))


@pytest.mark.parametrize(("convention", "case", "target"), recorded("grid", *CONVENTIONS))
def test_positions_are_what_the_original_made_of_them(convention, case, target):
    ours = resample(RECORDED[f"grid {case}"], target, FILTERS[convention].positions)
    assert_same(ours, RECORDED[f"{convention} {case}"])


@pytest.mark.parametrize(("convention", "case", "target"), recorded("kernel", Convention.TIMM, Convention.GOOGLE))
def test_kernels_are_what_the_original_made_of_them(convention, case, target):
    ours = resample_kernel(RECORDED[f"kernel {case}"], target, FILTERS[convention].patches)
    assert_same(ours, RECORDED[f"{convention} patch {case}"])


def test_all_conventions_differ_in_the_recorded_cases_but_the_two_with_the_same_filter():
    case = next(recorded_cases("grid"))[0]
    results = {convention: RECORDED[f"{convention} {case}"] for convention in CONVENTIONS}
    assert np.allclose(results.pop("dinov2-registers"), results["timm"], atol=1e-6)
    for one, other in itertools.combinations(results.values(), 2):
        assert np.abs(one - other).max() > 1e-3


@pytest.mark.peers
@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_positions_are_what_the_original_makes_of_them(timm, convention, source, target):
    grid = grid_of(source)
    assert_same(resample(grid, target, FILTERS[convention].positions), POSITIONS[convention](grid, target))


@pytest.mark.peers
@pytest.mark.parametrize(("source", "target"), PATCHES)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_kernels_are_what_the_original_makes_of_them(timm, convention, source, target):
    kernel = np.random.default_rng(3).standard_normal((*source, 3, 5)).astype(np.float32)
    assert_same(resample_kernel(kernel, target, FILTERS[convention].patches), KERNELS[convention](kernel, target))


@pytest.mark.peers
@pytest.mark.parametrize(
    ("convention", "family", "names"),
    [
        (Convention.HUGGINGFACE, "vit", "ViT"),
        (Convention.HUGGINGFACE, "dinov2", "Dinov2"),
        (Convention.DINOV2_REGISTERS, "dinov2_with_registers", "Dinov2WithRegisters"),
    ],
)
def test_positions_are_what_transformers_makes_of_them(convention, family, names):
    torch = pytest.importorskip("torch")
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs transformers")
    configuration = importlib.import_module(f"transformers.models.{family}.configuration_{family}")
    modeling = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    config = getattr(configuration, f"{names}Config")(hidden_size=6, image_size=56, patch_size=8)
    embeddings = getattr(modeling, f"{names}Embeddings")(config)
    table = np.random.default_rng(0).standard_normal((1 + 7 * 7, 6)).astype(np.float32)
    with torch.no_grad():
        embeddings.position_embeddings.copy_(torch.from_numpy(table)[None])
        theirs = embeddings.interpolate_pos_encoding(torch.zeros(1, 1 + 9 * 5, 6), 72, 40)[0, 1:].numpy()
    assert_same(resample(table[1:].reshape(7, 7, 6), (9, 5), FILTERS[convention].positions).reshape(-1, 6), theirs)


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_google_is_scipys_zoom_of_the_first_order(source, target):
    grid = grid_of(source)
    assert_same(resample(grid, target, bilinear_aligned), POSITIONS["google"](grid, target))


@pytest.mark.parametrize("old", [1, 2, 7, 14, 16, 24])
def test_google_is_scipys_default_zoom_wherever_that_stays_on_the_grid(old):
    from scipy.ndimage import zoom

    grid = grid_of((old, 1))
    stayed = 0
    for new in range(1, 60):
        zooms = (new / old, 1, 1)
        # A grid of ones becomes zero where scipy's rounding left it.
        if (zoom(np.ones_like(grid), zooms, order=1) == 1).all() and new != old:
            stayed += 1
            assert_same(resample(grid, (new, 1), bilinear_aligned), zoom(grid, zooms, order=1))
    assert stayed > 40


def test_flexivits_bilinear_is_that_of_tensorflow():
    tf = pytest.importorskip("tensorflow")
    for source, target in PATCHES:
        basis = np.eye(math.prod(source), dtype=np.float32).reshape(*source, -1)
        theirs = tf.image.resize(basis[None], target, method="bilinear")[0].numpy()
        assert_same(resample(basis, target, bilinear), theirs)


def test_the_antialiased_filter_is_pillows():
    image = pytest.importorskip("PIL.Image")
    channel = np.random.default_rng(0).uniform(-1, 1, (13, 22)).astype(np.float32)
    for height, width in ((5, 40), (30, 9)):
        theirs = np.asarray(image.fromarray(channel).resize((width, height), image.Resampling.BICUBIC))
        assert_same(resample(channel[..., None], (height, width), bicubic_antialias)[..., 0], theirs)


@given(kinds, side, side)
def test_every_row_of_a_matrix_sums_to_one(kind, source, target):
    matrix = kind(source, target)
    assert matrix.shape == (target, source)
    assert np.abs(matrix.sum(axis=1) - 1).max() < 1e-12


@given(kinds.filter(lambda kind: kind is not bicubic_dinov2), side)
def test_the_matrix_of_an_unchanged_side_is_the_identity(kind, source):
    assert np.abs(kind(source, source) - np.eye(source)).max() < 1e-12


@given(kinds, size, size, st.floats(-9, 9, width=32))
def test_a_constant_grid_stays_constant(kind, source, target, value):
    result = resample(np.full((*source, 2), value, np.float32), target, kind)
    assert np.abs(result - np.float32(value)).max() <= 1e-6 * abs(value)


@given(kinds, size, size)
def test_transposing_the_grid_and_the_sizes_transposes_the_result(kind, source, target):
    grid = grid_of(source)
    transposed = resample(grid.transpose(1, 0, 2), target[::-1], kind)
    assert np.allclose(transposed.transpose(1, 0, 2), resample(grid, target, kind), atol=1e-5)


@given(kinds.filter(lambda kind: kind is not bicubic_dinov2), size, size)
def test_mirroring_the_grid_mirrors_the_result(kind, source, target):
    assume(kind is not bilinear_aligned or 1 not in target)  # there a single sample takes the first
    grid = grid_of(source)
    mirrored = resample(grid[::-1, ::-1], target, kind)
    assert np.allclose(mirrored[::-1, ::-1], resample(grid, target, kind), atol=1e-5)


@given(kinds, st.tuples(st.integers(6, 20), st.integers(6, 20)), st.integers(2, 4))
def test_a_smooth_grid_comes_back_after_up_and_down(kind, source, factor):
    rows, columns = np.meshgrid(*(np.linspace(0, 1, each) for each in source), indexing="ij")
    grid = np.stack([np.sin(2 * rows + columns), rows - columns * columns], axis=-1).astype(np.float32)
    enlarged = resample(grid, (source[0] * factor, source[1] * factor), kind)
    back = resample(enlarged, source, kind)
    # Half a step of the grid at the slope of these functions, which the repeated edges can cost.
    assert np.abs(back - grid).max() <= 3 * 0.5 / min(source)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unchanged_grid_or_kernel_is_returned_equal(kind):
    grid = grid_of((5, 7))
    kernel = np.random.default_rng(1).standard_normal((4, 6, 3, 5)).astype(np.float32)
    assert np.array_equal(resample(grid, (5, 7), kind), grid)
    assert np.array_equal(resample_kernel(kernel, (4, 6), kind), kernel)


def answers(patch, kernel):
    return np.einsum("hwc,hwcd->d", patch.astype(np.float64), kernel.astype(np.float64))


@given(st.sampled_from([bilinear, bicubic, bicubic_antialias]), st.integers(2, 6), st.integers(2, 6), st.data())
def test_resizing_patch_and_kernel_together_leaves_the_embedding_unchanged(kind, height, width, data):
    target = (data.draw(st.integers(height, 14)), data.draw(st.integers(width, 14)))
    rng = np.random.default_rng(5)
    patch = rng.standard_normal((height, width, 3)).astype(np.float32)
    kernel = rng.standard_normal((height, width, 3, 4)).astype(np.float32)
    before = answers(patch, kernel)
    after = answers(resample(patch, target, kind), resample_kernel(kernel, target, kind))
    assert np.abs(after - before).max() < 1e-5 * np.abs(kernel).sum(axis=(0, 1, 2)).max()


@given(st.sampled_from([bilinear, bicubic, bicubic_antialias]), size, st.data())
def test_a_smaller_kernel_gives_the_same_embedding_to_the_patches_that_shrinking_keeps(kind, source, data):
    target = (data.draw(st.integers(1, source[0])), data.draw(st.integers(1, source[1])))
    rng = np.random.default_rng(5)
    rows, columns = kind(source[0], target[0]), kind(source[1], target[1])
    patch = np.einsum("Hh,HWc,Ww->hwc", rows, rng.standard_normal((*target, 3)), columns)
    kernel = rng.standard_normal((*source, 3, 4)).astype(np.float32)
    before = answers(patch, kernel)
    smaller = np.einsum("Hh,hwc,Ww->HWc", rows, patch, columns)
    after = answers(smaller, resample_kernel(kernel, target, kind))
    assert np.abs(after - before).max() < 1e-4 * np.abs(kernel).max() * np.abs(patch).sum()


def test_a_smaller_kernel_is_the_nearest_that_there_is():
    rng = np.random.default_rng(5)
    kernel = rng.standard_normal((8, 6, 1, 1))
    shrink = np.kron(bilinear(8, 5), bilinear(6, 3))
    best = resample_kernel(kernel, (5, 3), bilinear).reshape(-1)
    left = np.linalg.norm(shrink.T @ best - kernel.reshape(-1))
    assert left > 0.1
    for _ in range(20):
        other = best + 0.05 * rng.standard_normal(best.shape)
        assert np.linalg.norm(shrink.T @ other - kernel.reshape(-1)) > left
