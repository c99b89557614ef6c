"""Several sizes of images in one TFLite file: a signature and a graph each, and each weight once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import vit_deploy
from tests.exporters.variants import assert_same_function, pixels, trained
from vit_deploy.checkpoints import save
from vit_deploy.cli import run as command
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.options import QuantizeOptions
from vit_deploy.core.resize import Convention, resize
from vit_deploy.errors import ConfigError
from vit_deploy.formats.stored_weights import read_weights
from vit_deploy.formats.tflite.file import opened, read_labels

SIZES = [(24, 32), (48, 32), (16, 40)]
NAMES = ["images_24x32", "images_48x32", "images_16x40"]
WITHOUT_TIMES = QuantizeOptions(measure_speed=False)
PRECISIONS = ["fp16", "int8", "int8-static", "int8-full", "int16x8", "int4"]


@pytest.fixture(scope="module")
def checkpoint():
    return trained(pooling="mean", rotary="eva")


@pytest.fixture(scope="module")
def bundle(checkpoint, tmp_path_factory) -> Artifact:
    return vit_deploy.export(checkpoint, tmp_path_factory.mktemp("sizes"), formats="tflite", image_size=SIZES).result


def test_each_signature_is_the_model_resized_to_its_images(bundle, checkpoint):
    engine = Interpreter(model_path=str(bundle.model_path))
    assert sorted(engine.get_signature_list()) == sorted(NAMES)
    for size, name in zip(SIZES, NAMES, strict=True):
        resized = resize(checkpoint, size)
        images = resized.preprocess.normalize(pixels(resized, 3))
        runner = engine.get_signature_runner(name)
        assert_same_function(
            np.concatenate([runner(images=image[None])["logits"] for image in images]), resized, images
        )


def test_xnnpack_takes_each_graph_as_a_whole(bundle):
    counts = []
    for size in SIZES:
        with vit_deploy.session(bundle.at(size)) as session:
            assert session.provider == "xnnpack" and list(session.placement) == ["xnnpack"]
            counts.append(session.placement["xnnpack"])

    assert len(set(counts)) == 1


def test_each_weight_is_in_the_file_once(bundle):
    with opened(bundle.model_path) as model:
        held = [bytes(buffer.content) for buffer in model.buffers if len(buffer.content)]
        used = [{tensor.buffer for tensor in graph.tensors if tensor.buffer} for graph in model.graphs]

    assert len(set(held)) == len(held)
    # The graphs differ in their positions and angles alone.
    assert len(used[0] & used[1] & used[2]) > 20 and all(len(one - used[0]) <= 10 for one in used)


def test_the_constants_of_every_graph_are_compared(bundle, checkpoint):
    held = [array.tobytes() for array in read_weights(bundle.model_path, "tflite").values()]
    for size in SIZES:
        last = resize(checkpoint, size).weights["pos_embed.table"][-1].tobytes()
        assert any(last in content for content in held), size


def test_the_manifest_names_each_size_and_its_signature(bundle):
    manifest = json.loads((bundle.directory / "artifact.json").read_text())

    assert manifest["sizes"] == [
        {"image_size": list(size), "signature": name} for size, name in zip(SIZES, NAMES, strict=True)
    ]
    assert manifest["input"]["shape"] == [1, 24, 32, 3]


def test_verify_proves_all_signatures_or_the_one_that_is_named(bundle):
    (every,) = vit_deploy.verify(bundle).to_dict()["results"]
    assert every["ok"] and [size["signature"] for size in every["sizes"]] == NAMES[1:]

    (one,) = vit_deploy.verify(bundle, signature=NAMES[2]).to_dict()["results"]
    assert one["ok"] and "sizes" not in one and one["metrics"] == every["sizes"][1]["metrics"]
    with pytest.raises(ConfigError, match="has no signature 'images_1x1'"):
        vit_deploy.verify(bundle, signature="images_1x1")


@pytest.fixture
def bare(bundle, tmp_path):
    """The file alone, without its manifest and what was recorded."""
    return Path(shutil.copy(bundle.model_path, tmp_path / "alone.tflite"))


def test_a_checkpoint_is_compared_with_every_signature_or_the_one_that_is_named(bundle, bare, checkpoint, tmp_path):
    save(checkpoint, tmp_path / "model.safetensors")
    for path in (bundle, bare):
        (every,) = vit_deploy.verify(path, against=tmp_path / "model.safetensors").to_dict()["results"]
        assert every["ok"] and [size["signature"] for size in every["sizes"]] == NAMES[1:]
        for name in NAMES:
            (one,) = vit_deploy.verify(path, against=tmp_path / "model.safetensors", signature=name).to_dict()[
                "results"
            ]
            assert one["ok"] and "sizes" not in one


def test_a_signature_that_left_the_checkpoint_is_told_of(bundle, bare, checkpoint, tmp_path):
    row = resize(checkpoint, SIZES[1]).weights["pos_embed.table"][-1].tobytes()
    held = bare.read_bytes()
    position = held.index(row)
    bare.write_bytes(held[:position] + np.float32(9).tobytes() + held[position + 4 :])
    save(checkpoint, tmp_path / "model.safetensors")

    (found,) = vit_deploy.verify(bare, against=tmp_path / "model.safetensors").to_dict()["results"]
    assert not found["ok"] and [size["ok"] for size in found["sizes"]] == [False, True]


def test_images_of_another_size_are_refused_with_those_that_there_are(bundle):
    with pytest.raises(ConfigError, match="is for images of 24x32 and 48x32 and 16x40 pixels"):
        bundle.at((24, 40))


def test_bench_takes_a_signature_or_a_size(bundle):
    (named,) = vit_deploy.bench(bundle, signature=NAMES[1], runs=2).to_dict()["results"]
    (sized,) = vit_deploy.bench(bundle, image_size=(48, 32), runs=2).to_dict()["results"]

    assert (named["signature"], sized["image_size"]) == (NAMES[1], "48x32")
    assert len(named["samples_ns"]) == len(sized["samples_ns"]) == 2
    with pytest.raises(ConfigError, match="not of 24x40"):
        vit_deploy.bench(bundle, image_size="24x40", runs=2)
    with pytest.raises(ConfigError, match=f"the signature {NAMES[1]} of .* is for images of 48x32 .* not of 16x40"):
        vit_deploy.bench(bundle, image_size="16x40", signature=NAMES[1], runs=2)


def test_bench_takes_a_signature_of_a_file_that_is_alone(bare):
    (named,) = vit_deploy.bench(bare, signature=NAMES[1], runs=2).to_dict()["results"]

    assert named["signature"] == NAMES[1] and len(named["samples_ns"]) == 2


def test_predict_takes_a_signature(bundle, tmp_path, capfd):
    from PIL import Image

    Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 60, 3), np.uint8)).save(tmp_path / "photo.png")
    found = []
    for arguments in ([], ["--signature", NAMES[1]]):
        assert command(["predict", str(bundle.directory), str(tmp_path / "photo.png"), "--json", *arguments]) == 0
        found.append(json.loads(capfd.readouterr().out)["results"][0]["top"])

    assert found[0] != found[1]
    assert command(["predict", str(bundle.directory), str(tmp_path / "photo.png"), "--signature", "other"]) == 2


def test_the_snippet_and_inspect_name_the_signatures(bundle, capsys):
    assert command(["inspect", str(bundle.directory)]) == 0
    assert f"24x32 ({NAMES[0]}), 48x32 ({NAMES[1]})" in " ".join(capsys.readouterr().out.split())
    assert command(["inspect", "--snippet", str(bundle.directory)]) == 0
    assert NAMES[0] in capsys.readouterr().out


def test_a_trained_size_is_not_resampled_twice(tmp_path):
    checkpoint = trained()
    made = vit_deploy.export(
        checkpoint, tmp_path, formats="tflite", image_size=[(16, 32), (24, 32)], like=Convention.DINOV2
    ).result
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))

    with vit_deploy.session(made.at((24, 32))) as session:
        assert_same_function(session.infer(images), checkpoint, images)


@pytest.mark.slow
def test_every_precision_shares_its_weights_and_is_proven_at_every_size(bundle, tmp_path):
    made = vit_deploy.quantize(bundle, tmp_path, precisions=PRECISIONS, quantizing=WITHOUT_TIMES)

    assert [artifact.precision for artifact in made] == PRECISIONS
    for artifact in made:
        assert artifact.sizes == bundle.sizes
        with opened(artifact.model_path) as model:
            used = [{tensor.buffer for tensor in graph.tensors if tensor.buffer} for graph in model.graphs]
        assert len(used[0] & used[1] & used[2]) > 20 and all(len(one - used[0]) <= 10 for one in used)


@pytest.mark.slow
def test_labels_and_pixels_go_with_a_file_for_several_sizes(tmp_path):
    import dataclasses

    checkpoint = dataclasses.replace(trained(), labels=tuple("abcde"))
    options = {"formats": "tflite", "image_size": SIZES[:2], "include_preprocessing": True}
    made = vit_deploy.export(checkpoint, tmp_path, **options).result

    assert read_labels(made.model_path) == tuple("abcde")
    assert read_artifact(tmp_path / "tflite-fp32").input.dtype == "uint8"
