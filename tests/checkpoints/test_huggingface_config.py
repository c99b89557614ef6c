"""What a folder of transformers says beside its weights: the config's fields, labels, and where they are from."""

from __future__ import annotations

import json
from pathlib import Path

from tests.checkpoints.huggingface_folders import changed
from tests.peers.make_huggingface_golden import TARGET
from vit_deploy.checkpoints import assumptions, load
from vit_deploy.core.choices import Activation, FFNType, Pooling


def test_the_config_says_what_shapes_cannot() -> None:
    config = load(TARGET / "vit").config
    assert (config.image_size, config.patch_size, config.num_heads, config.epsilon) == ((16, 24), (8, 6), 3, 1e-3)
    assert load(TARGET / "vit-newer").config.activation is Activation.RELU
    assert load(TARGET / "clip").config.activation is Activation.QUICK_GELU
    assert load(TARGET / "clip").config.epsilon == 1e-5
    assert load(TARGET / "siglip").config.activation is Activation.GELU_TANH
    assert not load(TARGET / "vit-model").config.qkv_bias


def test_each_family_has_its_own_parts() -> None:
    assert load(TARGET / "deit-teacher").config.pooling is Pooling.CLS_DISTILLATION
    dinov2 = load(TARGET / "dinov2").config
    assert (dinov2.pooling, dinov2.ffn_type, dinov2.layer_scale) == (Pooling.CLS_MEAN, FFNType.SWIGLU, True)
    assert load(TARGET / "registers").config.register_tokens == 3
    clip = load(TARGET / "clip")
    assert (clip.config.pre_norm, clip.config.num_classes) == (True, 7)
    assert not clip.weights["patch_embed.bias"].any()
    assert not clip.weights["head.bias"].any()
    siglip = load(TARGET / "siglip").config
    assert (siglip.pooling, siglip.class_token, siglip.include_top) == (Pooling.MAP, False, False)


def test_labels_come_along() -> None:
    assert load(TARGET / "vit").labels == ("ant", "bee", "cat", "dog", "elk")
    assert load(TARGET / "siglip-classifier").labels == ("ant", "bee", "cat", "dog", "elk")
    assert load(TARGET / "vit-newer").labels == ()


def test_labels_that_say_only_their_number_are_none(tmp_path: Path) -> None:
    nameless = {str(number): f"LABEL_{number}" for number in range(5)}
    assert load(changed(tmp_path, "vit", config={"id2label": nameless})).labels == ()


def test_labels_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = {"3": "dog", "10": "no", "0": "ant", "4": "elk", "2": "cat", "1": "bee"}
    del names["10"]
    assert load(changed(tmp_path, "vit", config={"id2label": names})).labels == ("ant", "bee", "cat", "dog", "elk")


def test_pixels_that_no_patch_covers_are_left_out_and_said(tmp_path: Path) -> None:
    checkpoint = load(changed(tmp_path, "siglip-vision", config={"image_size": 19}))
    assert checkpoint.config.image_size == (16, 16)
    assert "all but 16x16 of 19x19 pixels" in assumptions(checkpoint)


def test_clips_second_config_of_the_same_counts(tmp_path: Path) -> None:
    second = json.loads((TARGET / "clip" / "config.json").read_text())["vision_config"]
    checkpoint = load(
        changed(tmp_path, "clip", config={"vision_config": {"hidden_size": 5}, "vision_config_dict": second})
    )
    assert checkpoint.config.num_heads == 3


def test_where_the_preprocessing_is_from_is_recorded() -> None:
    assert load(TARGET / "vit").provenance[0].facts["preprocessing"] == "recorded beside it"
    assert load(TARGET / "clip-vision").provenance[0].facts["preprocessing"] == "that of transformers' CLIP models"


def test_a_config_that_leaves_things_out_means_the_programs_own(tmp_path: Path) -> None:
    left_out = dict.fromkeys(("num_attention_heads", "layer_norm_eps", "hidden_act", "qkv_bias"))
    siglip = load(changed(tmp_path, "siglip-vision", config=left_out))
    assert (siglip.config.num_heads, siglip.config.epsilon) == (12, 1e-6)
    assert siglip.config.activation is Activation.GELU_TANH
    assert not {"num_heads", "epsilon", "activation"} & set(assumptions(siglip).replace(",", "").split())
    vit = load(changed(tmp_path, "vit", config=left_out)).config
    assert (vit.num_heads, vit.epsilon, vit.activation) == (12, 1e-12, Activation.GELU)
