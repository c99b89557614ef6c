from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vit_deploy.core.artifact import describe
from vit_deploy.core.choices import Probabilities
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.input_output import InputSpec, OutputSpec
from vit_deploy.core.outputs import outputs_of_model
from vit_deploy.errors import ArtifactError
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.metrics import measure
from vit_deploy.verification.named_golden import FEWEST, NUMBERS, SUMS, kept_of
from vit_deploy.verification.named_parity import worst_of
from vit_deploy.verification.recording import golden_pixels, record, write_golden
from vit_deploy.verification.tolerances import tolerance_for

BASE = ViTConfig.from_scale("base")


@pytest.mark.parametrize("name", ["block_3.attention", "tokens", "block_2.map", "class_token"])
def test_golden_data_stay_bounded_whatever_the_output(name):
    output = outputs_of_model([name, *(["tokens"] if name != "tokens" else [])], BASE)[0]
    kept = kept_of(output, BASE, 8, 3)
    rows = kept.of_rows if kept.rows is None else len(kept.rows) + SUMS
    assert kept.images * rows * output.shape(BASE)[-1] <= NUMBERS / 3
    assert FEWEST <= kept.images <= 8


def test_a_row_that_is_not_kept_shows_in_the_sums():
    [output, _] = outputs_of_model(["block_3.attention", "tokens"], BASE)
    kept = kept_of(output, BASE, 8, 3)
    values = np.random.default_rng(0).random((FEWEST, *output.shape(BASE))).astype(np.float32)
    changed = values.copy()
    row = next(row for row in range(kept.of_rows) if row not in set(kept.rows.tolist()))
    changed.reshape(FEWEST, kept.of_rows, -1)[1, row] += 1
    apart = np.abs(kept.of(changed, output.name) - kept.of(values, output.name))
    assert apart[:, : len(kept.rows)].max() == 0
    assert (apart[1, len(kept.rows) :].max(axis=-1) > 0.01).all()


def test_few_images_are_recorded_where_the_first_output_is_large():
    large = outputs_of_model(["block_3.attention", "block_3"], ViTConfig.from_scale("tiny", num_heads=6))
    assert len(golden_pixels(ViTConfig.from_scale("tiny", num_heads=6), large)) == FEWEST


@pytest.fixture
def recorded(checkpoint, tmp_path):
    names = ("logits", "map", "block_0.attention")
    spec = InputSpec((None, *checkpoint.config.image_size, 3))
    specs = {name: OutputSpec() for name in names}
    artifact = describe(checkpoint, tmp_path, format="onnx", precision="fp32", input=spec, outputs=specs)
    golden = record(checkpoint, outputs=outputs_of_model(names, checkpoint.config))
    write_golden(golden, tmp_path)
    return artifact, golden


def test_what_is_written_is_read_again(recorded):
    artifact, golden = recorded
    found = read_golden(artifact)
    assert found.named.keys() == golden.named.keys() == {"map", "block_0.attention"}
    for name, part in golden.named.items():
        np.testing.assert_array_equal(found.named[name].values, part.values)
        assert found.named[name].noise_floor == part.noise_floor > 0
        assert found.named[name].kept.to_dict() == part.kept.to_dict()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda arrays: arrays.pop("outputs.map"), "outputs.map.npy"),
        (lambda arrays: arrays.update({"outputs.map": arrays["outputs.map"][:, 1:]}), "which is no part of it"),
        (lambda arrays: arrays.update({"outputs.names": arrays["outputs.names"][:1]}), "the file's other outputs are"),
        (lambda arrays: arrays.update({"outputs.noise_floors": np.zeros(2)}), "the noise floors of its outputs are"),
    ],
)
def test_damaged_data_of_an_output_are_refused(recorded, damage, message):
    artifact, _ = recorded
    path = artifact.directory / "golden.npz"
    with np.load(path) as file:
        arrays = dict(file)
    damage(arrays)
    np.savez_compressed(path, **arrays)
    with pytest.raises(ArtifactError, match=message):
        read_golden(artifact)


def test_the_total_variation_is_that_of_the_worst_distribution():
    truth = np.array([[[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]])
    found = np.array([[[0.5, 0.5, 0.0], [0.4, 0.2, 0.4]]])
    assert measure(found, truth, classes=False, shares=Probabilities.SOFTMAX).total_variation == pytest.approx(0.2)
    assert measure(found, truth, classes=False, shares=Probabilities.SIGMOID).total_variation == pytest.approx(0.2)
    assert measure(found, truth, classes=False).total_variation is None
    sigmoids = measure(found[0], truth[0], classes=True, shares=Probabilities.SIGMOID)
    assert sigmoids.kl is None and sigmoids.top1_agreement == 0.5


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-static", "int8-full", "int16x8", "int4", "bf16", "tf32"])
def test_probabilities_of_every_precision_are_held_to_their_distance(precision):
    held = tolerance_for(precision, 1e-6, shares=True)
    assert 0 < held.total_variation <= 0.25
    assert held.snr_db is None and held.centred_cosine == tolerance_for(precision, 1e-6).centred_cosine
    assert tolerance_for("fp32", 1e-6, shares=True) == tolerance_for("fp32", 1e-6)


def test_the_worst_output_speaks_for_all(recorded):
    from vit_deploy.verification.parity import compare

    good = compare(np.zeros((2, 3)), np.zeros((2, 3)), 1e-3, classes=False)
    near = compare(np.full((2, 3), 9e-4), np.zeros((2, 3)), 1e-3, classes=False)
    bad = compare(np.ones((2, 3)), np.zeros((2, 3)), 1e-3, classes=False)
    assert worst_of({"a": good, "b": near}) == near
    worst = worst_of({"a": good, "b": bad, "c": dataclasses.replace(bad, inconclusive=True)})
    assert [failure.partition(":")[0] for failure in worst.failures] == ["b", "c"] and not worst.inconclusive
