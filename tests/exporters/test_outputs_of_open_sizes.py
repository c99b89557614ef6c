"""Files with outputs by name for images of any size, or of several, give at each what the resized model gives."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

import vit_deploy
from tests.exporters.onnx_files import sides
from tests.exporters.variants import VARIANTS, every_name, trained
from vit_deploy.checkpoints import save
from vit_deploy.cli import run as command
from vit_deploy.core.artifact import GOLDEN, Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import Size
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.options import QuantizeOptions
from vit_deploy.core.outputs import outputs_of_model
from vit_deploy.core.reference_outputs import forward_outputs
from vit_deploy.core.resize import resize
from vit_deploy.errors import ArtifactError
from vit_deploy.runtimes import infer_outputs, open_session
from vit_deploy.verification import named_golden, recording, records
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.locate.divergence import locate
from vit_deploy.verification.recorded import verification_in
from vit_deploy.verification.verifying import verify

FEW = ("patch_tokens", "map", "register_tokens", "block_0.normed.map", "block_1.attention", "logits")
FIVE = [(24, 32), (40, 32), (16, 12), (8, 44), (32, 80)]
SIZES = [(24, 32), (48, 32), (16, 40)]
RELATIVE = [name for name, changes in VARIANTS.items() if "relative_positions" in changes]
WITHOUT_TIMES = QuantizeOptions(measure_speed=False)


def assert_resizes(artifact: Artifact, checkpoint: Checkpoint, sizes: Sequence[Size]) -> None:
    """At each size every output is that of the checkpoint resized to it."""
    names = list(artifact.outputs)
    for size in sizes:
        resized = resize(checkpoint, size)
        images = np.random.default_rng(2).standard_normal((2, *size, resized.config.channels)).astype(np.float32)
        there = artifact.at(size)
        with open_session(there) as session:
            found = infer_outputs(session, there, images)
        expected = forward_outputs(resized, images, outputs_of_model(names, resized.config))
        assert list(found) == names
        for name in names:
            assert found[name].shape == expected[name].shape, (name, size)
            scale = max(1.0, float(np.abs(expected[name]).max()))
            np.testing.assert_allclose(found[name], expected[name], atol=5e-5 * scale, err_msg=f"{name} at {size}")


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return trained(register_tokens=2, layer_scale=True)


@pytest.fixture(scope="module")
def opened(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An ONNX file for any size with six outputs."""
    folder = tmp_path_factory.mktemp("open")
    return vit_deploy.export(checkpoint, folder, formats="onnx", image_size="dynamic", outputs=FEW).result


def test_every_output_is_that_of_the_model_resized_to_the_images(opened: Artifact, checkpoint: Checkpoint) -> None:
    assert_resizes(opened, checkpoint, FIVE)


def test_sides_that_follow_from_the_size_are_open_in_the_manifest_and_have_names_in_the_file(opened: Artifact) -> None:
    manifest = json.loads((opened.directory / "artifact.json").read_text())
    shapes = {entry["name"]: entry["shape"] for entry in manifest["outputs"]}
    graph = {value.name: sides(value) for value in onnx.load(opened.model_path).graph.output}

    assert shapes == {
        "patch_tokens": [None, None, 12],
        "map": [None, None, None, 12],
        "register_tokens": [None, 2, 12],
        "block_0.normed.map": [None, None, None, 12],
        "block_1.attention": [None, 3, None, None],
        "logits": [None, 5],
    }
    assert graph["map"] == graph["block_0.normed.map"] == ["batch", "rows", "columns", 12]
    assert graph["block_1.attention"] == ["batch", 3, "tokens", "tokens"]
    assert graph["register_tokens"] == ["batch", 2, 12]


def test_inspect_shows_which_sides_are_open(opened: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["inspect", str(opened.directory)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for line in ("map (?, ?, 12) an image", "block_1.attention (3, ?, ?) an image", "logits (5,) an image"):
        assert f"output {line}" in shown


@pytest.mark.slow
def test_models_of_other_outputs_are_compared_by_one_that_both_have(opened: Artifact, tmp_path: Path) -> None:
    model = trained(register_tokens=2, layer_scale=True)
    made = vit_deploy.export(model, tmp_path, formats="onnx", image_size="dynamic", outputs=("block_0", "map")).result

    (found,) = vit_deploy.compare(made, opened).to_dict()["results"]
    assert found["outputs"]["ok"] and len(found["sizes"]) == 4 and all(size["ok"] for size in found["sizes"])
    alone = vit_deploy.export(model, tmp_path / "alone", formats="onnx", outputs="block_0.map").result
    (found,) = vit_deploy.compare(made, alone).to_dict()["results"]
    assert found["outputs"] is None
    assert "outputs of one name are compared, and these give block_0, map and block_0.map" in found["notes"]


def test_each_output_is_proven_at_each_of_five_sizes(opened: Artifact) -> None:
    (record,) = vit_deploy.verify(opened, quick=True).to_dict()["results"]

    assert record["ok"] and set(record["outputs"]) == set(FEW)
    assert len(record["sizes"]) == 4
    for size in record["sizes"]:
        assert size["ok"] and list(size["outputs"]) == list(FEW)
        assert size["outputs"]["block_1.attention"]["metrics"]["total_variation"] < 1e-5
        assert size["outputs"]["map"]["metrics"]["token_cosine"] > 0.9999
    assert {tuple(size["image_size"]) for size in record["sizes"]} == {one.pixels for one in opened.sizes[1:]}


def test_one_output_that_is_wrong_at_one_size_fails_the_file_and_is_named(opened: Artifact) -> None:
    golden = read_golden(opened)
    right = golden.sizes[2]
    wrong = dataclasses.replace(right.named["map"], values=right.named["map"].values + 0.01)
    planted = dataclasses.replace(right, named={**right.named, "map": wrong})
    found = verify(opened, golden=dataclasses.replace(golden, sizes=(*golden.sizes[:2], planted, golden.sizes[3])))

    assert not found.ok and found.parity.ok
    height, width = right.pixels
    assert [failure.rpartition(": largest")[0] for failure in found.failures] == [f"at {height}x{width}: map"]
    record = records.verification(found)
    assert [size["outputs"]["map"]["ok"] for size in record["sizes"]] == [True, True, False, True]
    elsewhere = verification_in({**record, "on": "ssh://board"}, opened)
    assert elsewhere.failures == found.failures
    assert [one.outputs["map"].ok for one in elsewhere.sizes] == [True, True, False, True]


def test_recorded_answers_of_every_output_at_every_size_have_to_be_there(opened: Artifact, tmp_path: Path) -> None:
    with np.load(opened.directory / GOLDEN) as arrays:
        kept = {name: array for name, array in arrays.items() if name != "24x40.outputs.map"}
    assert len(kept) < len(arrays.files)
    np.savez(tmp_path / GOLDEN, **kept)

    with pytest.raises(ArtifactError, match="damaged"):
        read_golden(dataclasses.replace(opened, directory=tmp_path))


@pytest.mark.slow
def test_golden_data_are_bounded_whatever_the_outputs_and_the_sizes(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = 2000  # numbers; the tokens alone of two images are 648
    for module in (named_golden, recording):
        monkeypatch.setattr(module, "NUMBERS", room)
    outputs = ("block_1.attention", "tokens", "block_0.map")
    made = vit_deploy.export(checkpoint, tmp_path, formats="onnx", image_size="dynamic", outputs=outputs).result

    assert made.output_name == "block_1.attention"
    golden = read_golden(made)
    for recorded in (golden, *(sized.golden for sized in golden.sizes)):
        assert recorded.kept is not None and 0 < len(recorded.kept.rows) < recorded.kept.of_rows
        assert recorded.outputs.size <= room and sum(one.values.size for one in recorded.named.values()) <= room
    at_sizes = sum(sized.outputs.size for sized in golden.sizes)
    assert at_sizes <= 4 * (room // 4 + 8 * 2 * 100)  # one row and four sums are the least of two images
    found = vit_deploy.verify(made)
    assert found.ok
    (record,) = found.to_dict()["results"]
    compared = record["outputs"]["block_1.attention"]["compared"]
    assert compared == {"images": 2, "rows": len(golden.kept.rows), "of_rows": 81, "sums": 4}
    assert all(size["outputs"]["tokens"]["compared"]["sums"] == 4 for size in record["sizes"])
    wrong = dataclasses.replace(golden, outputs=golden.outputs + 0.01)
    assert not verify(made, golden=wrong).outputs["block_1.attention"].ok


def test_a_row_that_is_not_kept_shows_in_the_sums(checkpoint: Checkpoint) -> None:
    (output,) = outputs_of_model(["tokens"], checkpoint.config)
    values = np.random.default_rng(0).standard_normal((2, *output.shape(checkpoint.config)))
    kept = named_golden.Kept(2, np.array([3]), math.prod(values.shape[1:-1]))
    changed = values.copy()
    changed[1, 7] += 1

    apart = np.abs(kept.of(changed, named_golden.FIRST) - kept.of(values, named_golden.FIRST))
    assert apart[:, 0].max() == 0 and apart[1, 1:].min() > 0.1


def test_a_checkpoint_answers_for_every_output_at_every_size(
    opened: Artifact, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    save(checkpoint, tmp_path / "model.safetensors")
    (found,) = vit_deploy.verify(opened, against=tmp_path / "model.safetensors").to_dict()["results"]

    assert found["ok"] and all(set(size["outputs"]) == set(FEW) for size in found["sizes"])


def test_every_part_of_such_a_file_is_looked_into(opened: Artifact) -> None:
    located = locate(opened)
    assert located.activation is None
    assert [activation.name for activation in located.activations if activation.note] == []


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"batch": 2}, {"layout": "nchw", "include_preprocessing": True}])
def test_batch_layout_and_pixels_are_as_they_were_asked_for(changes: dict[str, object], tmp_path: Path) -> None:
    outputs = ("map", "block_0.map", "block_1.attention")
    made = vit_deploy.export(trained(), tmp_path, formats="onnx", image_size="dynamic", outputs=outputs, **changes)

    (record,) = vit_deploy.verify(read_artifact(made.result.directory), quick=True).to_dict()["results"]
    assert record["ok"] and len(record["sizes"]) == 4


def assert_variant_resizes(name: str, folder: Path) -> None:
    checkpoint = trained(**VARIANTS[name])
    outputs = every_name(checkpoint)
    if checkpoint.config.num_classes == 1:
        outputs.remove("probabilities")  # of one class they are one, which proves nothing
    made = vit_deploy.export(checkpoint, folder, formats="onnx", image_size="dynamic", outputs=outputs)

    height, width = checkpoint.config.patch_size
    assert_resizes(made.result, checkpoint, [(rows * height, columns * width) for rows, columns in ((3, 8), (1, 5))])


SOME = ("DINOv2 with registers", "RoPE-ViT, mixed")


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_every_output_of_some_variants(name: str, tmp_path: Path) -> None:
    assert_variant_resizes(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in {*RELATIVE, *SOME}])
def test_every_output_of_any_combination(name: str, tmp_path: Path) -> None:
    assert_variant_resizes(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"register_tokens": 2, "pixel_norm": True}, {"rotary": "eva", "pooling": "mean"}])
def test_a_savedmodel_has_every_output_too(changes: dict[str, object], tmp_path: Path) -> None:
    checkpoint = trained(**changes)
    outputs = every_name(checkpoint)
    made = vit_deploy.export(checkpoint, tmp_path, formats="savedmodel", image_size="dynamic", outputs=outputs)

    assert_resizes(made.result, checkpoint, FIVE[:3])


@pytest.fixture(scope="module")
def joined(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A TFLite file for three sizes with six outputs."""
    folder = tmp_path_factory.mktemp("joined")
    return vit_deploy.export(checkpoint, folder, formats="tflite", image_size=SIZES, outputs=FEW).result


@pytest.mark.slow
def test_each_signature_of_a_tflite_file_has_every_output(joined: Artifact, checkpoint: Checkpoint) -> None:
    assert_resizes(joined, checkpoint, SIZES)
    (record,) = vit_deploy.verify(joined, quick=True).to_dict()["results"]
    assert [set(size["outputs"]) for size in record["sizes"]] == [set(FEW)] * 2
    (one,) = vit_deploy.verify(joined, signature="images_16x40", quick=True).to_dict()["results"]
    assert one["ok"] and set(one["outputs"]) == set(FEW) and "sizes" not in one


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_every_precision_proves_every_output_at_every_size(
    format: str, opened: Artifact, joined: Artifact, tmp_path: Path
) -> None:
    source, precisions = {
        "onnx": (opened, ["fp16", "int8", "int8-static", "int4"]),
        "tflite": (joined, ["int8", "int8-static", "int4"]),
    }[format]
    made = vit_deploy.quantize(source, tmp_path, precisions=precisions, quantizing=WITHOUT_TIMES)

    assert [artifact.precision for artifact in made] == precisions
    for artifact in made:
        (record,) = vit_deploy.verify(read_artifact(artifact.directory), quick=True).to_dict()["results"]
        assert record["ok"] and all(set(size["outputs"]) == set(FEW) for size in record["sizes"])


@pytest.mark.slow
def test_integer_outputs_are_the_same_at_every_size(checkpoint: Checkpoint, tmp_path: Path) -> None:
    outputs, precisions = ("map", "logits"), ("fp32", "int8-full")
    made = vit_deploy.export(
        checkpoint, tmp_path, formats="tflite", precisions=precisions, image_size=SIZES[:2], outputs=outputs
    )

    whole = read_artifact(made[1].directory)
    assert whole.precision == "int8-full" and {spec.dtype for spec in whole.outputs.values()} <= {"int8", "int16"}
    (record,) = vit_deploy.verify(whole, quick=True).to_dict()["results"]
    assert record["ok"] and set(record["sizes"][0]["outputs"]) == {"map", "logits"}
