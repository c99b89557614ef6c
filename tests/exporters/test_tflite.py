import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.exporters.tflite_files import left_out, opened
from tests.exporters.variants import VARIANTS, assert_same_function, exported, pixels, trained
from tests.features import FAMILIES
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.reference import forward
from vit_deploy.errors import EngineError, ExportError
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.folding import fold_layer_scales, fold_norms, fold_preprocessing
from vit_deploy.exporters.tflite import export as exporter_module
from vit_deploy.exporters.tflite.export import TFLiteExporter
from vit_deploy.formats.tflite import read_graph
from vit_deploy.formats.tflite.file import read_metadata
from vit_deploy.formats.tflite.names import OPERATORS

EXPORT = """
import sys
from pathlib import Path

from tests.exporters.variants import exported, trained
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.tflite.export import TFLiteExporter

exported(TFLiteExporter(), trained(), Path(sys.argv[1]), ExportOptions(batch=1))
"""


REFUSED = "dynamic_tanh-res_post"


def test_a_factor_that_the_converter_multiplies_into_a_kernel_is_refused(tmp_path):
    with pytest.raises(ExportError, match="the factor of a dynamic tanh") as refused:
        exported(TFLiteExporter(), trained(**VARIANTS[REFUSED]), tmp_path, ExportOptions(batch=3))
    assert refused.value.fix == "export another format"


# Half of them are quick; as ONNX files all are.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if index % 2 else pytest.mark.slow)
        for index, name in enumerate(VARIANTS)
        if name != REFUSED
    ],
)
def test_every_variant_computes_the_reference_and_is_delegated_as_a_whole(name, tmp_path):
    checkpoint = trained(**VARIANTS[name])
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 3))

    artifact = exported(TFLiteExporter(), checkpoint, tmp_path, ExportOptions(batch=3))

    interpreter = opened(artifact.model_path)
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["images"], "outputs": [checkpoint.config.output_name]}
    }
    outputs = interpreter.get_signature_runner("serving_default")(images=images)
    assert_same_function(outputs[checkpoint.config.output_name], checkpoint, images)
    assert left_out(interpreter) == []


@pytest.mark.parametrize(
    "changes", [{"channels": 1}, {"channels": 3}, {"pixel_norm": True, "patch_norm": True}, {"patch_padding": 1}]
)
def test_pixels_go_in_when_preprocessing_is_inside_and_nothing_is_left_out(changes, tmp_path):
    checkpoint = trained(**changes)
    raw = pixels(checkpoint, 2)
    options = ExportOptions(batch=2, include_preprocessing=True)

    artifact = exported(TFLiteExporter(), checkpoint, tmp_path, options)

    interpreter = opened(artifact.model_path)
    (details,) = interpreter.get_input_details()
    assert details["dtype"] == np.uint8
    assert details["quantization"] == (1.0, 0), "a stored pixel means itself"
    outputs = interpreter.get_signature_runner("serving_default")(images=raw)["logits"]
    assert_same_function(outputs, checkpoint, checkpoint.preprocess.normalize(raw))
    assert left_out(interpreter) == []


def test_the_batch_is_one_when_none_is_asked_for(tmp_path):
    artifact = exported(TFLiteExporter(), trained(), tmp_path, ExportOptions())

    assert opened(artifact.model_path).get_input_details()[0]["shape"].tolist() == [1, 24, 32, 3]


def test_projections_are_fully_connected_and_the_activation_is_one_operator(tmp_path):
    artifact = exported(TFLiteExporter(), trained(), tmp_path, ExportOptions(batch=1))

    operators = read_graph(artifact.model_path).operators
    assert operators["FULLY_CONNECTED"] == 6 * 2 + 1
    assert operators["BATCH_MATMUL"] == 2 * 2, "the two products of attention"
    assert operators["GELU"] == 2
    assert set(operators) <= set(OPERATORS) - {"CUSTOM", "DELEGATE"}, "all operators are builtin"


def test_layer_scales_cost_no_operator(tmp_path):
    counts = []
    for name, layer_scale in (("plain", False), ("scaled", True)):
        (tmp_path / name).mkdir()
        artifact = exported(TFLiteExporter(), trained(layer_scale=layer_scale), tmp_path / name, ExportOptions(batch=1))
        counts.append(read_graph(artifact.model_path).operators)

    assert counts[0] == counts[1]


def test_a_model_of_random_weights_has_the_function_of_its_checkpoint(checkpoint: Checkpoint, tmp_path):
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 1))

    artifact = exported(TFLiteExporter(), checkpoint, tmp_path, ExportOptions(batch=1))

    outputs = opened(artifact.model_path).get_signature_runner("serving_default")(images=images)["logits"]
    expected = forward(checkpoint, images)
    floor = np.abs(forward(checkpoint, images, np.float32) - expected).max()
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=10 * floor)


def test_weights_outside_the_flatbuffer_give_the_same_outputs(tmp_path):
    checkpoint = trained()
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))
    outputs = {}
    for name, limit in (("inside", 2_000_000_000), ("outside", 0)):
        (tmp_path / name).mkdir()
        artifact = exported(TFLiteExporter(limit), checkpoint, tmp_path / name, ExportOptions(batch=2))
        interpreter = opened(artifact.model_path)
        outputs[name] = interpreter.get_signature_runner("serving_default")(images=images)["logits"]
        assert left_out(interpreter) == []
        assert ("buffer_location" in read_metadata(artifact.model_path)) == (name == "outside")

    np.testing.assert_array_equal(outputs["inside"], outputs["outside"])
    assert_same_function(outputs["outside"], checkpoint, images)


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tmp_path):
    files = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        subprocess.run(
            [sys.executable, "-c", EXPORT, str(folder)],
            check=True,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        files.append((folder / "model.tflite").read_bytes())

    assert files[0] == files[1]


def test_what_the_converter_says_does_not_reach_the_user(tmp_path, capfd):
    exported(TFLiteExporter(), trained(), tmp_path, ExportOptions(batch=1))

    assert capfd.readouterr() == ("", "")


def test_a_converter_that_fails_is_an_engine_error_with_its_first_line(tmp_path, monkeypatch):
    def fail(self):
        raise exporter_module.ConverterError("could not legalize op\nand much more")

    monkeypatch.setattr("tensorflow.lite.TFLiteConverter.convert", fail)
    with pytest.raises(EngineError, match=r"failed converting to TFLite: could not legalize op\n  fix: ") as raised:
        exported(TFLiteExporter(), trained(), tmp_path, ExportOptions(batch=1))
    assert "much more" not in raised.value.message
    assert not list(tmp_path.iterdir())


def test_a_stand_in_that_cannot_be_found_again_is_an_export_error(tmp_path, monkeypatch):
    stand_ins = exporter_module._stand_ins

    def without_one(checkpoint):
        found = stand_ins(checkpoint)
        lost = next(value for value, each in found.items() if each.name == "block_1.ffn.down.kernel")
        return {value: each for value, each in found.items() if value != lost}

    monkeypatch.setattr(exporter_module, "_stand_ins", without_one)
    with pytest.raises(ExportError, match="a constant of 240 numbers that is none of the kernels"):
        exported(TFLiteExporter(), trained(), tmp_path, ExportOptions(batch=1))


@pytest.mark.parametrize("position", ["pre", "post"])
@pytest.mark.parametrize("kind", ["layer_norm", "rms_norm", "dynamic_tanh", "band_rms"])
def test_folding_the_norms_keeps_the_function(kind, position):
    checkpoint = trained(normalization_type=kind, normalization_position=position, qkv_bias=False)
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))

    folded = fold_norms(checkpoint)

    assert_same_function(forward(folded, images), checkpoint, images)
    if position == "pre":
        assert all((folded.weights[f"block_{each}.norm{half}.scale"] == 1).all() for each in (0, 1) for half in (1, 2))


@pytest.mark.parametrize("changes", FAMILIES.values(), ids=FAMILIES)
def test_what_is_folded_keeps_the_function_of_every_family(changes):
    checkpoint = trained(**changes)
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))

    folded = fold_norms(fold_layer_scales(checkpoint))

    assert_same_function(forward(folded, images), checkpoint, images)
    assert not folded.config.layer_scale


def test_nothing_is_copied_where_there_are_no_layer_scales():
    checkpoint = trained()

    assert fold_layer_scales(checkpoint) is checkpoint


def test_folding_the_preprocessing_takes_pixels_as_they_are():
    checkpoint = trained()
    raw = pixels(checkpoint, 2)

    folded = fold_preprocessing(checkpoint)

    np.testing.assert_array_equal(folded.preprocess.normalize(raw), raw.astype(np.float32))
    expected = forward(checkpoint, checkpoint.preprocess.normalize(raw).astype(np.float64))
    floor = np.abs(forward(checkpoint, checkpoint.preprocess.normalize(raw), np.float32) - expected).max()
    np.testing.assert_allclose(forward(folded, raw.astype(np.float64)), expected, rtol=0, atol=10 * floor)


@pytest.mark.slow
def test_a_model_past_two_gigabytes_runs(tmp_path):
    config = ViTConfig.from_scale("huge", patch_size=14)
    checkpoint = Checkpoint.random(config, 0)
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 1))

    artifact = exported(TFLiteExporter(), checkpoint, tmp_path, ExportOptions(batch=1))

    outputs = opened(artifact.model_path).get_signature_runner("serving_default")(images=images)["logits"]
    expected = forward(checkpoint, images)
    floor = np.abs(forward(checkpoint, images, np.float32) - expected).max()
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=10 * floor)
    assert "vit_deploy" in read_metadata(artifact.model_path)


def test_labels_and_options_of_the_checkpoint_are_not_changed_by_folding():
    checkpoint = dataclasses.replace(trained(), labels=("a", "b", "c", "d", "e"))

    assert fold_norms(checkpoint).labels == checkpoint.labels
    assert fold_norms(checkpoint).provenance == checkpoint.provenance
