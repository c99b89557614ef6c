from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tests.exporters.variants import VARIANTS, exported, trained
from tests.verification.locate.planting import change_weight, copied
from vit_deploy.cli import main
from vit_deploy.core import format_table
from vit_deploy.core.artifact import describe
from vit_deploy.core.choices import Pooling
from vit_deploy.core.format import Target
from vit_deploy.core.manifest import read_artifact, write_manifest
from vit_deploy.errors import ArtifactError, ConfigError
from vit_deploy.exporters import EXPORTERS, ExportOptions
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.pipeline import export
from vit_deploy.verification.activations import activation_names
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.locate import TAPPERS
from vit_deploy.verification.locate.divergence import _comparable, _Search, locate
from vit_deploy.verification.locate.structure import find_activations
from vit_deploy.verification.recording import golden_pixels, record, write_golden

FORMATS = tuple(TAPPERS)
PLAIN = ExportOptions()


def made(format, checkpoint, directory, options=PLAIN):
    directory.mkdir()
    options = dataclasses.replace(options, batch=1) if format == "tflite" and options.batch is None else options
    artifact = exported(EXPORTERS.load(format)(), checkpoint, directory, options)
    golden = record(checkpoint)
    if options.include_preprocessing:
        golden = golden.as_pixels(golden_pixels(checkpoint.config))
    write_golden(golden, directory)
    return write_manifest(artifact)


def assert_right(artifact):
    """Every activation is there and right, and so is every detail that the graph shows."""
    found = locate(artifact)
    assert found.activation is None
    # A last norm that only the probe reads has given its scale to the probe.
    probed = artifact.config.norm_after_pooling and artifact.config.effective_pooling is Pooling.MAP
    hidden = probed and artifact.format == "tflite" and artifact.config.normalization_position == "post"
    last = f"block_{artifact.config.num_layers - 1}.ffn"
    absent = [last] if hidden else [] if artifact.config.last_norm else ["norm"]
    assert [activation.name for activation in found.activations if activation.error is None] == absent
    golden = read_golden(artifact)
    with TAPPERS.load(artifact.format)().open(artifact) as opened:
        search = _Search(artifact, opened, golden.images[:2], _comparable(golden.activations, artifact, opened.flow))
        places = find_activations(opened.flow, artifact.config, folded_norms=artifact.format == "tflite")
        details = [detail for place in places.found.values() for detail in place.details]
        values = search._values(name for each in details for option in each.options for name in option.values)
        wrong = [each.name for each in details if not search._right(each, values)]
    assert wrong == []
    return [each.name for each in details]


HARD = {
    "tflite": ["layer_norm-post", "CLIP", "relu", "dynamic tanh, greatest patch"],
    "onnx": ["DeiT", "post-norm, RMS, probe", "InternViT", "Sapiens 2"],
    "savedmodel": ["DINOv2 with registers"],
}


@pytest.mark.parametrize(("format", "name"), [(format, name) for format, names in HARD.items() for name in names])
def test_taps_are_found_in_models_that_are_spelled_otherwise(tmp_path, format, name):
    assert_right(made(format, trained(**VARIANTS[name]), tmp_path / "bundle"))


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", VARIANTS)
def test_taps_and_details_of_every_kind_of_model_are_right(tmp_path, format, name):
    assert len(assert_right(made(format, trained(**VARIANTS[name]), tmp_path / "bundle"))) > 15


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("onnx", ExportOptions(batch=3, layout="nchw")),
        ("onnx", ExportOptions(include_preprocessing=True)),
        ("tflite", ExportOptions(batch=3, include_preprocessing=True)),
    ],
)
def test_other_inputs_and_fixed_batches_are_looked_into_as_well(tmp_path, format, options):
    assert_right(made(format, trained(), tmp_path / "bundle", options))


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_right_files_of_every_precision_stay_with_the_reference(tmp_path, format):
    checkpoint = trained(embed_dim=24, mlp_dim=40)
    jobs, _ = plan([format], list(format_table.FORMATS[format].precisions_for(Target.CPU)))
    for result in export(checkpoint, tmp_path, jobs, QuantizeOptions()).results:
        found = locate(result.artifact)
        assert found.activation is None, result.artifact.name
        missing = [activation.name for activation in found.activations if activation.error is None]
        rebalanced = format == "onnx" and result.artifact.precision.startswith("int")
        assert missing == (["norm"] if rebalanced else []), result.artifact.name


@pytest.mark.slow
def test_a_fault_in_a_quantized_file_is_located(tmp_path):
    jobs, _ = plan(["onnx"], ["int8"])
    (result,) = export(trained(num_layers=3), tmp_path, jobs, QuantizeOptions()).results
    artifact = change_weight(result.artifact, "block_1.attention.out.bias", lambda values: values + 2)
    assert locate(artifact).activation == "block_1.attention"


def test_a_file_of_no_format_that_can_be_looked_into_is_an_error(checkpoint, tmp_path, bundles):
    spec = read_artifact(bundles["onnx"]).input
    artifact = describe(checkpoint, tmp_path, format="keras", precision="fp32", input=spec, model="m.keras")
    with pytest.raises(ConfigError, match="run as a whole"):
        locate(artifact)


def test_a_bundle_without_activations_is_an_error_that_says_what_to_give(bundles, tmp_path):
    artifact = copied(bundles["onnx"], tmp_path / "old")
    golden = dataclasses.replace(read_golden(artifact), activations=None)
    with pytest.raises(ArtifactError, match="recorded no activations") as error:
        locate(artifact, golden=golden)
    assert "--against" in error.value.fix


@pytest.fixture(scope="module")
def broken(bundles, tmp_path_factory):
    def edit(values):
        values[2, 4] += 0.5
        return values

    artifact = copied(bundles["onnx"], tmp_path_factory.mktemp("broken") / "onnx-fp32")
    return change_weight(artifact, "block_0.ffn.up.kernel", edit)


def run(capfd, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    said = capfd.readouterr()
    return ended.value.code, said.out, said.err


def test_verify_says_where_a_failing_artifact_leaves_the_reference(capfd, broken, bundles):
    code, out, err = run(capfd, "verify", "--quick", "--locate", bundles["onnx"], broken.directory, "--json")
    right, wrong = json.loads(out)["results"]
    assert code == 1
    assert right["located"] is None
    assert (wrong["located"]["tap"], wrong["located"]["operator"]) == ("block_0.ffn", "Gemm block_0.ffn.up.Gemm")
    assert [activation["tap"] for activation in wrong["located"]["taps"]] == list(activation_names(broken.config))
    assert [activation["ok"] for activation in wrong["located"]["taps"]][:4] == [True, True, True, False]
    assert "leaves the reference at block_0.ffn, by Gemm block_0.ffn.up.Gemm" in err


def test_verify_prints_a_table_tap_by_tap(capfd, broken):
    code, out, _ = run(capfd, "verify", "--quick", "--locate", broken.directory)
    assert code == 1
    lines = [line.split() for line in out.splitlines()]
    table = {line[0]: line for line in lines if line and line[0] in activation_names(broken.config)}
    assert list(table) == list(activation_names(broken.config))
    assert table["block_0.ffn"][-1] == "HERE" and table["head"][-1] == "different"
    assert "HERE" not in table["block_0.attention"]


def test_without_locate_nothing_is_looked_into(capfd, broken):
    _, out, _ = run(capfd, "verify", "--quick", broken.directory, "--json")
    assert "located" not in json.loads(out)["results"][0]


def test_an_artifact_that_cannot_be_looked_into_has_failed_all_the_same(capfd, broken, tmp_path):
    old = copied(broken.directory, tmp_path / "old")
    golden = dataclasses.replace(read_golden(old), activations=None)
    write_golden(golden, old.directory)
    write_manifest(old)
    code, out, err = run(capfd, "verify", "--quick", "--locate", old.directory, "--json")
    assert code == 1
    located = json.loads(out)["results"][0]["located"]
    assert (located["tap"], located["operator"]) == (None, None)
    assert "recorded no activations" in located["notes"][0] and "--against" in err


def test_an_output_that_is_not_finite_is_null_in_the_document(capfd, bundles, tmp_path):
    def edit(values):
        values[0] = np.inf
        return values

    artifact = change_weight(copied(bundles["onnx"], tmp_path / "inf"), "block_1.ffn.down.bias", edit)
    code, out, _ = run(capfd, "verify", "--quick", "--locate", artifact.directory, "--json")
    assert code == 1
    activations = {activation["tap"]: activation for activation in json.loads(out)["results"][0]["located"]["taps"]}
    assert activations["block_1.ffn"]["error"] is None and activations["block_1.ffn"]["ok"] is False
