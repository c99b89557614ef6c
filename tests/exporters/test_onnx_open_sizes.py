"""An ONNX file for images of any size is the model resized to each of them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from xml.etree import ElementTree

import numpy as np
import onnxruntime
import pytest

import vit_deploy
from tests.exporters.onnx_files import run, sides, write
from tests.exporters.variants import VARIANTS, assert_same_function, exported, pixels, trained
from vit_deploy.checkpoints import save
from vit_deploy.cli import run as command
from vit_deploy.core.artifact import GOLDEN
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.image_sizes import proving_sizes
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.options import QuantizeOptions
from vit_deploy.core.resize import Convention, resize
from vit_deploy.errors import ArtifactError, ConfigError, DataError
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.onnx.export import OnnxExporter
from vit_deploy.exporters.open_or_many import Sizes
from vit_deploy.verification import records
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.recorded import verification_in
from vit_deploy.verification.reports.junit import junit
from vit_deploy.verification.verifying import verify

FEW = ("mean pooling", "RoPE-ViT, mixed", "DINOv2 with registers", "SigLIP", "MLCD", "DeiT")
PRECISIONS = ["fp16", "int8", "int8-static", "int4"]
WITHOUT_TIMES = QuantizeOptions(measure_speed=False)
OPEN = ExportOptions(dynamic_size=True)
RELATIVE = [name for name, changes in VARIANTS.items() if "relative_positions" in changes]


def assert_resizes(path, checkpoint, like=None, grids=((3, 8), (5, 8), (2, 3), (1, 11), (4, 20))):
    height, width = checkpoint.config.patch_size
    for rows, columns in grids:
        resized = resize(checkpoint, (rows * height, columns * width), like=like)
        images = resized.preprocess.normalize(pixels(resized, 3))
        assert_same_function(run(path, images), resized, images)


@pytest.mark.parametrize(
    "name",
    [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS if name not in {*FEW, *RELATIVE})],
)
def test_every_variant_is_the_model_resized_to_the_images(name, tmp_path):
    checkpoint, path, model = write(tmp_path, options=OPEN, **VARIANTS[name])

    assert_resizes(path, checkpoint)
    assert sides(model.graph.input[0]) == ["batch", "height", "width", checkpoint.config.channels]
    assert {node.domain for node in model.graph.node} == {""}


@pytest.mark.parametrize("like", Convention)
def test_positions_are_resampled_like_each_convention(like, tmp_path):
    checkpoint = trained(register_tokens=1, pooling="mean")
    path = exported(OnnxExporter(), checkpoint, tmp_path, dataclasses.replace(OPEN, like=like)).model_path

    assert_resizes(path, checkpoint, like, [(3, 8), (4, 8), (2, 13)])


@pytest.mark.parametrize("patch", [(8, 4), (4, 2)])
def test_pixels_of_patches_are_normalized_whatever_the_size(patch, tmp_path):
    checkpoint, path, _ = write(tmp_path, options=OPEN, pixel_norm=True, patch_size=patch)

    assert_resizes(path, checkpoint)


@pytest.mark.parametrize("changes", [{"batch": 3}, {"layout": "nchw"}, {"opset": 17}])
def test_batch_layout_and_opset_are_as_they_were_asked_for(changes, tmp_path):
    checkpoint = trained(pooling="mean", rotary="rope_vit")
    options = dataclasses.replace(OPEN, **changes)
    path = exported(OnnxExporter(), checkpoint, tmp_path, options).model_path
    resized = resize(checkpoint, (40, 12))
    images = resized.preprocess.normalize(pixels(resized, 3))

    given = images.transpose(0, 3, 1, 2) if "layout" in changes else images
    assert_same_function(run(path, np.ascontiguousarray(given)), resized, images)


def test_tokens_of_a_model_without_pooling_are_open_too(tmp_path):
    _, _, model = write(tmp_path, options=OPEN, include_top=False)

    assert sides(model.graph.output[0]) == ["batch", "tokens", 12]


@pytest.mark.parametrize(("size", "said"), [((25, 32), "height_must_be_a_multiple_of_8"), ((24, 30), "width_must_be")])
def test_an_image_that_is_not_cut_into_patches_is_an_error_of_the_engine_that_says_so(size, said, tmp_path):
    _, path, _ = write(tmp_path, options=OPEN)

    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail, match=said):
        run(path, np.zeros((1, *size, 3), np.float32))


@pytest.fixture(scope="module")
def open_bundle(tmp_path_factory):
    checkpoint = trained(register_tokens=1)
    made = vit_deploy.export(checkpoint, tmp_path_factory.mktemp("open"), formats="onnx", image_size="dynamic")
    return made.result


def test_the_manifest_lists_five_sizes_that_were_proven_of_which_some_are_oblong(open_bundle):
    manifest = json.loads((open_bundle.directory / "artifact.json").read_text())
    proven = [tuple(size["image_size"]) for size in manifest["sizes"]]

    assert proven[0] == (24, 32) and len(set(proven)) == 5
    assert manifest["input"]["shape"] == [None, None, None, 3]
    assert manifest["options"]["like"] == "timm"
    result = vit_deploy.verify(open_bundle, quick=True)
    (record,) = result.to_dict()["results"]
    assert [tuple(size["image_size"]) for size in record["sizes"]] == proven[1:]
    assert all(size["ok"] and size["metrics"]["max_abs"] > 0 for size in record["sizes"])


def test_a_file_that_is_right_at_its_own_size_alone_is_not_proven(open_bundle):
    golden = read_golden(open_bundle)
    wrong = dataclasses.replace(golden.sizes[1], outputs=golden.sizes[1].outputs[::-1])
    planted = dataclasses.replace(golden, sizes=(golden.sizes[0], wrong, *golden.sizes[2:]))

    found = verify(open_bundle, golden=planted)

    assert found.parity.ok and not found.ok and found.verdict == "different"
    assert all(failure.startswith(f"at {wrong.pixels[0]}x{wrong.pixels[1]}: ") for failure in found.failures)
    report = ElementTree.fromstring(junit([records.verification(found)]))
    (case,) = report.findall(".//testcase[failure]")
    assert case.get("name") == f"images of {wrong.pixels[0]}x{wrong.pixels[1]}"
    assert report.find("testsuite").get("tests") == str(len(report.findall(".//testcase"))) == "5"
    elsewhere = verification_in({**records.verification(found), "on": "ssh://board"}, open_bundle)
    assert elsewhere.failures == found.failures and elsewhere.parity.ok and not elsewhere.parity.notes


def test_recorded_answers_of_every_size_have_to_be_there(open_bundle, tmp_path):
    with np.load(open_bundle.directory / GOLDEN) as arrays:
        kept = {name: array for name, array in arrays.items() if not name.startswith("24x40.")}
    assert len(kept) < len(arrays.files)
    folder = tmp_path / "damaged"
    folder.mkdir()
    np.savez(folder / GOLDEN, **kept)

    with pytest.raises(ArtifactError, match="damaged"):
        read_golden(dataclasses.replace(open_bundle, directory=folder))


def test_a_session_takes_every_size_and_names_what_does_not_fit(open_bundle):
    with vit_deploy.session(open_bundle) as session:
        assert session.infer(np.zeros((2, 48, 12, 3), np.float32)).shape == (2, 5)
        with pytest.raises(DataError, match="no whole number of patches of 8x4"):
            session.infer(np.zeros((1, 25, 32, 3), np.float32))


def test_bench_times_a_file_at_any_size(open_bundle):
    (record,) = vit_deploy.bench(open_bundle, runtime="onnxruntime", image_size=(40, 12), runs=2).to_dict()["results"]

    assert record["image_size"] == "40x12" and len(record["samples_ns"]) == 2
    with pytest.raises(ConfigError, match="height 41 is not a multiple of 8"):
        vit_deploy.bench(open_bundle, runtime="onnxruntime", image_size=(41, 12), runs=2)


def test_a_file_that_is_alone_is_compared_and_timed_at_every_size(open_bundle, tmp_path):
    bare = shutil.copy(open_bundle.model_path, tmp_path / "alone.onnx")
    save(trained(register_tokens=1), tmp_path / "model.safetensors")

    (found,) = vit_deploy.verify(bare, against=tmp_path / "model.safetensors").to_dict()["results"]
    assert found["ok"] and len(found["sizes"]) == 4
    (timed,) = vit_deploy.bench(bare, image_size="16x40", runtime="onnxruntime", runs=2).to_dict()["results"]
    assert timed["image_size"] == "16x40"


@pytest.mark.parametrize("like", [Convention.GOOGLE, Convention.HUGGINGFACE])
def test_a_checkpoint_is_resized_as_the_artifact_was(like, tmp_path):
    save(trained(pooling="mean"), tmp_path / "model.safetensors")
    made = vit_deploy.export(
        tmp_path / "model.safetensors", tmp_path / "open", formats="onnx", image_size="dynamic", like=like
    )

    (found,) = vit_deploy.verify(made.result, against=tmp_path / "model.safetensors").to_dict()["results"]
    assert found["ok"] and len(found["sizes"]) == 4


@pytest.mark.parametrize("runtime", ["openvino"])
def test_other_engines_prove_it_too(open_bundle, runtime):
    pytest.importorskip("openvino")

    assert vit_deploy.verify(open_bundle, runtime=runtime, quick=True).ok


@pytest.mark.slow
def test_quantized_files_stay_open_and_are_proven_at_every_size(open_bundle, tmp_path):
    made = vit_deploy.quantize(open_bundle, tmp_path, precisions=PRECISIONS, quantizing=WITHOUT_TIMES)

    assert [artifact.precision for artifact in made] == PRECISIONS
    for artifact in made:
        assert artifact.sizes == open_bundle.sizes and artifact.input.shape == (None, None, None, 3)


def test_the_card_says_which_sizes_were_proven(open_bundle, tmp_path):
    vit_deploy.card(open_bundle, tmp_path / "card.md")

    card = (tmp_path / "card.md").read_text()
    assert "`onnx-fp32` takes images of any size, and was proven at 24x32, 8x32," in " ".join(card.split())


def test_inspect_shows_the_sizes(open_bundle, capsys):
    assert command(["inspect", str(open_bundle.directory)]) == 0

    assert "any multiple of 8x4; proven at 24x32, 8x32" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (2, 2), (3, 8), (14, 14), (37, 37)])
def test_five_different_sizes_are_proven_of_every_grid(grid):
    config = ViTConfig(image_size=(grid[0] * 8, grid[1] * 4), patch_size=(8, 4), embed_dim=12, num_heads=3)

    found = proving_sizes(config)

    assert found[0] == config.image_size and len(set(found)) == 5
    assert any(height * 4 != width * 8 for height, width in found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"formats": ["onnx", "tflite"], "image_size": "dynamic"}, "TFLite files are made for sizes that are known"),
        ({"formats": "onnx", "image_size": "dynamic", "target": "cuda"}, "files for cuda are made for one size"),
        ({"formats": "onnx", "image_size": ["dynamic", 64]}, "others are given beside it"),
        ({"formats": "onnx", "image_size": [64, 48]}, "ONNX files are for one size"),
        ({"formats": "onnx", "image_size": "any"}, "image_size is 'any'"),
        ({"formats": "onnx", "image_size": "dynamic", "like": "me"}, "unknown convention"),
        ({"formats": "onnx", "image_size": "dynamic", "triton": "repository"}, "--triton serves"),
    ],
)
def test_what_is_not_to_be_had_is_refused_by_name(options, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        vit_deploy.export(trained(), tmp_path / "out", **options)

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", RELATIVE)
def test_relative_positions_are_refused_by_name(name):
    with pytest.raises(ConfigError, match="the model has relative positions"):
        Sizes(is_dynamic=True).of(trained(**VARIANTS[name]))


@pytest.mark.slow
def test_the_command_takes_dynamic_and_names_the_folder_after_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command(["export", "pico", "--format", "onnx", "--image-size", "dynamic", "--patch-size", "112", "-q"]) == 0

    assert read_artifact(tmp_path / "artifacts" / "pico-dynamic" / "onnx-fp32").is_for_any_size
    assert command(["export", "pico", "--image-size", "any"]) == 2
    assert "pixels as 224 or 384x512 (height x width), or dynamic" in " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """Other files of the model of `open_bundle`."""
    folder, checkpoint = tmp_path_factory.mktemp("beside"), trained(register_tokens=1)
    other = vit_deploy.export(checkpoint, folder / "other", formats="onnx", image_size="dynamic", like="huggingface")
    return {
        "savedmodel": vit_deploy.export(checkpoint, folder, formats="savedmodel", image_size="dynamic").result,
        "other convention": other.result,
        "fixed": vit_deploy.export(checkpoint, folder / "fixed", formats="onnx").result,
        "two sizes": vit_deploy.export(checkpoint, folder, formats="tflite", image_size=[(24, 32), (48, 32)]).result,
        "another size": vit_deploy.export(resize(checkpoint, (48, 32)), folder / "another", formats="onnx").result,
    }


@pytest.mark.slow
def test_another_file_for_any_size_answers_at_every_size(open_bundle, beside):
    (found,) = vit_deploy.verify(open_bundle, against=beside["savedmodel"].directory).to_dict()["results"]
    assert found["ok"] and len(found["sizes"]) == 4 and all(size["ok"] for size in found["sizes"])

    (found,) = vit_deploy.verify(open_bundle, against=beside["other convention"].directory, quick=True).to_dict()[
        "results"
    ]
    assert not found["ok"] and found["verdict"] == "different" and not found["golden_failures"]
    assert [size["ok"] for size in found["sizes"]] == [False] * 4


@pytest.mark.slow
def test_files_for_several_sizes_are_compared_at_those_that_both_take(open_bundle, beside):
    (found,) = vit_deploy.verify(beside["two sizes"], against=open_bundle.directory).to_dict()["results"]
    assert found["ok"] and [size["image_size"] for size in found["sizes"]] == [[48, 32]]

    (found,) = vit_deploy.verify(open_bundle, against=beside["fixed"].directory).to_dict()["results"]
    assert found["ok"] and "sizes" not in found
    (check,) = (check for check in found["checks"] if check["name"] == "sizes")
    assert check["ok"] and "takes no images of 8x32, 24x40, 32x24, 16x48 pixels" in check["message"]
    (own,) = vit_deploy.verify(open_bundle).to_dict()["results"]
    assert "sizes" not in [check["name"] for check in own["checks"]]


@pytest.mark.slow
def test_a_file_for_any_size_answers_for_one_that_was_made_for_another(open_bundle, beside):
    one = beside["another size"]
    (found,) = vit_deploy.verify(one, against=open_bundle.directory).to_dict()["results"]
    assert found["ok"] and found["metrics"]["max_abs"] < 1e-4
    with pytest.raises(ConfigError, match="take images of 24x32 and 48x32 pixels"):
        vit_deploy.verify(open_bundle, against=one.directory)


@pytest.mark.slow
def test_what_follows_from_the_size_is_no_difference_of_weights(open_bundle, beside):
    found = vit_deploy.compare(open_bundle, beside["savedmodel"]).to_dict()["results"][0]
    assert found["same"] and not found["weights"] and not found["differences"]
    assert len(found["sizes"]) == 4

    found = vit_deploy.compare(open_bundle, beside["other convention"]).to_dict()["results"][0]
    assert not found["same"] and not found["weights"] and found["outputs"]["ok"]
    assert {"aspect": "options", "name": "like", "first": "timm", "second": "huggingface"} in found["differences"]
    assert not any(size["ok"] for size in found["sizes"])


@pytest.mark.parametrize("more", [{}, {"target": "cuda"}])
def test_a_precision_of_files_for_one_size_is_refused_with_one_advice(more, tmp_path):
    with pytest.raises(
        ConfigError, match=r"bf16 is for ONNX files for cuda.*one size, and --image-size is dynam"
    ) as said:
        vit_deploy.export(trained(), tmp_path, formats="onnx", precisions="bf16", image_size="dynamic", **more)
    assert said.value.fix == "give one size, with --for cuda, or another precision, such as fp16"
