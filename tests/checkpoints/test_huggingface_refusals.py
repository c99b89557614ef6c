"""Which folders of transformers are refused, and whether the message says what is wrong with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints.huggingface_folders import Tensors, changed
from tests.peers.make_huggingface_golden import TARGET
from vit_deploy.checkpoints import assumptions, load
from vit_deploy.core.choices import Pooling
from vit_deploy.errors import CheckpointError, ConfigError


def test_weights_alone_of_an_unusual_width_do_not_tell_their_heads(tmp_path: Path) -> None:
    folder = changed(tmp_path, "clip-vision")
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError) as failure:
        load(folder)
    assert "nothing says how many heads it has" in str(failure.value)
    assert '"num_heads"' in failure.value.fix


def test_weights_alone_of_no_square_do_not_tell_their_size(tmp_path: Path) -> None:
    folder = changed(tmp_path, "vit")
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="8 patches, which make no square"):
        load(folder, config={"num_heads": 3})


@pytest.mark.parametrize("model_type", ["swin", "swinv2", "convnext", "dinov3_convnext"])
def test_another_architecture_is_refused_by_its_name(model_type: str, tmp_path: Path) -> None:
    folder = changed(
        tmp_path, "vit", lambda tensors: {f"{model_type}.stem": np.zeros(3, np.float32)}, {"model_type": model_type}
    )
    with pytest.raises(CheckpointError) as failure:
        load(folder)
    assert f"model_type '{model_type}'" in str(failure.value)
    assert "; expected one of vit, deit," in str(failure.value)
    assert "fix: give a plain ViT" in str(failure.value)


def test_another_architecture_with_the_names_of_a_vit_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="model_type 'vit_hybrid'"):
        load(changed(tmp_path, "vit", config={"model_type": "vit_hybrid"}))


def test_a_config_that_contradicts_the_weights_is_refused_with_all_that_differs(tmp_path: Path) -> None:
    entries = {"hidden_size": 48, "num_hidden_layers": 3, "id2label": {"0": "ant"}, "patch_size": 8}
    with pytest.raises(CheckpointError) as failure:
        load(changed(tmp_path, "vit", config=entries))
    for each in ("embed_dim is 24", "num_layers is 2", "patch_size is [8, 6]"):
        assert f"{each} by its weights and" in str(failure.value)
    assert "1 label in config.json for 5 classes" in str(failure.value)


def test_a_size_that_the_positions_are_not_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"for 4 patches, and its config\.json says image_size 32"):
        load(changed(tmp_path, "dinov2", config={"image_size": 32}))


@pytest.mark.parametrize("act", ["laplace", "linear", 3, ["gelu"]])
def test_an_activation_that_no_vit_here_has_is_refused(act: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="hidden_act"):
        load(changed(tmp_path, "vit", config={"hidden_act": act}))


def with_classifier(tensors: Tensors) -> Tensors:
    return {**tensors, "classifier.weight": np.ones((5, 24), np.float32), "classifier.bias": np.ones(5, np.float32)}


def test_clips_own_classifier_reads_the_mean_of_patches_without_the_last_norm(tmp_path: Path) -> None:
    labels = {"id2label": {number: f"class {number}" for number in range(5)}}
    config = {"architectures": ["CLIPForImageClassification"], **labels}
    found = load(changed(tmp_path, "clip-vision", with_classifier, config))
    assert (found.config.last_norm, found.config.pooling, found.config.num_classes) == (False, Pooling.MEAN, 5)
    assert "last norm" in assumptions(found)


def test_clips_own_classifier_of_no_classes_gives_that_mean(tmp_path: Path) -> None:
    config = {"architectures": ["CLIPForImageClassification"], "num_labels": 0, "id2label": {}}
    found = load(changed(tmp_path, "clip-vision", config=config)).config
    assert (found.last_norm, found.pooling, found.include_top) == (False, Pooling.MEAN, False)


def test_a_classifier_on_a_clip_that_nothing_is_said_of_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a classifier on a CLIP, and no config\.json of a CLIPFor"):
        load(changed(tmp_path, "clip-vision", with_classifier))


def test_a_pooler_of_another_activation_is_refused(tmp_path: Path) -> None:
    folder = changed(tmp_path, "vit-model", config={"pooler_act": "relu"})
    assert load(folder).config.pre_logits_dim == 0
    with pytest.raises(CheckpointError, match="pooler_act 'relu'; a pooler here has tanh"):
        load(folder, config={"pooling": "cls", "pre_logits_dim": 24})


BACKBONE = {"architectures": ["Dinov2Backbone"]}


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ({"out_features": ["stage1", "stage2"]}, "out_features stage1, stage2: a backbone of 2 feature maps"),
        ({"out_features": ["stem"]}, "out_features stem; expected a stage from stage1 to stage2"),
        ({"out_features": ["stage9"]}, "out_features stage9; expected a stage from stage1 to stage2"),
        ({"out_features": None, "out_indices": [1, 2]}, "out_features stage1, stage2: a backbone of 2 feature maps"),
        ({"out_features": None, "out_indices": [7]}, "config.json: out_features is damaged"),
        ({"out_features": "stage1"}, "config.json: out_features is damaged: expected a list"),
    ],
)
def test_a_backbone_of_no_single_stage_is_refused(stages: Mapping[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as failure:
        load(changed(tmp_path, "dinov2", config={**BACKBONE, **stages}))
    assert said in str(failure.value)


@pytest.mark.parametrize("stages", [{"out_features": ["stage1"]}, {"out_features": None, "out_indices": [-2]}])
def test_an_early_stage_of_a_backbone_is_the_shorter_encoder_with_the_last_norm(
    stages: Mapping[str, Any], tmp_path: Path
) -> None:
    def headless(tensors: Tensors) -> Tensors:
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}

    whole = load(changed(tmp_path / "whole", "dinov2", headless, BACKBONE))
    early = load(changed(tmp_path / "early", "dinov2", headless, {**BACKBONE, **stages}))
    assert (whole.config.num_layers, early.config.num_layers) == (2, 1)
    np.testing.assert_array_equal(early.weights["norm.scale"], whole.weights["norm.scale"])
    assert "blocks after the one that is read" in assumptions(early)


def test_a_backbone_without_the_last_norm_gives_the_tokens_as_they_are(tmp_path: Path) -> None:
    def headless(tensors: Tensors) -> Tensors:
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier")}

    config = {**BACKBONE, "apply_layernorm": False}
    found = load(changed(tmp_path, "dinov2", headless, config))
    assert (found.config.last_norm, found.config.pooling) == (False, None)
    assert "last norm" in assumptions(found)


def test_all_that_is_wrong_with_the_weights_is_listed_at_once(tmp_path: Path) -> None:
    def damaged(tensors: Tensors) -> Tensors:
        del tensors["vit.layernorm.bias"]
        del tensors["vit.encoder.layer.1.attention.attention.key.weight"]
        tensors["vit.encoder.layer.0.output.dense.bias"] = np.zeros(7, np.float32)
        tensors["vit.encoder.layer.0.lambda_1"] = np.zeros(24, np.float32)
        tensors["vit.embeddings.cls_token"][0, 0, 3] = np.nan
        return tensors

    with pytest.raises(CheckpointError) as failure:
        load(changed(tmp_path, "vit", damaged))
    for each in (
        "missing norm.bias (24,)",
        "missing block_1.attention.key.kernel (24, 24)",
        "block_0.ffn.down.bias has shape (7,), expected (24,)",
        "unexpected vit.encoder.layer.0.lambda_1 (24,)",
        "class_token.class has 1 value that is NaN or infinite",
    ):
        assert each in str(failure.value)


def test_a_config_that_says_otherwise_is_listed_with_what_is_wrong_with_the_weights(tmp_path: Path) -> None:
    first = "vit.encoder.layer.0.intermediate.dense.weight"

    def damaged(tensors: Tensors) -> Tensors:
        del tensors["vit.layernorm.bias"]
        return {**tensors, first: np.zeros((39, 24), np.float32)}

    with pytest.raises(CheckpointError) as failure:
        load(changed(tmp_path, "vit", damaged, config={"hidden_size": 32}))
    for each in (
        "embed_dim is 24 by its weights and 32 by the config beside it",
        "missing norm.bias (24,)",
        "block_0.ffn.up.kernel has shape (24, 39), expected (24, 40)",
    ):
        assert each in str(failure.value)


def test_a_block_of_an_enormous_number_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    def numbered(tensors: Tensors) -> Tensors:
        last = "vit.encoder.layer.1.layernorm_after.bias"
        return {**tensors, last.replace(".1.", ".999998."): tensors[last]}

    with pytest.raises(CheckpointError, match="999999 layers, and it holds"):
        load(changed(tmp_path, "vit", numbered, config={"num_hidden_layers": 999999}))


def test_an_image_size_that_the_positions_are_not_for_is_refused_by_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as failure:
        load(changed(tmp_path, "vit", config={"image_size": [64, 24]}))
    assert "its position table is for 8 patches, and its config.json says image_size [64, 24]" in str(failure.value)
    assert failure.value.fix == "correct config.json, or get the file again"


OTHER_AXES, NOT_TAKEN_APART = "{tensor} has the shape {shape}; expected", "{tensor} {shape}"


@pytest.mark.parametrize(
    ("name", "tensor", "shape", "said"),
    [
        ("vit", "vit.embeddings.patch_embeddings.projection.weight", (24, 3, 48), OTHER_AXES),
        ("vit", "vit.embeddings.patch_embeddings.projection.weight", (24, 3, 0, 6), OTHER_AXES),
        ("vit", "vit.embeddings.position_embeddings", (9, 24), OTHER_AXES),
        ("registers", "dinov2_with_registers.embeddings.register_tokens", (3, 24), OTHER_AXES),
        ("siglip-vision", "embeddings.position_embedding.weight", (1, 4, 24), OTHER_AXES),
        ("vit", "vit.embeddings.cls_token", (2, 1, 24), NOT_TAKEN_APART),
        ("deit-teacher", "distillation_classifier.bias", (1,), NOT_TAKEN_APART),
        ("dinov2", "dinov2.encoder.layer.0.mlp.weights_in.bias", (129,), NOT_TAKEN_APART),
        ("siglip-vision", "head.attention.in_proj_weight", (73, 24), NOT_TAKEN_APART),
    ],
)
def test_a_tensor_of_another_shape_is_refused_by_name(
    name: str, tensor: str, shape: tuple[int, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError) as failure:
        load(changed(tmp_path, name, lambda tensors: {**tensors, tensor: np.zeros(shape, np.float32)}))
    assert said.format(tensor=tensor, shape=shape) in str(failure.value)


@pytest.mark.parametrize(
    "document",
    [
        {"id2label": ["a"]},
        {"id2label": {"a": "b"}},
        {"image_size": "large"},
        {"image_size": [16, 24, 3]},
        {"image_size": -16},
        {"patch_size": 0},
        {"num_attention_heads": 5},
        {"layer_norm_eps": "small"},
        {"layer_norm_eps": 2},
        {"vision_config": 3},
        {"vision_config": [["hidden_size", 24]]},
        {"num_attention_heads": [3]},
    ],
)
def test_a_config_of_impossible_values_is_a_clear_error(document: Mapping[str, Any], tmp_path: Path) -> None:
    with pytest.raises((CheckpointError, ConfigError)) as failure:
        load(changed(tmp_path, "vit", config=document))
    assert failure.value.fix


def test_a_config_that_is_no_json_is_a_clear_error(tmp_path: Path) -> None:
    folder = changed(tmp_path, "vit")
    (folder / "config.json").write_text('{"model_type": "vit",')
    with pytest.raises(CheckpointError, match=r"config\.json is not valid JSON"):
        load(folder)


@pytest.mark.parametrize("field", ["num_attention_heads", "layer_norm_eps"])
def test_what_shapes_do_not_tell_may_not_be_null(field: str, tmp_path: Path) -> None:
    folder = shutil.copytree(TARGET / "vit", tmp_path / "vit")
    document = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**document, field: None}))
    with pytest.raises(ConfigError, match="is None; expected"):
        load(folder)
