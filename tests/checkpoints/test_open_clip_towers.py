"""timm's models as the vision towers of OpenCLIP: what its config alone says counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints.state_dicts import read, write
from tests.peers import timm_families
from vit_deploy.checkpoints import load
from vit_deploy.core.choices import Activation, Pooling
from vit_deploy.core.preprocess import Interpolation
from vit_deploy.core.reference import forward
from vit_deploy.errors import CheckpointError

GOLDEN = Path(timm_families.__file__).parent / "golden" / "timm"
ONE = np.ones(())
LIMIT = 1e-5  # of the largest feature
STATED = {"num_heads": 3}  # of the tiny golden models, which are no published size


def folder_of(tmp_path: Path, vision: dict[str, Any], tensors: dict[str, Any], **preprocess: Any) -> Path:
    """A model of OpenCLIP with a text tower, as `open_clip` pushes it to the hub."""
    text = {
        "text.transformer.resblocks.0.ln_1.weight": np.ones(4),
        "logit_scale": np.ones(()),
        "logit_bias": np.ones(()),
    }
    document = {"model_cfg": {"embed_dim": 6, "vision_cfg": vision}, "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(document))
    write(tmp_path / "open_clip_model.safetensors", {**tensors, **text})
    return tmp_path


def trunk(name: str) -> dict[str, Any]:
    return {f"visual.trunk.{key}": tensor for key, tensor in read(GOLDEN / name / "model.safetensors").items()}


def test_the_activation_of_the_architecture_that_the_config_names_counts(tmp_path: Path) -> None:
    vision = {"timm_model_name": "vit_base_patch32_siglip_256", "timm_pool": "map", "timm_proj": "none"}
    said = {"image_size": [24, 32], **vision}
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    loaded = load(folder_of(tmp_path, said, trunk("siglip2"), **preprocess), config=STATED)
    assert (loaded.config.activation, loaded.config.pooling) == (Activation.GELU_TANH, Pooling.MAP)
    assert loaded.preprocess.std == (0.25,) * 3
    assert (loaded.preprocess.interpolation, loaded.preprocess.crop) == (Interpolation.BILINEAR, False)
    images = timm_families.drawn_images(24, 32)
    expected = np.load(GOLDEN / "siglip2" / "output.npy")
    assert np.abs(forward(loaded, images) - expected).max() < LIMIT * np.abs(expected).max()


def test_a_linear_projection_is_the_head(tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in trunk("plain").items() if ".head." not in name}
    projection = np.random.default_rng(2).standard_normal((6, 12)).astype(np.float32)
    tensors["visual.head.proj.weight"] = projection
    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": [25, 34]}
    loaded = load(folder_of(tmp_path, vision, tensors), config=STATED)
    assert (loaded.config.num_classes, loaded.config.image_size) == (6, (24, 32))
    assert loaded.preprocess.input_size == (25, 34)
    np.testing.assert_array_equal(loaded.weights["head.kernel"], projection.T)
    assert not loaded.weights["head.bias"].any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"timm_proj": "mlp"}, "open_clip_config.json says timm_proj 'mlp'"),
        ({"timm_pool": "rot_attn"}, "the pooling rot_attn"),
        ({"timm_pool": ["avg"]}, "the pooling ['avg']"),
        ({"timm_model_name": "vit_base_patch16_rope_ape_224"}, "tokens 12 wide where the architecture named has"),
        ({"timm_model_name": "vit_of_tomorrow"}, "vit_of_tomorrow is not a ViT that vit-deploy knows"),
        ({"image_size": "large"}, "image_size is 'large'"),
    ],
)
def test_a_tower_that_is_no_plain_vit_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": "none"}
    with pytest.raises(CheckpointError) as caught:
        load(folder_of(tmp_path, vision | change, trunk("plain")), config=STATED)
    assert said in caught.value.message


def test_a_head_without_its_bias_is_still_incomplete(tmp_path: Path) -> None:
    tensors = {
        name: tensor for name, tensor in read(GOLDEN / "plain" / "model.safetensors").items() if name != "head.bias"
    }
    with pytest.raises(CheckpointError, match=r"missing head\.bias"):
        load(write(tmp_path / "alone.safetensors", tensors), config={**STATED, "image_size": [24, 32]})


@pytest.mark.peers
@pytest.mark.parametrize(("pool", "proj"), [("", "linear"), ("avg", "linear"), ("token", "none"), ("", "none")])
def test_a_tower_of_open_clip_gives_its_own_features(pool: str, proj: str, timm: Any, tmp_path: Path) -> None:
    towers = pytest.importorskip("open_clip.timm_model")
    import torch

    model = towers.TimmModel("test_vit", embed_dim=6, image_size=160, pool=pool, proj=proj).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.2 + (parameter.ndim == 1))
    tensors = {f"visual.{name}": tensor.numpy() for name, tensor in model.state_dict().items()}
    vision = {"timm_model_name": "test_vit", "timm_pool": pool, "timm_proj": proj, "image_size": 160}
    images = timm_families.drawn_images(160, 160)
    theirs = timm_families.output(model, images)
    found = forward(load(folder_of(tmp_path, vision, tensors)), images)
    assert np.abs(found - theirs).max() < LIMIT * np.abs(theirs).max()
