"""Layers of a TFLite file whose outliers leave a fixed range of 8 bits too coarse."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from tests.exporters.variants import exported, pixels, trained
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.exporters.quantization.clipping import NOTHING, signal_to_noise_db
from vit_deploy.exporters.quantization.coarse_ranges import FLOAT, LEAST_DB, RECORD, WIDE, notes_on_coarse_ranges
from vit_deploy.exporters.quantization.outputs import answers, cosines
from vit_deploy.exporters.tflite.export import TFLiteExporter
from vit_deploy.exporters.tflite.layers import operators
from vit_deploy.exporters.tflite.quantize import TFLiteQuantizer
from vit_deploy.exporters.tflite.recipes import TFLITE_RECIPES
from vit_deploy.exporters.tflite.squares import with_products_for_squares
from vit_deploy.formats.accelerators import ACCELERATORS, fallbacks, verdict
from vit_deploy.formats.tflite.file import root

STATIC, FULL = TFLITE_RECIPES["int8-static"], TFLITE_RECIPES["int8-full"]
PRODUCTS = "block_0.attention.products"
MASSIVE = 400.0


@pytest.fixture(scope="module", autouse=True)
def all_tokens_alike():
    """What a class token counts for in ranges is another matter: see `test_class_token_ranges`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vit_deploy.exporters.tflite.quantize.tokens_beside_summary", lambda config: 0)
        yield


@pytest.fixture(scope="module")
def massive(tmp_path_factory):
    """A model whose first feed-forward writes one channel hundreds of times as large as the rest, into a stream that
    the second takes it out of again; and images."""
    checkpoint = trained(embed_dim=48, mlp_dim=64, num_heads=2)
    weights = dict(checkpoint.weights)
    for sign, index in ((1, 0), (-1, 1)):
        bias = weights[f"block_{index}.ffn.down.bias"].copy()
        bias[5] += sign * MASSIVE
        weights[f"block_{index}.ffn.down.bias"] = bias
    checkpoint = dataclasses.replace(checkpoint, weights=weights)
    folder = tmp_path_factory.mktemp("massive")
    source = exported(TFLiteExporter(), checkpoint, folder, ExportOptions(batch=1))
    return source, checkpoint.preprocess.normalize(pixels(checkpoint, 8))


def made(source, images, folder, base=STATIC, **changes):
    folder.mkdir()
    recipe = dataclasses.replace(base, **changes)
    target = dataclasses.replace(
        source, directory=folder, precision=recipe.precision, options={"recipe": recipe.to_dict()}
    )
    return TFLiteQuantizer().write(source, target, recipe, Calibration(images, (), 0, "tests"))


def test_layers_with_massive_activations_find_their_ranges_as_they_run_and_say_so(massive, tmp_path, monkeypatch):
    source, images = massive
    artifact = made(source, images, tmp_path / "mended")
    layers = artifact.options["recipe"][RECORD]
    assert {"block_0.ffn.down", "block_1.ffn.down"} <= set(layers)
    (note,) = notes_on_coarse_ranges(artifact)
    assert "block_0" in note and "find ranges of activations as they run" in note
    monkeypatch.setattr("vit_deploy.exporters.tflite.coarse.LEAST_DB", -np.inf)
    plain = made(source, images, tmp_path / "plain")
    assert RECORD not in plain.options["recipe"] and notes_on_coarse_ranges(plain) == []
    exact = answers(source, images)
    mended, before = (1 - cosines(answers(each, images), exact).min() for each in (artifact, plain))
    assert mended < before / 4
    assert artifact.model_bytes < 1.05 * plain.model_bytes


@pytest.fixture(scope="module")
def sinking(tmp_path_factory):
    """A model whose first attention looks at the class token alone, so that the others have shares of some thousandths,
    and images."""
    checkpoint = trained(embed_dim=48, mlp_dim=64, num_heads=2)
    weights = {name: values.copy() for name, values in checkpoint.weights.items()}
    weights["pos_embed.table"][0, 7] += 100  # which the norm leaves as nearly the root of the channels
    weights["block_0.attention.key.kernel"][7] = 1
    weights["block_0.attention.query.bias"][:] = 22 / np.sqrt(48 * checkpoint.config.head_dim)
    checkpoint = dataclasses.replace(checkpoint, weights=weights)
    source = exported(TFLiteExporter(), checkpoint, tmp_path_factory.mktemp("sinking"), ExportOptions(batch=1))
    return source, checkpoint.preprocess.normalize(pixels(checkpoint, 8))


def test_attention_whose_shares_are_smaller_than_a_step_is_computed_in_float(sinking, tmp_path, monkeypatch):
    source, images = sinking
    artifact = made(source, images, tmp_path / "mended")
    assert artifact.options["recipe"][FLOAT] == ["block_0.attention.products"]
    (note,) = (note for note in notes_on_coarse_ranges(artifact) if "in float" in note)
    assert "block_0.attention.products" in note and "shares of attention" in note
    monkeypatch.setattr("vit_deploy.exporters.tflite.coarse.LEAST_SHARES_DB", -np.inf)
    plain = made(source, images, tmp_path / "plain")
    assert FLOAT not in plain.options["recipe"]
    assert [products(each) for each in (artifact, plain)] == [Counter(INT8=2, FLOAT32=2), Counter(INT8=4)]
    assert cosines(answers(artifact, images), answers(source, images)).min() > 0.999


@pytest.fixture(scope="module")
def in_integers(sinking, tmp_path_factory):
    """The model in integers alone as calibration finds it, and with 8 bits asked for."""
    folder = tmp_path_factory.mktemp("in_integers")
    found = made(*sinking, folder / "found", FULL)
    return found, made(*sinking, folder / "asked", FULL, fixed_attention_bits=True)


def test_in_a_file_of_integers_alone_it_has_16_bits_unless_8_are_asked_for(sinking, in_integers):
    assert [PRODUCTS in each.options["recipe"]["wide_layers"] for each in in_integers] == [True, False]
    assert [products(each) for each in in_integers] == [Counter(INT16=2, INT8=2), Counter(INT8=4)]
    found, asked = ([note for note in notes_on_coarse_ranges(each) if PRODUCTS in note] for each in in_integers)
    assert asked == []
    assert "less than 20 dB of the shares" in found[0] and "Ethos-U55 and U65 leave them to the CPU" in found[0]
    source, images = sinking
    exact = answers(source, images)
    better, worse = (1 - cosines(answers(each, images), exact).mean() for each in in_integers)
    assert better < 0.9 * worse, (better, worse)


@pytest.mark.parametrize("bits", [8, 16])
def test_bits_asked_for_of_residual_sums_do_not_stop_attention_from_getting_16(sinking, tmp_path, bits):
    asked = made(*sinking, tmp_path / "asked", FULL, residual_bits=bits, fixed_residual_bits=True)
    recipe = asked.options["recipe"]
    assert (PRODUCTS in recipe["wide_layers"], recipe.get(WIDE, False)) == (True, bits == 16)
    assert products(asked) == Counter(INT16=2, INT8=2)


def test_16_bits_asked_for_of_residual_sums_are_no_less_than_what_calibration_asks_for(massive, wide, tmp_path):
    asked = made(*massive, tmp_path / "asked", FULL, residual_bits=16, fixed_residual_bits=True)
    assert asked.model_path.read_bytes() == wide.model_path.read_bytes()


def test_nor_do_squares_of_8_bits_or_layers_that_are_fine(sinking, tmp_path, monkeypatch):
    monkeypatch.setattr("vit_deploy.exporters.tflite.widening.has_squared_differences", lambda model: True)
    squared = made(*sinking, tmp_path / "squared", FULL)
    monkeypatch.setattr("vit_deploy.exporters.tflite.widening.coarse_layers", lambda *_: ())
    fine = made(*sinking, tmp_path / "fine", FULL)
    for artifact in (squared, fine):
        assert products(artifact) == Counter(INT16=2, INT8=2)
        assert WIDE not in artifact.options["recipe"] and artifact.options["recipe"]["residual_bits"] == 8
        (note,) = notes_on_coarse_ranges(artifact)
        assert PRODUCTS in note and "norms" not in note


@pytest.fixture(scope="module")
def wide(massive, tmp_path_factory):
    """The model with massive activations in integers alone."""
    artifact = made(*massive, tmp_path_factory.mktemp("wide") / "made", FULL)
    assert given(artifact)["INT16"] >= 2
    return artifact


def left(found):
    return {each.operator: each.count for each in found}


def test_layers_of_16_bits_stay_on_the_npu_and_such_products_do_not_on_all(wide, in_integers):
    devices = [ACCELERATORS[name] for name in ("ethos-u", "ethos-u85")]
    found = [[left(fallbacks(each.model_path, device)) for device in devices] for each in (wide, *in_integers)]
    assert found == [[{}, {}], [{"BATCH_MATMUL": 2}, {}], [{}, {}]]


def test_the_compiler_says_so_too(wide, in_integers):
    pytest.importorskip("ethosu", reason="needs ethos-u-vela")
    told = [verdict(each.model_path, ACCELERATORS["ethos-u"]) for each in (wide, in_integers[0])]
    assert [each.source["by"] for each in told] == ["compiler", "compiler"]
    assert [left(each.left) for each in told] == [{}, {"BATCH_MATMUL": 2}]


def test_devices_of_8_bits_leave_layers_of_16_to_the_cpu(wide):
    told = fallbacks(wide.model_path, ACCELERATORS["coral"])
    (count,) = (each.count for each in told if (each.operator, each.reason) == ("FULLY_CONNECTED", "computes in int16"))
    assert count == given(wide)["INT16"]
    assert fallbacks(wide.model_path, ACCELERATORS["hexagon-v68"]) == ()


def test_in_a_file_of_integers_alone_layers_that_write_massive_activations_have_16_bits(massive, tmp_path, monkeypatch):
    source, images = massive
    wide = made(source, images, tmp_path / "wide", FULL)
    monkeypatch.setattr("vit_deploy.exporters.tflite.widening.WRITERS", ())
    narrow = made(source, images, tmp_path / "narrow", FULL)
    named = wide.options["recipe"]["wide_layers"]
    assert {"block_0.ffn.down", "block_1.ffn.down"} <= set(named) and narrow.options["recipe"]["wide_layers"] == []
    assert all(name.endswith((".attention.out", ".ffn.down")) for name in named)
    assert given(wide)["INT16"] == len(named) and given(narrow)["INT16"] == 0
    assert sum(given(wide).values()) == sum(given(narrow).values())
    exact = answers(source, images)
    better, worse = (1 - cosines(answers(each, images), exact).mean() for each in (wide, narrow))
    assert better < 0.7 * worse, (better, worse)


def given(artifact):
    """Layers by the type of what they give."""
    return of_kind(artifact, "FULLY_CONNECTED")


def products(artifact):
    """Products of attention by the type of what they give."""
    return of_kind(artifact, "BATCH_MATMUL")


def of_kind(artifact, kind):
    model = root(memoryview(artifact.model_path.read_bytes()))
    tensors = model.graph.tensors
    found = (step for step in operators(model.graph, model) if step.kind == kind)
    return Counter(tensors[step.outputs[0]].dtype.upper() for step in found)


def test_layers_that_stay_in_float_are_not_among_them(massive, tmp_path):
    source, images = massive
    artifact = made(source, images, tmp_path / "kept", keep_float=("block_0.ffn.down",))
    assert "block_0.ffn.down" not in artifact.options["recipe"][RECORD]


def test_a_file_of_integers_alone_has_norms_of_16_bits_and_says_so(tmp_path, monkeypatch):
    checkpoint = trained(embed_dim=48, mlp_dim=64, num_heads=2)
    positions = checkpoint.weights["pos_embed.table"].copy()
    positions[:, 5] += 40  # which the whole stream then has
    checkpoint = dataclasses.replace(checkpoint, weights={**checkpoint.weights, "pos_embed.table": positions})
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 8))
    source = exported(TFLiteExporter(), checkpoint, tmp_path, ExportOptions(batch=1))
    mended = made(source, images, tmp_path / "mended", FULL)
    eight = made(source, images, tmp_path / "asked", FULL, fixed_residual_bits=True)
    monkeypatch.setattr("vit_deploy.exporters.tflite.coarse.LEAST_DB", -np.inf)
    plain = made(source, images, tmp_path / "plain", FULL)
    assert WIDE not in eight.options["recipe"] and eight.options["recipe"]["residual_bits"] == 8
    assert mended.options["recipe"][WIDE] and mended.options["recipe"]["residual_bits"] == 16
    assert RECORD not in mended.options["recipe"] and WIDE not in plain.options["recipe"]
    (note,) = notes_on_coarse_ranges(mended)
    assert "norms, residual sums and the layers" in note and mended.options["recipe"]["attention_bits"] == 8
    exact = answers(source, images)
    better, worse = (1 - cosines(answers(each, images), exact).mean() for each in (mended, plain))
    assert better < worse / 2, (better, worse)


@pytest.mark.parametrize("rewritten", [True, False])
def test_16_bits_are_said_only_where_squares_have_them_too(rewritten, tmp_path, monkeypatch):
    checkpoint = trained(
        include_top=False, embed_dim=48, mlp_dim=64, num_heads=2
    )  # whose last norm squares differences
    positions = checkpoint.weights["pos_embed.table"].copy()
    positions[:, 5] += 40
    checkpoint = dataclasses.replace(checkpoint, weights={**checkpoint.weights, "pos_embed.table": positions})
    source = exported(TFLiteExporter(), checkpoint, tmp_path, ExportOptions(batch=1))
    if not rewritten:
        monkeypatch.setattr("vit_deploy.exporters.tflite.widening.with_products_for_squares", bytearray)
    artifact = made(source, checkpoint.preprocess.normalize(pixels(checkpoint, 4)), tmp_path / "made", FULL)
    assert (WIDE in artifact.options["recipe"]) is rewritten


def test_squares_of_norms_become_products_of_the_same_function(tmp_path):
    checkpoint = trained(include_top=False, num_layers=1)  # whose last norm has a bias, so that norms take means
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))
    source = exported(TFLiteExporter(), checkpoint, tmp_path, ExportOptions(batch=1))
    content = source.model_path.read_bytes()
    kinds = {name: Counter(step.kind for step in steps(each)) for name, each in written(content).items()}
    assert kinds["before"]["SQUARED_DIFFERENCE"] == 3 and not kinds["after"]["SQUARED_DIFFERENCE"]
    assert kinds["after"]["MUL"] == kinds["before"]["MUL"] + 3
    before = answers(source, images)
    source.model_path.write_bytes(written(content)["after"])
    np.testing.assert_allclose(answers(source, images), before, rtol=0, atol=1e-5)
    assert written(bytes(written(content)["after"]))["after"] == written(content)["after"]


def written(content):
    return {"before": content, "after": bytes(with_products_for_squares(content))}


def steps(content):
    model = root(memoryview(content))
    return operators(model.graph, model)


def test_what_is_left_of_the_usual_values_is_measured_beside_outliers():
    values = np.random.default_rng(0).uniform(-1, 1, 100000).astype(np.float32)
    seen = NOTHING.also(values, counted=True)
    assert signal_to_noise_db(seen, -1, 1, bits=8) == pytest.approx(20 * np.log10(2**8 - 1), abs=1.5)
    outlier = NOTHING.also(np.append(values, np.float32(300)), counted=True)
    assert signal_to_noise_db(outlier, -1, 300, bits=8) < LEAST_DB
    zeros = NOTHING.also(np.zeros(10, np.float32), counted=True)
    assert signal_to_noise_db(zeros, 0, 0, bits=8) == np.inf
