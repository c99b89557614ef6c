"""Models of timm's class Eva are read with the function that their architecture stands for, and answer as timm does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints.state_dicts import read, write
from tests.peers import timm_families
from tests.peers.meta_dinov3 import as_meta_keeps_it
from vit_deploy.checkpoints import assumed, load
from vit_deploy.checkpoints.timm import eva_function
from vit_deploy.checkpoints.timm.eva_table import eva_arguments, eva_names
from vit_deploy.core.reference import forward
from vit_deploy.core.resize import resize
from vit_deploy.core.rotary import Rotary, RotaryConvention
from vit_deploy.errors import CheckpointError, ConfigError

GOLDEN = Path(timm_families.__file__).parent / "golden" / "eva"
CASES = sorted(path.name for path in GOLDEN.iterdir())
SIZE, NEW_SIZE = (24, 32), (40, 48)
LIMIT = 1e-5  # of the largest logit


def distance(found: Any, expected: Any) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_timm_saved_gives_the_logits_that_timm_gave(case: str) -> None:
    checkpoint = load(GOLDEN / case)
    images = timm_families.drawn_images(*SIZE)
    assert distance(forward(checkpoint, images), np.load(GOLDEN / case / "output.npy")) <= LIMIT


@pytest.mark.parametrize("case", CASES)
def test_at_another_size_it_computes_what_timm_computes_there(case: str) -> None:
    checkpoint = resize(load(GOLDEN / case), NEW_SIZE)
    images = timm_families.drawn_images(*NEW_SIZE)
    assert distance(forward(checkpoint, images), np.load(GOLDEN / case / "resized_output.npy")) <= LIMIT


def test_the_rotary_positions_are_those_that_the_architectures_name_stands_for() -> None:
    found = {case: load(GOLDEN / case).config.rotary for case in CASES}
    assert found == {
        "dinov3": Rotary(RotaryConvention.DINOV3_FLOAT32),
        "eva02": Rotary(RotaryConvention.EVA, reference_grid=(16, 16)),
        "eva02_enormous": None,
        "eva02_sub_norms": Rotary(RotaryConvention.EVA, reference_grid=(16, 16)),
        "pe": Rotary(RotaryConvention.PE, reference_grid=(14, 14)),
        "pe_spatial": Rotary(RotaryConvention.PE, reference_grid=(32, 32)),
        "rope_vit": Rotary(RotaryConvention.ROPE_VIT),
        "rope_vit_mixed": Rotary(RotaryConvention.ROPE_VIT_MIXED),
        "sapiens2": Rotary(RotaryConvention.DINOV3_FLOAT32),
        "sbb": Rotary(RotaryConvention.EVA, reference_grid=(16, 16)),
    }


def test_a_layer_scale_of_the_attention_alone_is_read_where_the_architecture_has_it(tmp_path: Path) -> None:
    assert load(GOLDEN / "sapiens2").config.scaled_halves == ("attention",)
    shutil.copytree(GOLDEN / "dinov3", tmp_path / "damaged")
    path = tmp_path / "damaged" / "model.safetensors"
    write(path, {name: tensor for name, tensor in read(path).items() if not name.endswith(("ls2.gamma", "gamma_2"))})
    with pytest.raises((CheckpointError, ConfigError), match=r"ls2|scale2"):
        load(tmp_path / "damaged")


def test_nothing_is_assumed_of_a_folder_that_timm_saved() -> None:
    for case in CASES:
        assert [entry.field for entry in assumed(load(GOLDEN / case).provenance)] == []


def test_every_architecture_of_the_table_has_the_arguments_that_are_read() -> None:
    assert len(eva_names()) > 60
    tags = eva_arguments("vit_base_patch16_dinov3.lvd1689m")
    assert tags is not None
    assert (tags["rope_type"], tags["num_heads"], tags["norm_layer"]) == ("dinov3", 12, ["LayerNorm", 1e-5])
    assert eva_arguments("vit_base_patch16_224") is None


def alone(case: str, folder: Path) -> Path:
    """The weights of a case without their config."""
    shutil.copy(GOLDEN / case / "model.safetensors", folder / "alone.safetensors")
    return folder / "alone.safetensors"


def test_weights_without_a_config_are_read_by_the_name_that_the_user_gives(tmp_path: Path) -> None:
    file = alone("rope_vit", tmp_path)
    with pytest.raises(CheckpointError, match="tokens 16 wide where the architecture named has 384"):
        load(file, config={"architecture": "vit_small_patch16_rope_ape_224", "image_size": SIZE})


def test_a_table_of_another_prefix_than_the_name_says_is_refused(tmp_path: Path) -> None:
    tensors = dict(read(GOLDEN / "rope_vit" / "model.safetensors"))
    tensors["cls_token"] = np.zeros((1, 1, 16), np.float32)
    del tensors["cls_token"]
    write(tmp_path / "model.safetensors", tensors)
    shutil.copy(GOLDEN / "rope_vit" / "config.json", tmp_path)
    with pytest.raises(ConfigError, match="pooling is cls, and class_token is False"):
        load(tmp_path)


def test_a_tower_of_open_clips_is_read_by_the_architecture_that_its_config_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = dict(read(GOLDEN / "pe" / "model.safetensors"))
    stored = {f"visual.trunk.{name}": value for name, value in tensors.items()}
    stored["text.token_embedding.weight"] = np.zeros((4, 3), np.float32)
    write(tmp_path / "open_clip_model.safetensors", stored)
    vision = {"timm_model_name": "vit_pe_core_base_patch16_224", "timm_pool": "map", "timm_proj": None}
    document = {
        "model_cfg": {"vision_cfg": {**vision, "image_size": list(SIZE)}},
        "preprocess_cfg": {"mean": [0.5] * 3},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="tokens 16 wide where the architecture named has 768"):
        load(tmp_path)
    as_narrow = {**(eva_arguments(vision["timm_model_name"]) or {}), "embed_dim": 16, "num_heads": 2}
    monkeypatch.setattr(eva_function, "eva_arguments", lambda name: {**as_narrow, "attn_pool_num_heads": 4})
    checkpoint = load(tmp_path)
    assert checkpoint.preprocess.mean == (0.5, 0.5, 0.5)
    assert checkpoint.provenance[-1].facts["left_out"] == ["text tower"]
    images = timm_families.drawn_images(*SIZE)
    assert distance(forward(checkpoint, images), np.load(GOLDEN / "pe" / "output.npy")) <= LIMIT


def metas(case: str, *, rounded: bool) -> dict[str, Any]:
    """The weights of a golden DINOv3 under the names that Meta keeps them by."""
    return as_meta_keeps_it(dict(read(GOLDEN / case / "model.safetensors")), 1, rounded=rounded)


@pytest.mark.parametrize("rounded", [True, False])
def test_metas_own_dinov3_is_read_with_the_periods_that_it_keeps(rounded: bool, tmp_path: Path) -> None:
    file = write(tmp_path / "dinov3.safetensors", metas("dinov3", rounded=rounded))
    stated = {"image_size": SIZE, "num_heads": 1}
    checkpoint = load(file, config=stated)
    wanted = RotaryConvention.DINOV3 if rounded else RotaryConvention.DINOV3_FLOAT32
    assert checkpoint.config.rotary == Rotary(wanted)
    assert (checkpoint.config.pooling, checkpoint.config.epsilon) == ("cls", 1e-5)
    features = load(GOLDEN / "dinov3", config={"head": False})
    for name, weight in features.weights.items():
        np.testing.assert_array_equal(checkpoint.weights[name], weight, err_msg=name)


def test_periods_of_no_dinov3_are_refused(tmp_path: Path) -> None:
    tensors = metas("dinov3", rounded=True) | {"rope_embed.periods": np.array([1.0, 3.0], np.float32)}
    with pytest.raises(CheckpointError, match="rotary positions with periods that no DINOv3 has"):
        load(write(tmp_path / "dinov3.safetensors", tensors), config={"image_size": SIZE})


@pytest.mark.peers
def test_the_table_of_arguments_is_what_the_library_says_today(timm: Any) -> None:
    import timm.models.eva

    from tests.peers.make_timm_eva import WITHOUT_EFFECT, arguments_of, plain

    for name in timm.list_models(module="eva"):
        known = eva_arguments(name)
        assert known is not None, name
        found = {key: plain(value) for key, value in arguments_of(timm, name).items() if key not in WITHOUT_EFFECT}
        unlike = {key for key, value in found.items() if known[key] != value}
        assert unlike <= {"img_size", "num_kv_heads"}, name


@pytest.mark.slow
@pytest.mark.peers
def test_every_architecture_is_read_exactly_or_refused_with_its_reason(timm: Any, tmp_path: Path) -> None:
    from tests.peers.census_eva import census

    rows = list(census(timm, tmp_path))
    wrong = {row.name: row.error for row in rows if row.error is not None and row.error > LIMIT}
    assert wrong == {}
    assert [row.name for row in rows if row.error is None] == []
