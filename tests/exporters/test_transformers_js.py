"""The folder for transformers.js has what the library asks for, and the library sees what `predict` sees."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from PIL import Image

import vit_deploy
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.manifest import write_manifest
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.synthetic_images import natural_pixels
from vit_deploy.errors import ConfigError, OutputError
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.onnx.file import save
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.transformers_js import USUAL, differences, model_config, processor_config, write_folder

LABELS = ("tabby cat", "golden retriever", "fire engine", "ein Wörterbuch", "teapot")
SIZE = (24, 32)
RESIZED = (28, 37)  # that no image of this size has to be resized to
RECORDED = Preprocess((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), resize=RESIZED, crop=True, interpolation="bicubic")


@pytest.fixture(scope="module")
def labelled(make_checkpoint) -> Checkpoint:
    made = make_checkpoint()
    return Checkpoint(made.config, made.weights, RECORDED, labels=LABELS)


@pytest.fixture(scope="module")
def exported(labelled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    return vit_deploy.export(labelled, folder, target="transformers.js", precisions=["fp32", "int8"])


def test_the_folder_has_the_librarys_names_beside_the_artifacts(exported):
    folder = exported[0].directory.parent / "transformers.js"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {"config.json", "preprocessor_config.json", "onnx/model.onnx", "onnx/model_quantized.onnx"}
    assert [record["transformers_js"] for record in exported.records] == [
        str(folder / "onnx" / name) for name in ("model.onnx", "model_quantized.onnx")
    ]
    assert [artifact.name for artifact in exported] == ["onnx-fp32", "onnx-int8"]
    [given] = onnx.load(folder / "onnx" / "model_quantized.onnx").graph.input
    assert given.name == "pixel_values"
    assert [side.dim_value for side in given.type.tensor_type.shape.dim] == [0, 3, *SIZE]
    assert any("in its own way" in note for note in exported.notes)
    assert vit_deploy.verify(exported[0]).ok
    schema = json.loads((Path(vit_deploy.__file__).parent / "core" / "artifact.schema.json").read_text())
    for artifact in exported:
        jsonschema.validate(json.loads((artifact.directory / "artifact.json").read_text(encoding="utf-8")), schema)


def test_the_configs_say_what_is_recorded(exported):
    folder = exported[0].directory.parent / "transformers.js"
    config, processor = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("config.json", "preprocessor_config.json")
    )
    assert config["id2label"] == {str(index): label for index, label in enumerate(LABELS)}
    assert (config["model_type"], config["image_size"], config["patch_size"]) == ("vit", [24, 32], [8, 4])
    assert "transformers.js_config" not in config  # both precisions that the library takes by itself are there
    assert processor["size"] == {"height": 28, "width": 37}
    assert processor["crop_size"] == {"height": 24, "width": 32}
    assert processor["image_mean"] == [0.4, 0.5, 0.6] and processor["resample"] == 3


def test_a_precision_that_the_library_would_not_take_by_itself_is_named(exported):
    [fp32, int8] = exported
    assert model_config([fp32], {})["transformers.js_config"] == {"dtype": "fp32"}
    assert model_config([int8], {})["transformers.js_config"] == {"dtype": "q8"}
    outside = model_config([fp32, int8], {"model.onnx": 1})["transformers.js_config"]
    assert outside == {"use_external_data_format": {"model.onnx": 1}}


@pytest.mark.parametrize(
    ("recorded", "size"),
    [
        (Preprocess(), {"height": 24, "width": 32}),
        (Preprocess(resize=40, crop=True), {"shortest_edge": 40}),
        (Preprocess(resize=(40, 40), crop=True, keep_aspect=True), {"shortest_edge": 40}),
    ],
)
def test_every_recorded_resize_has_its_form(exported, recorded, size):
    processor = processor_config(dataclasses.replace(exported[0], preprocess=recorded))
    assert processor["size"] == size
    assert processor["do_center_crop"] == recorded.crop == ("crop_size" in processor)


def test_what_the_library_cannot_do_is_said(labelled):
    config = labelled.config
    kept = Preprocess(resize=(27, 36), crop=True, keep_aspect=True)
    assert len(differences(RECORDED, config)) == 1
    assert "distorts images" in differences(kept, config)[1]
    assert "top left" in differences(Preprocess(resize=40, crop=True, input_size=(30, 35)), config)[1]
    assert "softmax" in differences(RECORDED, config.replace(probabilities="sigmoid"))[1]


def test_large_weights_lie_beside_the_model_under_the_librarys_name(exported, tmp_path):
    result = exported.made.results[0]
    folder = tmp_path / "onnx-fp32"
    folder.mkdir()
    model = onnx.load(result.artifact.model_path)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    moved = dataclasses.replace(result, artifact=dataclasses.replace(result.artifact, directory=folder))
    placed = write_folder([moved], tmp_path / "transformers.js", force=False)
    assert (tmp_path / "transformers.js" / "onnx" / "model.onnx_data").stat().st_size > 1000
    weights, expected = (
        {tensor.name: onnx.numpy_helper.to_array(tensor).tobytes() for tensor in onnx.load(path).graph.initializer}
        for path in (placed["onnx-fp32"], result.artifact.model_path)
    )
    assert weights == expected
    config = json.loads((tmp_path / "transformers.js" / "config.json").read_text(encoding="utf-8"))
    assert config["transformers.js_config"]["use_external_data_format"] == {"model.onnx": 1}


def test_what_the_library_cannot_run_is_refused_before_any_work(labelled, tmp_path):
    def export(model, **options):
        vit_deploy.export(model, tmp_path / "new", target="transformers.js", **options)

    headless = Checkpoint.random(labelled.config.replace(include_top=False, num_classes=0), seed=1)
    with pytest.raises(ConfigError, match="the model has no head"):
        export(headless)
    gray = Checkpoint.random(labelled.config.replace(channels=1), seed=1)
    with pytest.raises(ConfigError, match="gives images of 3 channels, and the model takes 1"):
        export(gray)
    with pytest.raises(ConfigError, match="gives its models normalised images in NCHW, not pixels"):
        export(labelled, include_preprocessing=True)
    half = vit_deploy.QuantizeOptions(half_io=True)
    with pytest.raises(ConfigError, match="gives float32, and --half-io takes float16"):
        export(labelled, precisions="fp16", quantizing=half)
    (tmp_path / "new" / "transformers.js").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"already there: .*transformers\.js"):
        export(labelled)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["transformers.js"]


def test_the_target_makes_onnx_files_alone_and_in_its_layout():
    [job], _ = plan(["onnx"], ["int4"], target="transformers.js")
    assert job.options == ExportOptions(layout="nchw", target=job.options.target)
    assert job.options.input_spec(ViTConfig(SIZE, (8, 4), 3, 12, 3, 2, 20, 5)).name == "pixel_values"


RUN = """
import {pipeline, RawImage, AutoModel, AutoModelForImageClassification, Tensor, env} from "LIBRARY";
import {toPixels, normalize, toPlanes} from "PREPROCESS";
import fs from "node:fs";
const [folder, file, recorded, models] = JSON.parse(process.argv[1]);
Object.assign(env, {allowRemoteModels: false, localModelPath: folder});
const answers = [];
for (const [name, dtype] of models) {
  const classify = await pipeline("image-classification", name, {dtype, device: "cpu"});
  answers.push(await classify(file));
  // The same model with the pixels of the package's own preprocessing, of an image that has to be resized.
  const large = await RawImage.read(file.replace("fitting", "large"));
  const image = {width: large.width, height: large.height, channels: 3, data: large.rgb().data};
  const input = toPlanes(normalize(toPixels(image, recorded, [24, 32]).data, recorded), 3);
  const {logits} = await classify.model({pixel_values: new Tensor("float32", input, [1, 3, 24, 32])});
  answers.at(-1).push(Array.from(logits.data));
}
process.stdout.write(JSON.stringify(answers));
"""
DTYPES = {"fp32": "fp32", "fp16": "fp16", "int8": "q8", "int8-static": "int8", "int4": "q4"}


@pytest.mark.slow
def test_the_library_sees_in_node_what_predict_sees(labelled, node, npm_files, tmp_path):
    library = npm_files / "@huggingface" / "transformers" / "dist" / "transformers.node.mjs"
    if not library.is_file():
        pytest.skip("needs @huggingface/transformers")
    made = vit_deploy.export(labelled, tmp_path, target="transformers.js", precisions=list(DTYPES))
    assert [artifact.precision for artifact in made] == list(DTYPES)
    models = [("transformers.js", artifact) for artifact in made]
    models += [("outside", artifact) for artifact in with_weights_outside(made, tmp_path)]
    Image.fromarray(natural_pixels(1, *RESIZED, 3)[0]).save(tmp_path / "fitting.png")
    Image.fromarray(natural_pixels(1, 90, 130, 3, seed=3)[0]).save(tmp_path / "large.png")
    script = RUN.replace("LIBRARY", library.as_uri())
    script = script.replace("PREPROCESS", (Path(vit_deploy.__file__).parent / "web" / "preprocess.mjs").as_uri())
    asked = [(name, DTYPES[artifact.precision]) for name, artifact in models]
    given = [str(tmp_path), str(tmp_path / "fitting.png"), RECORDED.to_dict(), asked]
    done = subprocess.run(
        [node, "--input-type=module", "--eval", script, "--", json.dumps(given)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for (_, artifact), answer in zip(models, json.loads(done.stdout), strict=True):
        *classes, logits = answer
        fitting, large = vit_deploy.predict(artifact, [tmp_path / "fitting.png", tmp_path / "large.png"])
        # Kernels of the library's own version of ONNX Runtime round otherwise where there are integers.
        close = 1e-5 if artifact.precision == "fp32" else 0.02
        assert [seen["label"] for seen in classes] == [seen.label for seen in fitting.top]
        assert [seen["score"] for seen in classes] == pytest.approx([s.probability for s in fitting.top], abs=close)
        expected = np.zeros(len(LABELS))
        for seen in large.top:
            expected[seen.index] = seen.logit
        np.testing.assert_allclose(logits, expected, atol=4 * close)


def with_weights_outside(made, folder: Path):
    """Write `outside`, the folder of the same models as it is where their weights are too large for one file."""
    moved = []
    for result in (each for each in made.made.results if each.artifact.precision in USUAL):
        artifact = dataclasses.replace(result.artifact, directory=folder / f"outside-{result.artifact.precision}")
        shutil.copytree(result.artifact.directory, artifact.directory)
        save(onnx.load(artifact.model_path), artifact.model_path, external_limit=1)  # as those past the limit are
        moved.append(dataclasses.replace(result, artifact=write_manifest(artifact)))
    placed = write_folder(moved, folder / "outside", force=False)
    assert all(Path(f"{path}_data").stat().st_size > 1000 for path in placed.values())
    return [one.artifact for one in moved]
