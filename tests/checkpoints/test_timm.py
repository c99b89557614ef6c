from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import state_dicts
from numpy.typing import NDArray
from peers import timm_families

from vit_deploy import checkpoints
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.preprocess import Interpolation
from vit_deploy.core.reference import forward
from vit_deploy.core.resize import resize
from vit_deploy.errors import CheckpointError, ConfigError

GOLDEN = Path(timm_families.__file__).parent / "golden" / "timm"
# Both sides compute in float64 with the same float32 weights; of two heads the average bias is rounded to float32.
# A wrong epsilon, 1e-5 in place of 1e-6, is off by 1e-6 and more.
TOLERANCE = 1e-8
COMPUTED, COMPUTED_TOLERANCE = {"relpos_like_swin", "naflex_apart"}, 1e-7  # tables that timm rounds to float32
RESIZE_TOLERANCE = 1e-5  # timm resamples positions in float32
IMAGES = timm_families.drawn_images(24, 32)
SMALL = {"num_heads": 3, "image_size": [24, 32]}


def distance(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference, relative to the largest value."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def golden_output(name: str) -> NDArray[Any]:
    return np.load(GOLDEN / name / "output.npy")


@pytest.mark.parametrize("name", timm_families.CASES)
def test_a_model_that_timm_saved_gives_the_logits_that_timm_gives(name: str) -> None:
    checkpoint = checkpoints.load(GOLDEN / name)
    assert distance(forward(checkpoint, IMAGES), golden_output(name)) <= TOLERANCE


@pytest.mark.peers
@pytest.mark.parametrize("name", timm_families.CASES)
def test_a_model_that_timm_saves_now_gives_the_logits_that_timm_gives(name: str, timm: Any, tmp_path: Path) -> None:
    model = timm_families.make(timm, name, img_size=[16, 12])
    timm_families.save(timm, name, model, tmp_path)
    images = timm_families.drawn_images(16, 12)
    tolerance = COMPUTED_TOLERANCE if name in COMPUTED else TOLERANCE
    assert distance(forward(checkpoints.load(tmp_path), images), timm_families.output(model, images)) <= tolerance


@pytest.mark.parametrize("name", timm_families.RESIZED)
def test_a_model_resized_is_what_timm_makes_of_it_at_that_size(name: str) -> None:
    resized = resize(checkpoints.load(GOLDEN / name), timm_families.NEW_SIZE)
    found = forward(resized, timm_families.drawn_images(*timm_families.NEW_SIZE))
    assert distance(found, np.load(GOLDEN / name / "resized_output.npy")) <= RESIZE_TOLERANCE
    assert resized.provenance[-1].facts["convention"] == "timm"


def test_the_config_is_read_from_tensors_and_from_the_config_beside_them() -> None:
    assert checkpoints.load(GOLDEN / "clip_quickgelu").config == ViTConfig(
        **{**SMALL, "patch_size": (8, 4), "embed_dim": 12, "num_layers": 2, "mlp_dim": 24, "num_classes": 5},
        pooling=Pooling.CLS,
        activation=Activation.QUICK_GELU,
        epsilon=1e-5,
        pre_norm=True,
    )
    loaded = checkpoints.load(GOLDEN / "registers_gap").config
    assert (loaded.class_token, loaded.register_tokens, loaded.norm_after_pooling) == (False, 4, True)
    assert not checkpoints.load(GOLDEN / "registers_gap").weights["pos_embed.table"][:4].any()


def alone(name: str, folder: Path) -> Path:
    return state_dicts.write(folder / "alone.safetensors", state_dicts.read(GOLDEN / name / "model.safetensors"))


def test_a_file_alone_takes_what_timm_does_by_default_and_says_so(tmp_path: Path) -> None:
    for name, epsilon in {"plain": "1e-06", "clip": "1e-05"}.items():
        checkpoint = checkpoints.load(alone(name, tmp_path), config=SMALL)
        assert distance(forward(checkpoint, IMAGES), golden_output(name)) <= TOLERANCE
        told = checkpoints.assumptions(checkpoint)
        assert f"epsilon {epsilon}, activation gelu, pooling cls, mean 0.5, std 0.5" in told
        height, width = checkpoint.config.image_size
        covered = (math.floor(height / 0.9), math.floor(width / 0.9))
        assert checkpoint.preprocess.resize == covered and checkpoint.preprocess.crop
        assert f"resize {list(covered)}, crop True, interpolation bicubic" in told
    stated = SMALL | {"activation": "quick_gelu"}
    checkpoint = checkpoints.load(alone("clip_quickgelu", tmp_path), config=stated)
    assert distance(forward(checkpoint, IMAGES), golden_output("clip_quickgelu")) <= TOLERANCE


def test_heads_that_nobody_states_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing says how many heads it has, and its embed dim 12"):
        checkpoints.load(alone("plain", tmp_path), config={"image_size": [24, 32]})


def test_heads_are_told_by_the_norm_of_the_queries(tmp_path: Path) -> None:
    checkpoint = checkpoints.load(alone("qk_norm", tmp_path), config={"image_size": [24, 32]})
    assert distance(forward(checkpoint, IMAGES), golden_output("qk_norm")) <= TOLERANCE


@pytest.mark.parametrize(("embed_dim", "heads"), [(64, 1), (1152, 16), (1280, 16)])
def test_heads_are_64_wide_but_in_the_sizes_where_timm_has_others(embed_dim: int, heads: int, tmp_path: Path) -> None:
    tensors = {
        "cls_token": np.zeros((1, 1, embed_dim)),
        "pos_embed": np.zeros((1, 5, embed_dim)),
        "patch_embed.proj.weight": np.zeros((embed_dim, 1, 1, 2)),
        "patch_embed.proj.bias": np.zeros(embed_dim),
        "blocks.0.attn.qkv.weight": np.zeros((3 * embed_dim, embed_dim)),
        "blocks.0.attn.proj.weight": np.zeros((embed_dim, embed_dim)),
        "blocks.0.mlp.fc1.weight": np.zeros((1, embed_dim)),
        "blocks.0.mlp.fc2.weight": np.zeros((embed_dim, 1)),
        **{f"{norm}.weight": np.ones(embed_dim) for norm in ("blocks.0.norm1", "blocks.0.norm2", "norm")},
    }
    config = checkpoints.load(state_dicts.write(tmp_path / "a.safetensors", tensors)).config
    assert (config.num_heads, config.image_size, config.include_top) == (heads, (2, 4), False)


def with_config(name: str, folder: Path, **changes: Any) -> Checkpoint:
    """A golden model with other entries in its config.json; those of `pretrained_cfg` under that name."""
    config = json.loads((GOLDEN / name / "config.json").read_text())
    config["pretrained_cfg"] |= changes.pop("pretrained_cfg", {})
    path = alone(name, folder)
    (folder / "config.json").write_text(json.dumps(config | changes))
    return checkpoints.load(path)


def test_the_preprocessing_is_that_of_timms_evaluation(tmp_path: Path) -> None:
    found = checkpoints.load(GOLDEN / "deit3").preprocess
    assert found.mean == (0.485, 0.456, 0.406)
    assert found.std == (0.229, 0.224, 0.225)
    assert found.interpolation is Interpolation.BICUBIC
    # 24 and 32 pixels over 0.9, which the image covers with its aspect kept.
    assert (found.resize, found.crop, found.keep_aspect) == ((26, 35), True, True)
    squashed = {"crop_mode": "squash", "crop_pct": 0.8, "mean": [0.1, 0.2, 0.3], "interpolation": "bilinear"}
    found = with_config("plain", tmp_path, pretrained_cfg=squashed).preprocess
    assert (found.resize, found.crop, found.keep_aspect) == ((30, 40), True, False)
    assert (found.mean, found.interpolation) == ((0.1, 0.2, 0.3), Interpolation.BILINEAR)
    found = with_config("plain", tmp_path, pretrained_cfg=squashed | {"crop_pct": 1.0}).preprocess
    assert (found.resize, found.crop) == (None, False)


@pytest.mark.parametrize("labels", [["a", "b", "c", "d", "e"], {"4": "e", "0": "a", "1": "b", "3": "d", "2": "c"}])
def test_the_labels_are_taken_in_the_order_of_the_classes(labels: Any, tmp_path: Path) -> None:
    assert with_config("plain", tmp_path, label_names=labels).labels == ("a", "b", "c", "d", "e")


def test_a_config_that_is_damaged_or_says_otherwise_than_the_weights_is_refused(tmp_path: Path) -> None:
    for name in ("plain", "distilled"):
        with pytest.raises(CheckpointError, match="num_classes is 5 by its weights and 6 by the config beside it"):
            with_config(name, tmp_path / name, num_classes=6)
    with pytest.raises(CheckpointError, match=r"2 labels in config\.json for 5 classes"):
        with_config("plain", tmp_path, label_names=["a", "b"])
    with pytest.raises(CheckpointError, match=r"config\.json is damaged: .*'img_size'|img_size is 'big'"):
        with_config("plain", tmp_path, model_args={"img_size": "big"})
    with pytest.raises(CheckpointError, match="crop_mode is 'border'; expected center or squash"):
        with_config("plain", tmp_path, pretrained_cfg={"crop_mode": "border"})


def test_the_entries_of_a_first_config_stand_beside_all_others(tmp_path: Path) -> None:
    config = json.loads((GOLDEN / "plain" / "config.json").read_text())
    told = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "interpolation": "bilinear", "labels": [*"abcde"]}
    first = {name: value for name, value in config.items() if name != "pretrained_cfg"} | told
    path = alone("plain", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(first))
    checkpoint = checkpoints.load(path)
    assert (checkpoint.preprocess.mean, checkpoint.preprocess.std) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    assert checkpoint.preprocess.interpolation is Interpolation.BILINEAR
    assert checkpoint.labels == tuple("abcde")
    assert checkpoints.assumptions(checkpoint) == ""


@pytest.mark.parametrize("silent", ("mean", "std"))
def test_pixels_that_a_config_is_silent_about_are_assumed_to_be_imagenets(silent: str, tmp_path: Path) -> None:
    checkpoint = with_config("plain", tmp_path, pretrained_cfg={silent: None})
    assert f"{silent} [0." in checkpoints.assumptions(checkpoint)
    assert checkpoints.assumptions(with_config("plain", tmp_path)) == ""


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("depth", 3, "num_layers is 2 by its weights and 3 by the config beside it"),
        ("embed_dim", 24, "embed_dim is 12 by its weights and 24"),
        ("in_chans", 1, "channels is 3 by its weights and 1"),
        ("patch_size", 4, r"patch_size is \[8, 4\] by its weights and \[4, 4\]"),
        ("qk_norm", True, "qk_norm is False by its weights and True"),
        ("pre_norm", True, "pre_norm is False by its weights and True"),
        ("class_token", False, "class_token is True by its weights and False"),
        ("reg_tokens", 4, "register_tokens is 0 by its weights and 4"),
    ],
)
def test_arguments_of_another_model_are_refused(argument: str, value: Any, said: str, tmp_path: Path) -> None:
    arguments = json.loads((GOLDEN / "plain" / "config.json").read_text())["model_args"]
    with pytest.raises(CheckpointError, match=said):
        with_config("plain", tmp_path, model_args={**arguments, argument: value})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"architecture": "vit_dwee_patch16_reg1_gap_256"}, "it has differential attention"),
        ({"architecture": "vit_dlittle_patch16_reg1_gap_256"}, "it has differential attention"),
        ({"architecture": "vit_dpwee_patch16_reg1_gap_256.sbb_in1k"}, "it has differential attention"),
        ({"model_args": {"num_heads": 3, "attn_layer": "diff"}}, "it has differential attention"),
        ({"architecture": "vit_base_r50_s16_224"}, "it has a convolutional network for its stem"),
        ({"architecture": "samvit_base_patch16"}, "it has relative positions and windows"),
        ({"architecture": "vit_small_patch16_of_mine"}, "an architecture that may compute something else"),
        ({"global_pool": "avgmax", "model_args": {}}, "the pooling avgmax"),
        ({"model_args": {"num_heads": 3, "norm_layer": "batchnorm"}}, "the norm batchnorm"),
        ({"model_args": {"num_heads": 3, "act_layer": "selu"}}, "the activation selu"),
        (
            {"model_args": {"num_heads": 3, "final_norm": False, "attn_layer": "mine"}},
            "attention of another kind; no last",
        ),
        ({"model_args": {"num_heads": 3, "global_pool": ""}}, "a head for every token"),
        (
            {"model_args": {"num_heads": 3, "global_pool": "avg", "pool_include_prefix": True}},
            "a mean that takes its pre",
        ),
    ],
)
def test_options_of_another_network_are_named(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        with_config("plain", tmp_path, **changes)
    assert "is not a ViT that vit-deploy knows: it has" in caught.value.message
    assert expected in caught.value.message


def test_attention_pooling_leaves_registers_out_as_its_architecture_does(tmp_path: Path) -> None:
    config = with_config("map_of_all", tmp_path, architecture="vit_so150m_patch16_reg4_map_256").config
    assert config.pooling is Pooling.MAP and config.pool_patches
