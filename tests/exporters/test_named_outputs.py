"""Files with outputs by name give what the reference gives, under the same names in each format, and prove each."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tarfile

import numpy as np
import onnx
import pytest
from PIL import Image

from tests.exporters.variants import every_name
from tests.features import FAMILIES
from vit_deploy import api
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.outputs import outputs_of_model
from vit_deploy.core.reference_outputs import forward_outputs
from vit_deploy.errors import ConfigError
from vit_deploy.formats.snippet import snippet
from vit_deploy.runtimes import infer_outputs, open_session
from vit_deploy.verification import records
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.locate.divergence import locate
from vit_deploy.verification.named_parity import judge_named
from vit_deploy.verification.recorded import verification_in
from vit_deploy.verification.tolerances import NO_LIMITS
from vit_deploy.verification.verifying import verify

FEW = ("logits", "map", "block_0.attention")


@pytest.fixture(scope="module")
def model(make_checkpoint) -> Checkpoint:
    return make_checkpoint(register_tokens=2, layer_scale=True)


@pytest.fixture(scope="module")
def few(model, tmp_path_factory) -> Artifact:
    """An ONNX file with three outputs."""
    folder = tmp_path_factory.mktemp("few")
    [made] = api.export(model, folder, formats="onnx", outputs=FEW)
    return made


def answers(artifact: Artifact, images: np.ndarray) -> dict[str, np.ndarray]:
    with open_session(artifact) as session:
        return dict(infer_outputs(session, artifact, images))


def test_a_file_gives_the_references_outputs_by_name(few, model, images):
    found = answers(few, images)
    expected = forward_outputs(model, images, outputs_of_model(FEW, model.config))
    assert tuple(found) == few.output_names == FEW
    for name in FEW:
        assert found[name].shape == expected[name].shape
        np.testing.assert_allclose(found[name], expected[name], atol=2e-5)


def test_the_output_that_is_read_first_is_the_logits(few, images):
    with open_session(few) as session:
        np.testing.assert_array_equal(session.infer(images), session.infer_outputs(images)["logits"])


def test_each_output_is_proven_and_has_its_own_tolerance(few):
    proof = verify(few)
    assert proof.ok
    assert tuple(proof.outputs) == FEW
    record = records.verification(proof)
    assert set(record["outputs"]) == set(FEW)
    floors = [proof.outputs[name].tolerance.max_abs for name in FEW]
    assert len(set(floors)) == len(FEW)
    assert record["outputs"]["block_0.attention"]["metrics"]["total_variation"] < 1e-5
    assert "token_cosine" in record["outputs"]["map"]["metrics"]
    assert "total_variation" not in record["outputs"]["map"]["metrics"]


def test_one_failing_output_fails_the_artifact_and_is_named(few):
    golden = read_golden(few)
    wrong = dataclasses.replace(golden.named["map"], values=golden.named["map"].values + 0.01)
    proof = verify(few, golden=dataclasses.replace(golden, named={**golden.named, "map": wrong}))
    assert not proof.ok
    assert [name for name, parity in proof.outputs.items() if not parity.ok] == ["map"]
    assert proof.parity.failures[0].startswith("map: largest difference 0.01")
    assert records.verification(proof)["outputs"]["map"]["ok"] is False


def test_a_changed_weight_fails_the_outputs_behind_it(few, tmp_path):
    damaged = dataclasses.replace(few, directory=tmp_path)
    graph = onnx.load(few.model_path)
    [weight] = [tensor for tensor in graph.graph.initializer if tensor.name == "block_1.ffn.down.bias"]
    values = onnx.numpy_helper.to_array(weight) + np.linspace(0, 1, 12, dtype=np.float32)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(graph, damaged.model_path)
    proof = verify(damaged, golden=read_golden(few))
    assert [name for name, parity in proof.outputs.items() if not parity.ok] == ["logits", "map"]
    assert {failure.partition(":")[0] for failure in proof.failures} == {"logits", "map"}


def test_an_output_that_is_not_finite_fails_where_no_row_of_it_is_kept(few):
    golden = read_golden(few)
    part = dataclasses.replace(golden.named["map"].kept, rows=np.array([0]))
    kept = dataclasses.replace(golden.named["map"], kept=part)

    values = answers(few, golden.images)["map"]
    values[:, -1, -1] = np.nan
    [output] = outputs_of_model(["map"], few.config)
    changed = dataclasses.replace(golden, named={"map": kept})
    assert "NaN" in judge_named(values, output, changed, few, NO_LIMITS, "fp32").failures[0]


def operators(artifact: Artifact) -> list[str]:
    return [node.op_type for node in onnx.load(artifact.model_path).graph.node]


def test_the_last_block_computes_no_more_than_what_is_read(few, model, tmp_path):
    [one] = api.export(model, tmp_path, formats="onnx", outputs=("logits", "class_token", "block_0.map"))
    assert "Gather" in operators(one)  # the class token alone goes through the last block
    assert "Gather" not in operators(few)


def test_logits_alone_make_the_usual_file(model, tmp_path):
    [usual] = api.export(model, tmp_path / "usual", formats="onnx")
    [named] = api.export(model, tmp_path / "named", formats="onnx", outputs="logits")
    assert named.files == usual.files and not named.outputs


def test_what_no_output_reads_is_left_out(model, tmp_path):
    [made] = api.export(model, tmp_path, formats="onnx", outputs=("block_0", "block_0.attention"))
    names = {tensor.name for tensor in onnx.load(made.model_path).graph.initializer}
    assert (made.config.num_layers, made.config.include_top, made.config.last_norm) == (1, False, False)
    assert not [name for name in names if name.startswith(("block_1", "norm", "head"))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": "block_9.map"}, "the blocks are block_0 to block_1"),
        ({"outputs": ("features", "class_token")}, "the same numbers in this model"),
        ({"outputs": "map", "formats": "tensorrt"}, "TensorRT files have one output, and --output is map"),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_anything_is_written(model, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        api.export(model, tmp_path / "made", **{"formats": "onnx", **options})
    assert not (tmp_path / "made").exists()


def test_probabilities_are_sigmoids_where_classes_exclude_no_other(model, images, tmp_path):
    several = dataclasses.replace(model, config=model.config.replace(probabilities="sigmoid"))
    done = api.export(several, tmp_path, formats="onnx", outputs=("logits", "probabilities"))
    assert done.notes == ("probabilities are sigmoids of the logits, as the model says",)
    [made] = done
    found = answers(made, images)
    np.testing.assert_allclose(found["probabilities"], 1 / (1 + np.exp(-found["logits"])), atol=1e-6)


def test_pixels_and_channels_first_go_in_as_well(model, tmp_path):
    shaped = {"layout": "nchw", "include_preprocessing": True, "batch": 2}
    [made] = api.export(model, tmp_path, formats="onnx", outputs=("map", "class_token"), **shaped)
    assert verify(read_artifact(made.directory)).ok
    assert made.to_dict()["outputs"][0]["shape"] == [2, 3, 8, 12]


@pytest.fixture(scope="module")
def all_formats(model, tmp_path_factory) -> dict[str, Artifact]:
    """A file of each format with every output."""
    made = api.export(model, tmp_path_factory.mktemp("all"), formats=FORMATS, outputs=every_name(model))
    return {artifact.format: artifact for artifact in made}


FORMATS = ("onnx", "tflite", "savedmodel")


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_every_name_is_the_same_in_every_format(all_formats, model, images, format):
    artifact = read_artifact(all_formats[format].directory)
    names = every_name(model)
    assert len(names) == 24
    found, expected = answers(artifact, images), forward_outputs(model, images, outputs_of_model(names, model.config))
    assert list(found) == names
    for name in names:
        assert found[name].shape == expected[name].shape
        np.testing.assert_allclose(found[name], expected[name], atol=5e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_the_snippet_of_a_file_with_outputs_runs_and_tells_their_shapes(all_formats, format, tmp_path):
    artifact = all_formats[format]
    program, image = tmp_path / "program.py", tmp_path / "image.png"
    program.write_text(snippet(artifact), encoding="utf-8")
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(image)
    done = subprocess.run([sys.executable, program, image], capture_output=True, text=True, check=True)
    assert "block_0.map (1, 3, 8, 12)" in done.stdout and "probabilities (1, 5)" in done.stdout


@pytest.mark.slow
def test_every_precision_proves_every_output(model, tmp_path):
    names = ("logits", "probabilities", "map", "block_0.map", "block_1.attention")
    precisions = ("fp16", "int8", "int8-static", "int8-full", "int4")
    made = api.export(model, tmp_path, formats=("onnx", "tflite"), precisions=precisions, outputs=names)
    assert len(made) == 9
    for artifact in made:
        assert set(verify(read_artifact(artifact.directory)).outputs) == set(names)
    [whole] = [artifact for artifact in made if artifact.precision == "int8-full"]
    assert {spec.dtype for spec in whole.outputs.values()} <= {"int8", "int16"}
    assert len({spec.scale for spec in whole.outputs.values()}) > 2


def test_a_proof_on_another_machine_tells_of_every_output(few):
    proof = verify(few)
    there = verification_in({**records.verification(proof), "on": "ssh://pi"}, few)
    assert there.outputs.keys() == proof.outputs.keys()
    for name, parity in proof.outputs.items():
        assert there.outputs[name].max_abs == parity.max_abs and there.outputs[name].ok
        assert there.outputs[name].compared == parity.compared


def test_an_archive_proves_every_output_where_it_is_unpacked(few, tmp_path):
    api.bundle([few], tmp_path / "archive.tar.gz")
    with tarfile.open(tmp_path / "archive.tar.gz") as archive:
        archive.extractall(tmp_path / "there", filter="data")
    [runner] = (tmp_path / "there").rglob("run.py")
    done = subprocess.run(
        [sys.executable, runner, "verify", "--json"], capture_output=True, text=True, cwd=runner.parent
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["results"][0]["outputs"]) == set(FEW)


def untold(artifact: Artifact) -> list[str]:
    """The activations of a sound file that cannot be compared."""
    located = locate(artifact)
    assert located.activation is None
    return [activation.name for activation in located.activations if activation.note]


def test_every_part_of_a_file_with_outputs_is_looked_into(few):
    assert untold(few) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "left"),
    [
        (("logits", "map", "block_0.attention", "block_1"), []),
        (("probabilities", "block_0"), []),
        (("block_1.attention", "class_token", "block_0"), []),
        (("map", "block_0.normed.map"), ["head"]),  # which would be all tokens
    ],
)
def test_every_part_is_looked_into_whatever_the_outputs(make_checkpoint, tmp_path, names, left):
    for made in api.export(make_checkpoint(), tmp_path, formats=FORMATS, outputs=names):
        assert untold(made) == left


FOLDED = ("post-norm behind a norm, probe", "averaged patches, norm after", "prefix of five, class token", "BEiT")


@pytest.mark.slow
@pytest.mark.parametrize("family", FOLDED)
def test_norms_that_projections_take_up_are_whole_again_in_outputs(make_checkpoint, images, tmp_path, family):
    checkpoint = make_checkpoint(**FAMILIES[family])
    names = every_name(checkpoint)
    [made] = api.export(checkpoint, tmp_path, formats="tflite", outputs=names)
    found, expected = (
        answers(made, images),
        forward_outputs(checkpoint, images, outputs_of_model(names, checkpoint.config)),
    )
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)
