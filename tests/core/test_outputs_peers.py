"""Outputs by name are what timm's and transformers' own functions give."""

from __future__ import annotations

import numpy as np
import pytest

from tests.peers.timm_models import timm_model
from vit_deploy.checkpoints import load
from vit_deploy.core.outputs import outputs_of_model
from vit_deploy.core.reference_outputs import forward_outputs

pytestmark = pytest.mark.peers
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def outputs(checkpoint, images, *names):
    found = forward_outputs(checkpoint, images, outputs_of_model(names, checkpoint.config))
    return [found[name] for name in names]


def channels_last(values):
    return values.permute(0, 2, 3, 1).numpy()


@pytest.fixture
def timms(make_checkpoint, timm, images):
    import torch

    checkpoint = make_checkpoint(register_tokens=2, layer_scale=True, pooling="cls")
    given = torch.from_numpy(images.astype(np.float64)).permute(0, 3, 1, 2)
    return checkpoint, timm_model(timm, checkpoint), given


@pytest.mark.parametrize(("norm", "normed"), [(False, ""), (True, ".normed")])
def test_timms_intermediate_layers_are_the_outputs_behind_blocks(timms, images, norm, normed):
    import torch

    checkpoint, model, given = timms
    with torch.no_grad():
        flat = model.get_intermediate_layers(given, n=[0, 1], norm=norm)
        [(grid, prefix)] = model.get_intermediate_layers(
            given, n=[0], norm=norm, reshape=True, return_prefix_tokens=True
        )
        maps = model.forward_intermediates(given, indices=[0], norm=norm, intermediates_only=True)
    own, first_map, class_token, registers = outputs(
        checkpoint,
        images,
        *(f"block_0{normed}{part}" for part in (".patch_tokens", ".map", ".class_token", ".register_tokens")),
    )
    np.testing.assert_allclose(own, flat[0].numpy(), **CLOSE)
    np.testing.assert_allclose(first_map, channels_last(grid), **CLOSE)
    np.testing.assert_allclose(first_map, channels_last(maps[0]), **CLOSE)
    np.testing.assert_allclose(class_token, prefix[:, 0].numpy(), **CLOSE)
    np.testing.assert_allclose(registers, prefix[:, 1:].numpy(), **CLOSE)


def test_timms_features_and_head_are_tokens_features_and_logits(timms, images):
    import torch

    checkpoint, model, given = timms
    tokens, features, logits, probabilities = outputs(
        checkpoint, images, "tokens", "features", "logits", "probabilities"
    )
    with torch.no_grad():
        found = model.forward_features(given)
        np.testing.assert_allclose(tokens, found.numpy(), **CLOSE)
        np.testing.assert_allclose(features, model.forward_head(found, pre_logits=True).numpy(), **CLOSE)
        np.testing.assert_allclose(logits, model(given).numpy(), **CLOSE)
        np.testing.assert_allclose(probabilities, model(given).softmax(dim=-1).numpy(), **CLOSE)


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    """The folder of a small DINOv2 of transformers."""
    transformers = pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=3, num_attention_heads=3, mlp_ratio=2, image_size=28, patch_size=7
    )
    model = transformers.Dinov2Model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("dinov2")
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("apply", "normed"), [(True, ".normed"), (False, "")])
def test_a_backbones_feature_maps_are_the_maps_behind_its_stages(dinov2, apply, normed):
    import torch
    import transformers

    backbone = transformers.Dinov2Backbone.from_pretrained(
        dinov2, out_features=["stage1", "stage3"], apply_layernorm=apply, reshape_hidden_states=True
    ).double()
    images = np.random.default_rng(2).standard_normal((2, 28, 28, 3))
    with torch.no_grad():
        first, last = backbone(torch.from_numpy(images).permute(0, 3, 1, 2)).feature_maps
    found = outputs(load(dinov2), images, f"block_0{normed}.map", f"block_2{normed}.map")
    np.testing.assert_allclose(found[0], channels_last(first), rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found[1], channels_last(last), rtol=1e-7, atol=1e-8)


def test_attentions_and_the_last_hidden_state_are_transformers(dinov2):
    import torch
    import transformers

    model = transformers.Dinov2Model.from_pretrained(dinov2, attn_implementation="eager").double()
    images = np.random.default_rng(2).standard_normal((2, 28, 28, 3))
    with torch.no_grad():
        expected = model(torch.from_numpy(images).permute(0, 3, 1, 2), output_attentions=True)
    tokens, attention = outputs(load(dinov2), images, "tokens", "block_1.attention")
    np.testing.assert_allclose(tokens, expected.last_hidden_state.numpy(), rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(attention, expected.attentions[1].numpy(), rtol=1e-7, atol=1e-8)
