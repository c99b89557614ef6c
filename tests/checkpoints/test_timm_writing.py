"""ViTs that are written as timm's folders: read again, and loaded by timm itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import torchvision_stand_in
from tests.features import FAMILIES
from tests.peers import timm_families
from tests.peers.make_timm_golden import TARGET
from vit_deploy import checkpoints
from vit_deploy.compression.narrowing import Kept, narrow
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.reference import forward
from vit_deploy.errors import CheckpointError, ConfigError, OutputError

SAID = {
    **{"plain": "", "no_qkv_bias": "", "qk_norm": "", "features": "", "deit3": "", "registers_gap": "", "fc_norm": ""},
    **{"max": "", "fc_norm_token": "", "tokens": "", "clip": "", "siglip": "", "dinov2_reg4": "", "mish": ""},
    **{"map_of_all": "", "narrow_heads": "", "rms_norm": ""},
    "distilled": "a distillation token",
    "beit": "relative positions",
    "rpn": "norms at the position res_post",
    "aimv2": "the feed-forward swiglu",
}
IMAGES = timm_families.drawn_images(24, 32)
LIMIT = 1e-5  # of the largest logit


def golden(name: str) -> Checkpoint:
    return checkpoints.load(TARGET / name)


def shrunk(name: str) -> Checkpoint:
    """Of a model of timm's: one of two blocks, two of three heads and most hidden units."""
    return narrow(golden(name), Kept((1,), ((0, 2),), (tuple(range(3, 20)),)))


@pytest.mark.parametrize("name", SAID)
def test_what_timm_saved_is_written_so_that_it_reads_the_same_or_refused_by_what_it_has(
    name: str, tmp_path: Path
) -> None:
    before = golden(name)
    if SAID[name]:
        with pytest.raises(OutputError, match=f"timm's VisionTransformer is not such a model: it has .*{SAID[name]}"):
            checkpoints.save_as(before, tmp_path / "written", "timm")
        assert not (tmp_path / "written").exists()
        return
    checkpoints.save_as(before, tmp_path / "written", "timm")
    after = checkpoints.load(tmp_path / "written")
    assert (after.config, after.preprocess, after.labels) == (before.config, before.preprocess, before.labels)
    assert checkpoints.assumed(after.provenance) == ()
    np.testing.assert_allclose(forward(after, IMAGES), forward(before, IMAGES), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["plain", "qk_norm"])
def test_a_shrunk_model_is_read_again_with_its_narrow_attention(name: str, tmp_path: Path) -> None:
    before = shrunk(name)
    checkpoints.save_as(before, tmp_path / "written", "timm")
    after = checkpoints.load(tmp_path / "written")
    assert (after.config.num_heads, after.config.head_width, after.config.mlp_dim) == (2, 4, 17)
    assert after.digest() == before.digest()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_is_written_whole_or_refused(
    family: str, make_checkpoint: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(**FAMILIES[family])
    try:
        checkpoints.save_as(checkpoint, tmp_path / "written", "timm")
    except OutputError as error:
        assert error.fix
        return
    found, config = checkpoints.load(tmp_path / "written").config, checkpoint.config
    classes = config.num_classes if config.include_top else 0
    assert found == config.replace(pooling=config.effective_pooling, num_classes=classes)


def test_preprocessing_is_said_in_timms_words_or_refused(tmp_path: Path) -> None:
    plain = golden("plain")
    for number, resize in enumerate((None, (27, 36), (48, 64))):
        wanted = Preprocess(resize=resize, crop=resize is not None, keep_aspect=resize is not None)
        checkpoints.save_as(dataclasses.replace(plain, preprocess=wanted), tmp_path / str(number), "timm")
        assert checkpoints.load(tmp_path / str(number)).preprocess == wanted
    other = dataclasses.replace(plain, preprocess=Preprocess(resize=(30, 90), crop=True, keep_aspect=True))
    with pytest.raises(OutputError, match="preprocessing that timm's configs cannot say"):
        checkpoints.save_as(other, tmp_path / "refused", "timm")


def alone(folder: Path, checkpoint: Checkpoint) -> Path:
    """The weights of a written model without their config."""
    checkpoints.save_as(checkpoint, folder / "written", "timm")
    return (folder / "written" / "model.safetensors").rename(folder / "alone.safetensors")


def test_heads_of_narrow_attention_have_to_be_said_where_they_have_no_usual_width(tmp_path: Path) -> None:
    before = shrunk("plain")
    path = alone(tmp_path, before)
    size = {"image_size": [24, 32]}
    with pytest.raises(ConfigError, match="nothing says how many heads it has"):
        checkpoints.load(path, config=size)
    with pytest.raises(CheckpointError, match="its attention is 8 wide, which 3 heads do not share equally"):
        checkpoints.load(path, config={**size, "num_heads": 3})
    assert checkpoints.load(path, config={**size, "num_heads": 2}).config == before.config


@pytest.mark.parametrize("architecture", [{}, {"architecture": "vit_tiny_patch16_224"}])
def test_heads_of_narrow_attention_are_assumed_to_be_of_the_usual_width(
    architecture: dict[str, str], make_checkpoint: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    whole = make_checkpoint(embed_dim=192, num_heads=3, num_layers=1, mlp_dim=16)
    before = narrow(whole, Kept((0,), ((0, 2),), (tuple(range(16)),)))
    after = checkpoints.load(alone(tmp_path, before), config={"image_size": [24, 32], **architecture})
    assert (after.config.num_heads, after.config.head_width) == (2, 64)
    assert "num_heads" in {entry.field for entry in checkpoints.assumed(after.provenance)}


@pytest.mark.peers
@pytest.mark.parametrize(
    ("make", "width"),
    [
        (lambda: golden("clip"), 0),
        (lambda: golden("siglip"), 0),
        (lambda: golden("registers_gap"), 0),
        (lambda: golden("narrow_heads"), 5),
        (lambda: shrunk("plain"), 4),
        (lambda: shrunk("qk_norm"), 4),
        (lambda: shrunk("deit3"), 4),
    ],
)
def test_timm_loads_what_was_written_and_answers_the_same(
    make: Callable[[], Checkpoint], width: int, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    torchvision_stand_in.install()
    timm = pytest.importorskip("timm")
    checkpoint = make()
    checkpoints.save_as(checkpoint, tmp_path / "written", "timm")
    narrow_heads: dict[str, Any] = {"attn_layer": timm_families.heads_of_width(width)} if width else {}

    model = timm.create_model(f"local-dir:{tmp_path / 'written'}", pretrained=True, **narrow_heads).eval()

    expected = forward(checkpoint, IMAGES)
    assert np.abs(timm_families.output(model, IMAGES) - expected).max() <= LIMIT * np.abs(expected).max()
