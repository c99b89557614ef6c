from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_models import FEATURES, sequence, trained, under, vit

import vit_deploy
from vit_deploy import checkpoints
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.manifest import MANIFEST
from vit_deploy.errors import CheckpointError, ConfigError, MissingEngineError, OutputError
from vit_deploy.model.vit import ViT

IMAGES = np.random.default_rng(4).standard_normal((2, 8, 12, 3)).astype(np.float32)


def outputs(model: Any) -> list[Any]:
    found = model(IMAGES)
    return [np.asarray(keras.ops.cast(each, "float32")) for each in (found if isinstance(found, list) else [found])]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalization_type": "band_rms", "normalization_position": "post", "ffn_type": "geglu", "pooling": "mean"},
        {"normalization_type": "dynamic_tanh", "include_top": False, "attention_args": {"qkv_bias": False}},
    ],
)
def test_from_keras_to_safetensors_and_back_nothing_changes(tmp_path: Path, options: dict[str, Any]) -> None:
    model = vit(**options, provenance=[{"action": "random", "seed": 3}])
    model.save(tmp_path / "a.keras")
    checkpoints.save(checkpoints.load(tmp_path / "a.keras"), tmp_path / "b.safetensors")
    checkpoints.save(checkpoints.load(tmp_path / "b.safetensors"), tmp_path / "c.keras")
    first, last = (checkpoints.load(tmp_path / name) for name in ("a.keras", "c.keras"))
    assert first.digest() == last.digest() == model.to_checkpoint().digest()
    assert (first.config, first.preprocess, first.labels) == (last.config, last.preprocess, last.labels)
    assert first.provenance == last.provenance
    for name in ("b.safetensors", "c.keras"):
        np.testing.assert_array_equal(outputs(vit_deploy.load(tmp_path / name))[0], outputs(model)[0])


def walked(backbone: ViT) -> Any:
    inputs = keras.Input((8, 12, 3))
    x = backbone.pos_embed(backbone.class_token(backbone.patch_embed(inputs)))
    return keras.Model(inputs, [x := block(x) for block in backbone.transformer_layers])


HOUSES: dict[str, Any] = {
    "alone": lambda: vit(pooling="max", ffn_type="swiglu"),
    "trained": lambda: trained(vit(dropout_rate=0.1)),
    "mixed": lambda: trained(vit(dtype="mixed_float16")),
    "functional": lambda: trained(under(vit(**FEATURES), keras.layers.Dropout(0.5), keras.layers.Dense(4))),
    "mixed sequence": lambda: sequence(vit(**FEATURES, dtype="mixed_float16"), keras.layers.Dense(4)),
    "softmax": lambda: under(vit(**FEATURES), keras.layers.Dense(4, activation="softmax")),
    "every block": lambda: walked(vit()),
}
LOAD = """
import sys, pathlib
import numpy as np
import vit_deploy
folder = pathlib.Path(sys.argv[1])
for path in sorted(folder.glob("*.keras")):
    model = vit_deploy.load(path)
    found = model(np.load(folder / "images.npy"))
    import keras
    arrays = [np.asarray(keras.ops.cast(each, "float32")) for each in (found if isinstance(found, list) else [found])]
    np.savez(path.with_suffix(".npz"), *arrays)
"""


@pytest.mark.parametrize("name", ["alone", "functional"])
def test_a_house_is_loaded_with_the_same_bits(tmp_path: Path, name: str) -> None:
    model = HOUSES[name]()
    model.save(tmp_path / "a.keras")
    for before, after in zip(outputs(model), outputs(vit_deploy.load(tmp_path / "a.keras")), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.slow
def test_a_new_process_loads_every_house_with_the_same_bits(tmp_path: Path) -> None:
    expected = {}
    for name, house in HOUSES.items():
        model = house()
        expected[name] = outputs(model)
        model.save(tmp_path / f"{name}.keras")
    np.save(tmp_path / "images.npy", IMAGES)
    ran = subprocess.run([sys.executable, "-c", LOAD, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    for name, arrays in expected.items():
        with np.load(tmp_path / f"{name}.npz") as found:
            assert len(found.files) == len(arrays)
            for key, array in zip(found.files, arrays, strict=True):
                np.testing.assert_array_equal(found[key], array, err_msg=name)


def test_a_model_with_code_in_it_is_not_loaded(tmp_path: Path) -> None:
    model = under(vit(**FEATURES), keras.layers.Lambda(lambda x: 2 * x, name="code"), keras.layers.Dense(4))
    model.save(tmp_path / "a.keras")
    with pytest.raises(
        CheckpointError, match=r"Keras cannot make its model: .*`Lambda`.*\n  fix: only layers of Keras"
    ):
        vit_deploy.load(tmp_path / "a.keras")


def test_the_same_checkpoint_gives_the_same_safetensors_in_another_process(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    checkpoints.save(checkpoint, tmp_path / "a.safetensors")
    code = (
        "import sys; from vit_deploy import checkpoints\n"
        "checkpoints.save(checkpoints.load(sys.argv[1]), sys.argv[2])\n"
        "engines = {'keras', 'tensorflow', 'h5py', 'torch', 'safetensors', 'onnx', 'onnxruntime'}\n"
        "assert not engines & set(sys.modules), engines & set(sys.modules)\n"
    )
    paths = [str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]
    environment = os.environ | {"PYTHONHASHSEED": "5"}
    ran = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, env=environment, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_path_that_is_no_file_is_not_said_to_be_missing() -> None:
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(os.devnull)
    assert caught.value.message == f"{os.devnull} is neither a file nor a folder"


def test_a_path_that_leads_nowhere_says_what_is_there(tmp_path: Path) -> None:
    for name in ("flowers.keras", "birds.safetensors", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(tmp_path / "flower.keras")
    assert caught.value.message == f"there is no file {tmp_path / 'flower.keras'}"
    assert caught.value.fix == (
        f"did you mean 'flowers.keras'? the checkpoints in {tmp_path} are birds.safetensors, flowers.keras; "
        "the scales are pico, tiny, small, base, large, huge"
    )


def test_a_misspelt_scale_is_recognized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load("samll")
    assert caught.value.fix.startswith("did you mean 'small'? . holds no checkpoint; the scales are pico")


@pytest.mark.parametrize("inside", [MANIFEST, "saved_model.pb"])
def test_a_bundle_is_an_artifact_and_no_checkpoint(tmp_path: Path, inside: str) -> None:
    (tmp_path / inside).touch()
    with pytest.raises(
        CheckpointError, match=r"is an artifact, which weights .*\n  fix: give the checkpoint that it was"
    ):
        checkpoints.load(tmp_path)


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
def test_a_file_of_an_artifact_is_recognized(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x08\x0a\x12\x00TFL3 and so on")
    with pytest.raises(CheckpointError, match="is an artifact, which weights cannot be taken back from"):
        checkpoints.load(tmp_path / name)


def test_a_folder_names_the_checkpoints_in_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a folder that holds no checkpoint\n  fix: give a checkpoint file"):
        checkpoints.load(tmp_path)
    for name in ("a.keras", "b.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=r"holds several checkpoints\n  fix: give the file: a\.keras, b\.safe"):
        checkpoints.load(tmp_path)


def test_a_folder_that_holds_one_checkpoint_stands_for_it(tmp_path: Path, checkpoint: Checkpoint) -> None:
    checkpoints.save(checkpoint, tmp_path / "mine.safetensors")
    (tmp_path / "config.json").write_text("not ours, and not read")
    assert checkpoints.load(tmp_path).digest() == checkpoint.digest()


@pytest.mark.parametrize("content", [b"", b"PK", b"hello, this is a text", b"\x80\x09pickle"])
def test_a_file_of_another_kind_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.keras").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.keras is no checkpoint: it begins like none of \.keras, \.h5"):
        checkpoints.load(tmp_path / "a.keras")


def test_a_safetensors_file_of_no_known_dialect_shows_its_first_names(tmp_path: Path) -> None:
    header = json.dumps({"cls_token": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(tmp_path / "a.safetensors")
    assert "it is of no known dialect; its first tensors are cls_token" in caught.value.message
    assert caught.value.fix == f"known are {', '.join(checkpoints.SOURCES)}"


def test_without_h5py_the_extra_that_installs_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vit().save(tmp_path / "a.keras")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(
        MissingEngineError, match=r"needs h5py, which is not installed\n  fix: pip install \"vit-deploy\[cpu\]\""
    ):
        checkpoints.load(tmp_path / "a.keras")


def test_without_keras_a_keras_file_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Checkpoint
) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(MissingEngineError, match=r"needs keras, which is not installed\n  fix: pip install"):
        checkpoints.save(checkpoint, tmp_path / "new" / "a.keras")
    assert not (tmp_path / "new").exists()


def test_other_suffixes_are_refused_with_those_that_there_are(tmp_path: Path, checkpoint: Checkpoint) -> None:
    for name in ("a.h5", "a.npz", "a"):
        with pytest.raises(
            OutputError, match=rf"cannot be written as {name}\n  fix: .* ends in \.keras or \.safetensors"
        ):
            checkpoints.save(checkpoint, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_target_is_replaced_only_by_force(tmp_path: Path, checkpoint: Checkpoint) -> None:
    target = tmp_path / "a.safetensors"
    target.write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"already there: .*a\.safetensors\n  fix: add --force"):
        checkpoints.save(checkpoint, target)
    assert target.read_bytes() == b"precious"
    checkpoints.save(checkpoint, target, force=True)
    assert checkpoints.load(target).digest() == checkpoint.digest()
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_folder_is_no_target_even_by_force(tmp_path: Path, checkpoint: Checkpoint) -> None:
    (tmp_path / "a.keras").mkdir()
    with pytest.raises(OutputError, match=r"a\.keras is a folder\n  fix: give a file name"):
        checkpoints.save(checkpoint, tmp_path / "a.keras", force=True)


def test_a_config_file_is_read(tmp_path: Path, checkpoint: Checkpoint) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(checkpoint.config.to_dict()))
    assert ViTConfig.from_dict(checkpoints.read_config(path)) == checkpoint.config


def test_a_config_file_that_cannot_be_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for text, expected in {
        "[1]": "config.json is a list; expected an object",
        "{": "config.json is not valid JSON",
        '{"embed": 3}': "config.json has fields that no config has: embed",
    }.items():
        path.write_text(text)
        with pytest.raises(CheckpointError) as caught:
            checkpoints.read_config(path)
        assert expected in caught.value.message
    with pytest.raises(CheckpointError, match=r"cannot read the config .*none\.json: No such file"):
        checkpoints.read_config(tmp_path / "none.json")


def test_every_source_can_be_imported_without_an_engine() -> None:
    code = (
        "import sys; from vit_deploy import checkpoints\n"
        "for name in checkpoints.SOURCES:\n"
        "    checkpoints.SOURCES.load(name)()\n"
        "    assert not {'keras', 'tensorflow', 'h5py', 'torch', 'onnx'} & set(sys.modules), name\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_a_source_is_found_by_name_or_the_nearest_is_proposed() -> None:
    with pytest.raises(ConfigError, match=r"unknown checkpoint source 'kera'\n  fix: did you mean 'keras'\?"):
        checkpoints.SOURCES.load("kera")
