from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints import archives
from vit_deploy import checkpoints
from vit_deploy.core import reference
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.errors import CheckpointError

GOLDEN = Path(__file__).parents[1] / "peers" / "golden" / "keras_hub"
NAMES = ("vit_classifier", "vit_without_biases", "vit_averaged", "deit_classifier", "dinov2", "dinov2_registers")
TOWERS = ("dinov3", "clip", "metaclip_2_tower", "siglip")
OF_ONE = ("dinov3_gated", "clip_tower", "metaclip_2", "siglip_tower")  # that are made anew where keras-hub is
HEADS = {"vit_classifier": 5, "vit_averaged": 5, "deit_classifier": 5}

needs_keras_hub = pytest.mark.skipif(importlib.util.find_spec("keras_hub") is None, reason="needs keras-hub")


def answers_of(checkpoint: Checkpoint) -> Any:
    height, width = checkpoint.config.image_size
    whole = checkpoint.preprocess.input_size or (height, width)
    images = np.random.default_rng(9).standard_normal((2, *whole, 3)).astype(np.float32)
    return reference.forward(checkpoint, images[:, :height, :width])


def assert_same(path: Path, expected: Any) -> None:
    found = answers_of(checkpoints.load(path))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", (*NAMES, *TOWERS))
def test_a_keras_file_gives_what_keras_hub_gave(name: str) -> None:
    assert_same(GOLDEN / f"{name}.keras", np.load(GOLDEN / f"{name}_answers.npy"))


def test_a_preset_folder_gives_what_keras_hub_gave() -> None:
    assert_same(GOLDEN / "vit_classifier_preset", np.load(GOLDEN / "vit_classifier_answers.npy"))
    single = checkpoints.load(GOLDEN / "vit_classifier.keras")
    assert checkpoints.load(GOLDEN / "vit_classifier_preset").digest() == single.digest()


def test_a_preset_of_a_backbone_alone_gives_its_sequence(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "vit_classifier_preset", tmp_path / "a")
    for name in ("task.json", "task.weights.h5"):
        (tmp_path / "a" / name).unlink()
    checkpoint = checkpoints.load(tmp_path / "a")
    assert checkpoint.config.output_shape == (25, 12)
    whole = checkpoints.load(GOLDEN / "vit_classifier.keras")
    table = checkpoint.weights["pos_embed.table"]
    assert np.array_equal(table, whole.weights["pos_embed.table"])


def test_a_preset_whose_head_is_missing_is_refused(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "vit_classifier_preset", tmp_path / "a")
    (tmp_path / "a" / "task.weights.h5").unlink()
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(tmp_path / "a")
    for part in ("missing pre_logits.kernel (12, 7)", "missing head.bias (5,)"):
        assert part in caught.value.message


def test_epsilon_and_preprocessing_are_those_of_the_file() -> None:
    for path in (GOLDEN / "vit_classifier.keras", GOLDEN / "vit_classifier_preset"):
        checkpoint = checkpoints.load(path)
        assert checkpoint.config.epsilon == 1e-3
        pixels = np.random.default_rng(1).integers(0, 256, (1, 24, 32, 3)).astype(np.uint8)
        expected = pixels.astype(np.float32) / 64 + np.array([-0.5, 0.25, 1.0], np.float32)
        assert np.abs(checkpoint.preprocess.normalize(pixels) - expected).max() < 1e-5
    assert checkpoints.load(GOLDEN / "dinov2.keras").config.epsilon == 1e-6
    assert checkpoints.load(GOLDEN / "dinov2.keras").preprocess == Preprocess()
    (filters,) = checkpoints.assumed(checkpoints.load(GOLDEN / "vit_classifier.keras").provenance)
    assert (filters.field, filters.value) == ("interpolation", "bilinear of Pillow")


def changed(
    folder: Path,
    name: str,
    *,
    backbone: dict[str, Any] | None = None,
    head: dict[str, Any] | None = None,
    weights: Callable[[Any], None] | None = None,
    whole: dict[str, Any] | None = None,
) -> Path:
    """A copy of a golden file with some options or weights changed."""

    def reconfigured(document: Any) -> None:
        of_backbone = document["config"]["backbone"]["config"] if name in HEADS else document["config"]
        of_backbone |= backbone or {}
        document["config"] |= head or {}
        document |= whole or {}

    data = archives.with_config((GOLDEN / f"{name}.keras").read_bytes(), reconfigured)
    path = folder / "changed.keras"
    path.write_bytes(data if weights is None else archives.with_weights(data, weights))
    return path


def refused(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path)
    assert caught.value.fix
    return caught.value


LAMBDA = {"module": "keras.layers", "class_name": "Lambda", "config": {}, "registered_name": None}
EVIL = {"module": "os", "class_name": "system", "config": {}, "registered_name": "keras_hub>Evil"}
CODE = {"module": "builtins", "class_name": "function", "config": "evil", "registered_name": "function"}
CONFIGS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "several at once": (
        {"backbone": {"rope": 1}, "head": {"pooling": "max", "activation": "softmax", "temperature": 2}},
        (
            "the option rope, which is not known",
            "a head with temperature, which is not known",
            "the pooling 'max', not one of token, gap",
            "a head with the activation 'softmax'",
        ),
    ),
    "a head that is code": ({"head": {"activation": CODE}}, ("a head with the activation {",)),
    "a backbone of another kind": ({"head": {"backbone": EVIL}}, ("its classifier is on a keras_hub>Evil",)),
    "a Lambda for a backbone": ({"head": {"backbone": LAMBDA}}, ("its classifier is on a Lambda",)),
    "a mean of all tokens": ({"head": {"pooling": "gap"}}, ("the pooling 'gap' over class token and patches alike",)),
    "no such class": ({"backbone": {"use_class_token": False}}, ("the pooling 'token' of the first patch",)),
    "an unknown model": ({"whole": {"registered_name": "keras_hub>SAM"}}, ("which is not a ViT of vit-deploy",)),
    "values of another kind": ({"backbone": {"image_shape": 7}}, ("the config of its model is damaged",)),
    "values no ViT can have": ({"backbone": {"num_heads": 5}}, ("embed_dim 12 is not a multiple of num_heads 5",)),
    "other classes": ({"head": {"num_classes": 7}}, ("head.kernel has shape (7, 5), expected (7, 7)",)),
    "other heads": (
        {"backbone": {"num_heads": 2}},
        ("block_0.attention.query.kernel cannot be made of", "(12, 3, 4): expected (12, 2, 6)"),
    ),
    "a billion layers": ({"backbone": {"num_layers": 10**9}}, ("its config says 1000000000 layers",)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_cannot_be_imported_is_refused_for_all_its_reasons(tmp_path: Path, name: str) -> None:
    changes, parts = CONFIGS[name]
    message = refused(changed(tmp_path, "vit_classifier", **changes)).message
    for part in parts:
        assert part in message


def test_all_that_is_wrong_with_the_weights_is_listed_at_once(tmp_path: Path) -> None:
    def damaged(file: Any) -> None:
        del file["layers/dense_1/vars/1"]
        block = file["layers/vi_t_backbone/layers/vi_t_encoder/encoder_layers/vi_t_encoder_block_1"]
        block["mlp/dense_1/vars/0"][3, 4] = np.nan
        del block["mha/output_dense/vars/0"]
        block["mha/output_dense/vars/0"] = np.ones((4, 3, 12), np.float32)
        file["layers/lora/vars/0"] = np.ones(3, np.float32)

    message = refused(changed(tmp_path, "vit_classifier", weights=damaged)).message
    for part in (
        "missing head.bias (5,)",
        "block_1.ffn.up.kernel has 1 value that is NaN or infinite",
        "block_1.attention.out.kernel cannot be made of",
        "(4, 3, 12): expected (3, 4, 12)",
        "unexpected layers/lora/vars/0 (3,)",
    ):
        assert part in message


def test_weights_that_the_config_denies_are_unexpected(tmp_path: Path) -> None:
    message = refused(changed(tmp_path, "deit_classifier", backbone={"use_mha_bias": False})).message
    assert "mha/key_dense/vars/1 (3, 4)" in message
    assert "mha/output_dense/vars/1 (12,)" in message


def test_a_config_stated_otherwise_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"epsilon is 0.001, not 1e-06"):
        checkpoints.load(GOLDEN / "vit_classifier.keras", config={"epsilon": 1e-6})


def changed_tower(
    folder: Path, name: str, options: dict[str, Any], weights: Callable[[Any], None] = lambda file: None
) -> Path:
    """A copy of a golden tower with some options or weights changed."""

    def reconfigured(document: Any) -> None:
        (document["config"].get("vision_encoder") or document)["config"].update(options)

    path = folder / "changed.keras"
    path.write_bytes(
        archives.with_weights(archives.with_config((GOLDEN / f"{name}.keras").read_bytes(), reconfigured), weights)
    )
    return path


TOWER_OPTIONS: dict[str, tuple[str, dict[str, Any], str]] = {
    "an option of a later version": ("dinov3", {"windows": 4}, "the option windows, which is not known"),
    "an activation that is code": ("clip", {"intermediate_activation": CODE}, "the activation {"),
    "a gate of another kind": (
        "dinov3",
        {"use_gated_mlp": True, "hidden_activation": "relu"},
        "a gate of 'relu', not one of silu, swish, gelu, sigmoid",
    ),
    "two epsilons": ("siglip", {"layer_norm_epsilon": 1e-5}, "norms of epsilon 1e-05, the last of which has 1e-06"),
    "biases that are not there": ("dinov3", {"use_key_bias": True}, "missing block_0.attention.key.bias (12,)"),
}


@pytest.mark.parametrize("name", TOWER_OPTIONS)
def test_a_tower_that_computes_something_else_is_refused(tmp_path: Path, name: str) -> None:
    golden, options, part = TOWER_OPTIONS[name]
    assert part in refused(changed_tower(tmp_path, golden, options)).message


def test_biases_that_the_config_denies_are_unexpected(tmp_path: Path) -> None:
    message = refused(changed_tower(tmp_path, "dinov3", {"use_query_bias": False})).message
    assert "attention/query_dense/vars/1 (12,)" in message


def test_tokens_get_the_rows_of_the_position_table_that_the_file_says(tmp_path: Path) -> None:
    def all_the_first(file: Any) -> None:
        file["layers/clip_vision_encoder/layers/clip_vision_embedding/vars/1"][...] = 0

    table = checkpoints.load(changed_tower(tmp_path, "clip", {}, all_the_first)).weights["pos_embed.table"]
    own = checkpoints.load(GOLDEN / "clip.keras").weights["pos_embed.table"]
    assert len(np.unique(own, axis=0)) == len(own)
    assert np.array_equal(table, np.repeat(own[:1], len(own), axis=0))


@pytest.mark.parametrize("row", (-1, 10))
def test_rows_that_the_position_table_has_not_are_refused(tmp_path: Path, row: int) -> None:
    def beyond(file: Any) -> None:
        file["layers/clip_vision_encoder/layers/clip_vision_embedding/vars/1"][0, 3] = row

    assert str(row) in refused(changed_tower(tmp_path, "clip", {}, beyond)).message


def test_a_tower_in_a_model_of_texts_too_is_read_without_them_and_projected() -> None:
    checkpoint = checkpoints.load(GOLDEN / "clip.keras")
    assert checkpoint.config.output_shape == (6,)
    assert checkpoint.config.image_size == (12, 12)
    assert checkpoint.preprocess.input_size == (14, 14)  # of which its patches leave two pixels unread
    assert "text tower" in checkpoints.assumptions(checkpoint)
    without = checkpoints.load(GOLDEN / "clip.keras", config={"head": False})
    assert without.config.output_shape == (12,)


def test_a_model_of_texts_on_another_tower_is_refused(tmp_path: Path) -> None:
    def replaced(document: Any) -> None:
        document["config"]["vision_encoder"] = EVIL

    path = tmp_path / "a.keras"
    path.write_bytes(archives.with_config((GOLDEN / "clip.keras").read_bytes(), replaced))
    assert "is on a keras_hub>Evil" in refused(path).message


UNREAD = {
    "SAMBackbone": "attention in windows",
    "ViTDetBackbone": "attention in windows",
    "SwinTransformerBackbone": "stages of several resolutions",
    "MiTBackbone": "stages of several resolutions",
    "ResNetImageClassifier": "convolutions instead of attention",
}


@pytest.mark.parametrize("kind", UNREAD)
def test_windows_and_stages_are_refused_by_their_name(tmp_path: Path, kind: str) -> None:
    def renamed(document: Any) -> None:
        document["registered_name"] = f"keras_hub>{kind}"

    path = tmp_path / "a.keras"
    path.write_bytes(archives.with_config((GOLDEN / "dinov3.keras").read_bytes(), renamed))
    message = refused(path).message
    assert f"it holds a keras_hub>{kind}, which is not a ViT of vit-deploy, with {UNREAD[kind]}" in message
    preset = tmp_path / "preset"
    shutil.copytree(GOLDEN / "vit_classifier_preset", preset)
    for name in ("task.json", "task.weights.h5"):
        (preset / name).unlink()
    (preset / "config.json").write_text(f'{{"registered_name": "keras_hub>{kind}", "config": {{}}}}')
    assert f"it holds a keras_hub>{kind}" in refused(preset).message


@pytest.mark.peers
@needs_keras_hub
@pytest.mark.parametrize("name", (*NAMES, *OF_ONE))
def test_what_keras_hub_saves_gives_what_it_computes(tmp_path: Path, name: str) -> None:
    from tests.peers import keras_hub_models

    model = keras_hub_models.made(name)
    model.save(tmp_path / "a.keras")
    assert_same(tmp_path / "a.keras", keras_hub_models.answered(model))
    model.save_to_preset(str(tmp_path / "preset"))
    assert_same(tmp_path / "preset", keras_hub_models.answered(model))


@pytest.mark.peers
@needs_keras_hub
def test_positions_of_another_size_are_those_that_keras_hub_resampled(tmp_path: Path) -> None:
    from tests.peers import keras_hub_models

    keras_hub_models.made("dinov2").save_to_preset(str(tmp_path / "trained"))
    backbone = keras_hub_models.keras_hub.models.DINOV2Backbone
    larger = backbone.from_preset(str(tmp_path / "trained"), image_shape=(24, 24, 3))
    larger.save_to_preset(str(tmp_path / "larger"))
    assert checkpoints.load(tmp_path / "larger").config.image_size == (24, 24)
    assert_same(tmp_path / "larger", keras_hub_models.answered(larger))
