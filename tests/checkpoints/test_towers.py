"""Towers of images inside larger models of transformers, against what these answered when it was recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints import state_dicts
from tests.checkpoints.huggingface_folders import changed
from tests.peers.census import LIMIT, distance
from tests.peers.make_tower_golden import EXPECTED, GOLDEN, TARGET
from vit_deploy.checkpoints import assumptions, load
from vit_deploy.checkpoints.huggingface.families import MODEL_TYPES
from vit_deploy.checkpoints.huggingface.names import encoders, named
from vit_deploy.checkpoints.huggingface.towers import places_are_kept, tower_in
from vit_deploy.core.choices import Pooling
from vit_deploy.core.reference import forward
from vit_deploy.core.rotary import Rotary, RotaryConvention
from vit_deploy.errors import CheckpointError, ConfigError

MLCD = "mlcd-of-another-base"
KNOWN = frozenset(MODEL_TYPES)
NAMES = [name.replace(" ", "-") for name in GOLDEN]


@pytest.mark.parametrize("name", NAMES)
def test_a_tower_answers_as_it_does_inside_its_model(name: str) -> None:
    with np.load(TARGET / name / EXPECTED) as arrays:
        assert distance(forward(load(TARGET / name), arrays["images"]), arrays["answer"]) < LIMIT


@pytest.mark.parametrize("name", NAMES)
def test_the_fixtures_are_small(name: str) -> None:
    assert sum(file.stat().st_size for file in (TARGET / name).iterdir()) < 150_000


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llava", "rest of a llava"),
        ("blip-captions", "rest of a blip"),
        ("dual-encoder-of-vit", "rest of a vision-text-dual-encoder"),
        ("depth-anything", "rest of a depth_anything"),
        ("owl-vit-detection", "rest of a owlvit"),
        ("perception-lm", "rest of a perception_lm"),
        ("pe-video", "rest of a pe_video_encoder"),
    ],
)
def test_what_is_around_a_tower_is_left_out_and_said(name: str, said: str) -> None:
    assert said in assumptions(load(TARGET / name))


def test_a_projection_is_read_where_it_projects_what_is_pooled_here() -> None:
    assert load(TARGET / "owl-vit-detection").config.num_classes == 7
    dual = load(TARGET / "dual-encoder-of-vit").config
    assert (dual.num_classes, dual.pre_logits_dim, dual.pooling) == (7, 24, Pooling.CLS)
    blip = load(TARGET / "blip-captions").config
    assert (blip.include_top, blip.pooling) == (False, None)


def test_yolos_tokens_come_with_the_detections_as_registers() -> None:
    config = load(TARGET / "yolos").config
    assert (config.register_tokens, config.image_size) == (3, (16, 24))


def test_pixios_class_tokens_but_the_first_are_registers() -> None:
    config = load(TARGET / "pixio").config
    assert (config.class_token, config.register_tokens) == (True, 2)


def test_mlcds_positions_are_rotary_and_of_its_configs_size(tmp_path: Path) -> None:
    config = load(TARGET / MLCD).config
    assert config.rotary == Rotary(RotaryConvention.MLCD, 100.0)
    assert config.image_size == (24, 24)
    bare = shutil.copy(TARGET / MLCD / "model.safetensors", tmp_path)
    found = load(bare, config={"num_heads": 3, "image_size": [16, 24]}).config
    assert found.rotary == Rotary(RotaryConvention.MLCD) and found.image_size == (16, 24)
    with pytest.raises(CheckpointError, match="its positions are computed for the image size, and nothing says that"):
        load(bare, config={"num_heads": 3})


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"num_key_value_groups": 2}, "keys that several queries share"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rotary positions of the kind yarn"),
        ({"rope_parameters": {"rope_theta": "much"}}, "rope_parameters is damaged"),
        ({"rope_parameters": {"rope_theta": 0}}, "expected a number above 1"),
    ],
)
def test_mlcds_with_other_attention_are_refused(entries: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said):
        load(with_config(tmp_path, MLCD, **entries))


def with_config(folder: Path, name: str, **entries: Any) -> Path:
    target = folder / name
    shutil.copytree(TARGET / name, target)
    document = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(document | entries))
    return target


def test_older_configs_leave_out_the_model_type_of_a_tower(tmp_path: Path) -> None:
    vision = json.loads((TARGET / "llava" / "config.json").read_text())["vision_config"]
    del vision["model_type"]
    found = load(with_config(tmp_path, "llava", vision_config=vision))
    assert found.config == load(TARGET / "llava").config


def test_a_tower_that_is_no_vit_is_refused_by_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="model_type 'swin', which has stages of several resolutions; expected"):
        load(with_config(tmp_path, "llava", vision_config={"model_type": "swin", "depths": [2, 2]}))


def test_settings_without_weights_are_refused(tmp_path: Path) -> None:
    message = "that of a yolos with positions that are added again after every block, which no ViT here computes"
    with pytest.raises(CheckpointError, match=message):
        load(with_config(tmp_path, "yolos", use_mid_position_embeddings=True))


def test_of_two_towers_it_is_said_that_there_are_two() -> None:
    towers = {"vision_config": {"model_type": "clip_vision_model"}, "image_config": {"model_type": "vit"}}
    with pytest.raises(CheckpointError, match="a two_eyes with 2 towers of images: clip_vision_model, vit"):
        tower_in({"model_type": "two_eyes", **towers}, KNOWN)


def test_a_model_that_is_a_vit_itself_has_no_tower() -> None:
    document = {"model_type": "vit", "hidden_size": 24}
    tower = tower_in(document, KNOWN)
    assert (tower.document, tower.whole) == (document, "")
    assert tower_in({}, KNOWN).document == {}


def test_what_transformers_fills_in_for_a_tower_is_filled_in() -> None:
    tower = tower_in({"model_type": "janus", "vision_config": {"hidden_size": 64}}, KNOWN)
    assert tower.document["num_attention_heads"] == 16
    assert tower.document["image_size"] == 384
    assert tower.document["model_type"] == "janus_vision_model"


def test_grids_of_published_models_keep_their_places_and_some_others_do_not() -> None:
    assert all(map(places_are_kept, (1, 2, 24, 26, 27, 32, 70)))
    assert not any(map(places_are_kept, (25, 41, 47, 49, 50)))


def test_what_makes_a_spectrogram_is_no_processor_of_images() -> None:
    patch = {"patch_size": 8, "frequency_stride": 8, "time_stride": 8}
    document = {"model_type": "audio-spectrogram-transformer", "num_mel_bins": 16, "max_length": 24, **patch}
    tower = tower_in(document, KNOWN)
    assert (tower.document["image_size"], tower.document["num_channels"]) == ([16, 24], 1)
    with pytest.raises(CheckpointError, match="patches of 8 that overlap, 4 and 8 apart"):
        tower_in({**document, "frequency_stride": 4}, KNOWN)


def test_encoders_are_found_under_any_path() -> None:
    names = [f"{path}embeddings.patch_embedding.weight" for path in ("model.image_tower.", "model.video_tower.")]
    assert encoders([*names, "lm_head.weight"]) == ["model.image_tower.", "model.video_tower."]
    assert encoders(["classifier.weight"]) == []
    with pytest.raises(CheckpointError, match=r"it has 2 encoders of images: model\.image_tower, model\.video_tower"):
        named(names)
    found = named(names[:1])
    assert found is not None
    assert found.prefix == "model.image_tower."


@pytest.fixture
def two_eyes(tmp_path: Path) -> Path:
    """A model whose two towers differ in their numbers: the golden one, and that of videos."""
    target = tmp_path / "eyes"
    shutil.copytree(TARGET / "llava", target)
    tensors = state_dicts.read(target / "model.safetensors")
    inside = {name: tensor for name, tensor in tensors.items() if "vision_tower." in name}
    assert inside
    image = {name.replace("vision_tower.", "image_tower."): tensor for name, tensor in inside.items()}
    video = {name.replace("vision_tower.", "video_tower."): tensor + 1 for name, tensor in inside.items()}
    rest = {name: tensor for name, tensor in tensors.items() if name not in inside}
    state_dicts.write(target / "model.safetensors", rest | image | video)
    return target


def test_of_two_encoders_the_one_that_is_meant_is_read(two_eyes: Path) -> None:
    with pytest.raises(CheckpointError, match="it has 2 encoders of images: image_tower, video_tower"):
        load(two_eyes)
    with np.load(TARGET / "llava" / EXPECTED) as arrays:
        found = load(two_eyes, config={"tower": "image"})
        assert distance(forward(found, arrays["images"]), arrays["answer"]) < LIMIT
        other = load(two_eyes, config={"tower": "video"})
        assert distance(forward(other, arrays["images"]), arrays["answer"]) > LIMIT
    assert "image_tower" in assumptions(found)
    assert "video_tower" in assumptions(found)


def test_a_tower_that_none_is_called_is_refused_with_those_there_are(two_eyes: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none of its encoders .* called audio; they are image_tower, video_tow"):
        load(two_eyes, config={"tower": "audio"})
    with pytest.raises(CheckpointError, match="2 of its encoders of images are called tower"):
        load(two_eyes, config={"tower": "tower"})
    with pytest.raises(ConfigError, match="a key of weights and a tower are given"):
        load(two_eyes, config={"tower": "image", "weights": "image_tower"})


def test_one_encoder_of_images_is_the_vision_tower_whatever_it_is_called() -> None:
    assert load(TARGET / "yolos", config={"tower": "vision"}).digest() == load(TARGET / "yolos").digest()


def test_a_head_is_found_beside_its_encoder_whatever_is_around_both(tmp_path: Path) -> None:
    def wrapped(tensors: dict[str, Any]) -> dict[str, Any]:
        return {f"module.{name}": tensor for name, tensor in tensors.items()}

    for name in ("vit", "deit-teacher", "clip-projection"):
        plain = load(changed(tmp_path / "plain", name))
        assert load(changed(tmp_path / "wrapped", name, wrapped)).digest() == plain.digest()


def test_a_tower_of_timms_has_the_mean_and_deviation_of_the_processor_beside_it(tmp_path: Path) -> None:
    assert "mean 0.5" in assumptions(load(TARGET / "perception-lm"))
    folder = tmp_path / "a"
    shutil.copytree(TARGET / "perception-lm", folder)
    said = {"image_processor": {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}}
    (folder / "processor_config.json").write_text(json.dumps(said))
    read = load(folder)
    assert (read.preprocess.mean, read.preprocess.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert "mean" not in assumptions(read)


def test_towers_of_timms_that_differ_are_refused(tmp_path: Path) -> None:
    path = shutil.copytree(TARGET / "perception-lm", tmp_path / "a") / "config.json"
    document = json.loads(path.read_text())
    document["video_config"] = {**document["vision_config"], "architecture": "vit_base_patch16_224"}
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="several towers of timm's: vit_pe_lang_large_patch14_448, vit_base_pat"):
        load(path.parent)


def test_a_tower_of_timms_that_is_no_vit_is_refused_by_its_name(tmp_path: Path) -> None:
    path = shutil.copytree(TARGET / "perception-lm", tmp_path / "a") / "config.json"
    document = json.loads(path.read_text())
    document["vision_config"]["architecture"] = "mobilenetv5_300m_enc"
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="mobilenetv5_300m_enc"):
        load(path.parent)


def test_a_tower_of_timms_is_found_as_deep_as_pe_av_has_it(tmp_path: Path) -> None:
    known = load(TARGET / "pe-video")
    path = shutil.copytree(TARGET / "pe-video", tmp_path / "a") / "config.json"
    inner = json.loads(path.read_text())
    nested = {"model_type": "pe_audio_video_encoder", "video_config": inner}
    path.write_text(json.dumps({"model_type": "pe_audio_video", "audio_video_config": nested, "video_config": inner}))
    found = load(path.parent)
    assert found.digest() == known.digest()
    assert found.config == known.config
    assert "rest of a pe_audio_video" in assumptions(found)
