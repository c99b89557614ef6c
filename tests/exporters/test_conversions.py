"""Files for the converters of makers: what is set for each, what is refused, and the command that is told."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jsonschema
import onnx
import pytest
import tensorflow as tf

import vit_deploy
from vit_deploy.cli import run
from vit_deploy.core.conversion import Conversion
from vit_deploy.core.input_output import OutputSpec
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import ArtifactError, ConfigError
from vit_deploy.exporters.conversions import conversion
from vit_deploy.exporters.plan import plan
from vit_deploy.formats.inspect import inspect


@pytest.fixture(scope="module")
def made(make_checkpoint, tmp_path_factory):
    """Artifacts by what they are made for."""
    folder = tmp_path_factory.mktemp("made")
    return {
        target: vit_deploy.export(make_checkpoint(), folder / target, target=target)[0] for target in ("rknn", "coreml")
    }


def test_each_target_sets_what_its_converter_needs():
    [rockchip], [sophgo], [apple] = (
        plan([format], ["fp32"], target=target)[0]
        for format, target in (("onnx", "rknn"), ("onnx", "tpu-mlir"), ("savedmodel", "coreml"))
    )
    assert (rockchip.options.batch, rockchip.options.opset, rockchip.options.layout) == (1, 19, "nchw")
    assert (sophgo.options.batch, sophgo.options.opset, sophgo.options.layout) == (1, 19, "nchw")
    assert (apple.options.batch, apple.options.layout) == (1, "nhwc")
    assert plan(["onnx"], ["fp32"], target="rknn", opset=17)[0][0].options.opset == 17
    assert plan(["onnx"], ["fp32"], target="tpu-mlir", batch=4)[0][0].options.batch == 4


REFUSED = {
    "rknn reads files up to opset 19, and --opset is 20": {"opset": 20},
    "rknn reads files of one image a call, and --batch is 2": {"batch": 2},
    "files for rknn have a fixed batch, and --batch is dynamic": {"batch": "dynamic"},
    "rknn reads files whose input is float32, and --include-preprocessing makes it uint8 pixels": {
        "include_preprocessing": True
    },
    "onnx for rknn has none of the precisions int8-static": {"precisions": ["int8-static"]},
    "files for rknn are ONNX, and the formats are tflite": {"formats": ["tflite"]},
    "files for coreml are SavedModel, and the formats are onnx, savedmodel": {
        "formats": ["onnx", "savedmodel"],
        "target": "coreml",
    },
    "coreml reads files whose input is float32, and --include-preprocessing makes it uint8 pixels": {
        "formats": ["savedmodel"],
        "target": "coreml",
        "include_preprocessing": True,
    },
    "tpu-mlir reads files up to opset 19, and --opset is 21": {"target": "tpu-mlir", "opset": 21},
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_a_converter_cannot_take_is_refused_with_a_fix(said):
    with pytest.raises(ConfigError) as caught:
        plan(**{"formats": ["onnx"], "precisions": ["fp32"], "target": "rknn"} | REFUSED[said])
    assert caught.value.message == said and caught.value.fix


def test_a_file_for_rockchip_is_of_opset_19_for_one_image_in_nchw(made):
    model = onnx.load(made["rknn"].model_path)
    assert model.opset_import[0].version == 19
    assert [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 24, 32]


def test_a_file_for_core_ml_has_no_operator_that_its_converter_does_not_know(made, bundles):
    def operators(path: Path) -> set[str]:
        loaded = tf.saved_model.load(str(path)).signatures["serving_default"]
        nested = [node.op for function in loaded.graph.as_graph_def().library.function for node in function.node_def]
        return {node.op for node in loaded.graph.as_graph_def().node} | set(nested)

    assert "Erfc" in operators(bundles["savedmodel"] / "saved_model")
    found = operators(made["coreml"].model_path)
    assert "Erf" in found and "Erfc" not in found


def test_the_manifest_has_the_command_as_the_schema_says(made):
    schema = json.loads(Path(vit_deploy.__file__).with_name("core").joinpath("artifact.schema.json").read_text())
    for target, artifact in made.items():
        jsonschema.validate(json.loads((artifact.directory / "artifact.json").read_text()), schema)
        found = Conversion.of(read_artifact(artifact.directory))
        assert found is not None and artifact.model_path.name in found.command, target
    assert "mean_values=[[127.5, 127.5, 127.5]]" in Conversion.of(made["rknn"]).command
    of_apple = Conversion.of(made["coreml"]).command
    assert "{'Identity': 'logits'}" in of_apple and "compute_precision=ct.precision.FLOAT16" in of_apple


def test_outputs_of_a_core_ml_program_are_named_in_the_order_of_the_signature_and_have_no_dots(made):
    outputs = dict.fromkeys(["tokens", "block_0.attention", "logits"], OutputSpec())
    of_several = conversion(replace(made["coreml"], outputs=outputs))
    assert "{'Identity': 'block_0_attention', 'Identity_1': 'logits', 'Identity_2': 'tokens'}" in of_several.command


def test_the_command_is_told_after_an_export_and_by_inspect_and_a_card(made, make_checkpoint, tmp_path, capsys):
    done = vit_deploy.export(make_checkpoint(), tmp_path / "again", target="tpu-mlir")
    [note] = [note for note in done.notes if "tpu-mlir" in note]
    assert "model_transform.py --model_name vit --model_def model.onnx --input_shapes '[[1,3,24,32]]'" in note
    assert done.to_dict()["results"][0]["converter"]["converter"] == "tpu-mlir"
    assert run(["inspect", str(made["rknn"].directory)]) == 0
    assert "converted by rknn-toolkit2" in " ".join(capsys.readouterr().out.split())
    assert inspect(made["rknn"].directory).to_dict()["converter"]["version"] == "2.5.0"
    assert run(["card", str(made["rknn"].directory), "-o", str(tmp_path / "README.md")]) == 0
    page = (tmp_path / "README.md").read_text()
    assert "## Convert it" in page and 'rknn.load_onnx("model.onnx")' in page


def changed(artifact, folder: Path, record: object) -> Path:
    """A copy of an artifact whose manifest records another converter."""
    shutil.copytree(artifact.directory, folder)
    manifest = json.loads((folder / "artifact.json").read_text())
    manifest["options"]["converter"] = record
    (folder / "artifact.json").write_text(json.dumps(manifest))
    return folder


WHOLE = {"converter": "a", "version": "1", "install": "b", "command": "c"}


@pytest.mark.parametrize("record", ["x", {"x": 1}, {**WHOLE, "command": None}, {**WHOLE, "more": "x"}, []])
def test_a_damaged_record_of_a_converter_is_one_error(made, tmp_path, record, capsys):
    folder = changed(made["rknn"], tmp_path / "damaged", record)
    with pytest.raises(ArtifactError, match=r"artifact\.json is damaged: converter is .*expected an object") as caught:
        Conversion.of(read_artifact(folder))
    assert caught.value.fix == "export the model again"
    for command in (
        ["inspect", str(folder)],
        ["inspect", str(folder), "--json"],
        ["card", str(folder), "-o", str(tmp_path / "README.md")],
    ):
        assert run(command) == 2
        assert "artifact.json is damaged" in "".join(capsys.readouterr())


def test_a_command_does_not_leave_its_block_of_the_card(made, tmp_path):
    folder = changed(made["rknn"], tmp_path / "odd", {**WHOLE, "command": "a\n```\n# Buy\n````\nb"})
    assert run(["card", str(folder), "-o", str(tmp_path / "README.md")]) == 0
    assert "\n`````bash\na\n```\n# Buy\n````\nb\n`````\n" in (tmp_path / "README.md").read_text()


def test_quantizing_such_a_file_is_left_to_its_converter(made, tmp_path):
    with pytest.raises(ConfigError, match="onnx for rknn cannot be quantized to 'int8-static'") as caught:
        vit_deploy.quantize(made["rknn"], tmp_path, precisions="int8-static")
    assert caught.value.fix == "let what reads the file quantize it"
