"""State dicts that only share timm's names: older ones, damaged ones, and those of other networks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import state_dicts
from peers import timm_families
from state_dicts import Tensors

from vit_deploy import checkpoints
from vit_deploy.core.choices import FFNType
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.reference import forward
from vit_deploy.core.resize import convention_of
from vit_deploy.errors import CheckpointError

GOLDEN = Path(timm_families.__file__).parent / "golden" / "timm"
TOLERANCE = 1e-5  # of the largest value: sums of two weights are rounded to float32
IMAGES = timm_families.drawn_images(24, 32)
STATED = {"num_heads": 3, "image_size": [24, 32]}


def golden(name: str) -> Tensors:
    return state_dicts.read(GOLDEN / name / "model.safetensors")


def assert_same(path: Path, name: str, **stated: Any) -> Any:
    checkpoint = checkpoints.load(path, config=STATED | stated)
    expected = np.load(GOLDEN / name / "output.npy")
    found = forward(checkpoint, IMAGES)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()
    return checkpoint


def renamed(tensors: Tensors, *pairs: tuple[str, str]) -> Tensors:
    for old, new in pairs:
        assert any(re.search(old, name) for name in tensors)
        tensors = {re.sub(old, new, name): tensor for name, tensor in tensors.items()}
    return tensors


def dinov2(tensors: Tensors) -> Tensors:
    """As facebookresearch saves it: the class token has a position, registers have none."""
    position = np.random.default_rng(3).standard_normal((1, 1, 12)).astype(np.float32)
    tensors["cls_token"] = tensors["cls_token"] - position
    tensors["pos_embed"] = np.concatenate([position, tensors["pos_embed"]], axis=1)
    return tensors | {"mask_token": np.ones((1, 12))}


def test_layer_scales_of_deit_3_are_found_by_their_first_names(tmp_path: Path) -> None:
    tensors = renamed(golden("deit3"), (r"\.ls([12])\.gamma$", r".gamma_\1"))
    assert_same(state_dicts.write(tmp_path / "deit3.safetensors", tensors), "deit3")


@pytest.mark.parametrize("chunk", ["", "0."])
def test_dinov2_of_facebookresearch_is_the_model_that_timm_makes_of_it(chunk: str, tmp_path: Path) -> None:
    chunked = (r"^blocks\.", rf"blocks.{chunk}")
    tensors = renamed(dinov2(golden("dinov2_reg4")), ("^reg_token$", "register_tokens"), chunked)
    checkpoint = assert_same(state_dicts.write(tmp_path / "a.safetensors", tensors), "dinov2_reg4")
    assert convention_of(checkpoint) == "dinov2-registers"
    assert checkpoint.preprocess.mean == (0.485, 0.456, 0.406)
    gated = (r"\.mlp\.fc1\.", ".mlp.w12."), (r"\.mlp\.fc2\.", ".mlp.w3.")
    tensors = renamed(dinov2(golden("dinov2_giant")), ("^reg_token$", "register_tokens"), *gated, chunked)
    checkpoint = assert_same(state_dicts.write(tmp_path / "a.safetensors", tensors), "dinov2_giant")
    assert checkpoint.config.ffn_type is FFNType.SWIGLU


def test_dinov2_without_registers_is_resized_as_dinov2_does(tmp_path: Path) -> None:
    path = state_dicts.write(tmp_path / "a.safetensors", golden("dinov2") | {"mask_token": np.ones((1, 12))})
    assert convention_of(assert_same(path, "dinov2")) == "dinov2"
    masked = golden("features") | {"mask_token": np.ones((1, 1, 6)), "decoder_pos_embed": np.ones((1, 25, 6))}
    assert convention_of(assert_same(state_dicts.write(path, masked), "features")) == "timm"


@pytest.mark.parametrize("prefix", ["model.", "visual.trunk."])
def test_a_model_inside_another_is_found_and_a_text_tower_is_left(prefix: str, tmp_path: Path) -> None:
    tensors = {prefix + name: tensor for name, tensor in golden("siglip").items()}
    text = {"text.token_embedding.weight": np.ones((2, 3)), "logit_scale": np.ones(()), "logit_bias": np.ones(())}
    assert_same(state_dicts.write(tmp_path / "a.safetensors", tensors | text), "siglip")


def test_the_dense_layer_before_the_head_of_old_models_is_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    kernel, bias = rng.standard_normal((7, 12)), rng.standard_normal(7)
    tensors = golden("plain") | {"pre_logits.fc.weight": kernel, "pre_logits.fc.bias": bias}
    tensors["head.weight"] = rng.standard_normal((5, 7))
    checkpoint = checkpoints.load(state_dicts.write(tmp_path / "a.safetensors", tensors), config=STATED)
    np.testing.assert_array_equal(checkpoint.weights["pre_logits.kernel"], kernel.astype(np.float32).T)
    features = golden("plain")
    del features["head.weight"], features["head.bias"]
    pooled = forward(checkpoints.load(state_dicts.write(tmp_path / "b.safetensors", features), config=STATED), IMAGES)
    expected = np.tanh(pooled @ kernel.T + bias) @ tensors["head.weight"].T + tensors["head.bias"]
    np.testing.assert_allclose(forward(checkpoint, IMAGES), expected, rtol=1e-5, atol=1e-5)


def resized_table(rows: int) -> Callable[[str], Tensors]:
    return lambda name: golden(name) | {"pos_embed": np.ones((1, rows, 12))}


@pytest.mark.parametrize(
    ("name", "rows", "stated", "expected"),
    [
        ("plain", 10, None, (24, 12)),  # a square and the class token
        ("plain", 13, [32, 12], (32, 12)),
        ("plain", 13, [24, 16], (24, 16)),
        ("plain", 9, None, (24, 12)),  # no position for the class token
        ("deit3", 12, [24, 16], (24, 16)),
        ("registers_gap", 9, None, (24, 12)),
        ("registers_gap", 13, None, (24, 12)),  # 9 patches and 4 registers
        ("registers_gap", 12, [24, 16], (24, 16)),
    ],
)
def test_the_grid_is_told_by_the_size_stated_or_is_square(
    name: str, rows: int, stated: list[int] | None, expected: tuple[int, int], tmp_path: Path
) -> None:
    path = state_dicts.write(tmp_path / "a.safetensors", resized_table(rows)(name))
    config = checkpoints.load(path, config={"num_heads": 3} | ({"image_size": stated} if stated else {})).config
    assert config.image_size == expected


def test_a_grid_that_is_not_square_asks_for_its_size(tmp_path: Path) -> None:
    path = state_dicts.write(tmp_path / "a.safetensors", resized_table(7)("plain"))
    with pytest.raises(CheckpointError, match=r"a\.safetensors: its position table is for 6 patches, which make no sq"):
        checkpoints.load(path, config={"num_heads": 3})


def test_a_square_grid_is_an_assumption_that_is_told(tmp_path: Path) -> None:
    path = state_dicts.write(tmp_path / "a.safetensors", resized_table(10)("plain"))
    assert "assumed" in checkpoints.assumptions(checkpoints.load(path, config={"num_heads": 3}))
    assert "image_size [24, 12]" in checkpoints.assumptions(checkpoints.load(path, config={"num_heads": 3}))
    stated = checkpoints.load(path, config={"num_heads": 3, "image_size": [72, 4]})
    assert stated.config.image_size == (72, 4)
    assert "image_size" not in checkpoints.assumptions(stated)
    with pytest.raises(
        CheckpointError, match=r"image_size is \[24, 12\] by its weights and \[24, 16\] by the config given"
    ):
        checkpoints.load(path, config={"num_heads": 3, "image_size": [24, 16]})


OTHERS: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "swin": ({"layers.0.blocks.0.norm1.weight": (12,)}, "stages of several resolutions, as Swin has (layers.0."),
    "hybrid": ({"patch_embed.backbone.stem.conv.weight": (4, 3, 7, 7)}, "a convolutional stem (patch_embed.backbone."),
    "levit": ({"blocks.0.attn.attention_biases_rel_pos": (9, 3)}, "relative positions of another kind"),
    "sam": ({"blocks.0.attn.rel_pos_h": (9, 4)}, "relative positions"),
    "eva": ({"blocks.0.attn.q_proj.weight": (12, 12), "rope.periods": (4,)}, "rotary positions (rope.periods); query"),
    "parallel": ({"blocks.0.attns.0.attn.q_norm.weight": (12,)}, "norms inside of several attentions"),
    "differential": ({"blocks.0.attn.lambda_q1": (4,)}, "differential attention (blocks.0.attn.lambda_q1)"),
    "differential, parallel": ({"blocks.0.lambda_k2": (4,)}, "differential attention (blocks.0.lambda_k2)"),
    "cait": ({"blocks_token_only.0.gamma_1": (12,)}, "class attention"),
    "video": ({"patch_embed.proj.weight": (12, 3, 2, 8, 4)}, "patches of another kind"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_network_is_refused_by_what_it_has(name: str, tmp_path: Path) -> None:
    shapes, expected = OTHERS[name]
    tensors = golden("plain") | {key: np.ones(shape) for key, shape in shapes.items()}
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(state_dicts.write(tmp_path / "a.safetensors", tensors), config=STATED)
    assert "it is not a ViT that vit-deploy knows: it has" in caught.value.message
    assert expected in caught.value.message


def test_what_a_vit_always_has_and_the_file_has_not_is_named_together(tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in golden("plain").items() if name.startswith("patch_embed")}
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(state_dicts.write(tmp_path / "a.safetensors", tensors), config=STATED)
    expected = "no position table (pos_embed); no last norm (norm.weight or fc_norm.weight); no blocks (blocks.0)"
    assert expected in caught.value.message


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize(
    "architecture",
    [
        *("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "vit_base_r50_s16_224"),
        "cait_xxs24_224",
        "vit_dlittle_patch16_reg1_gap_256",
        *("samvit_base_patch16",),
        *("vit_base_patch16_radio_v3", "vit_so150m_patch16_reg4_map_256", "vit_intern300m_patch14_448"),
        *("mvitv2_tiny", "xcit_nano_12_p16_224", "pvt_v2_b0", "deit3_small_patch16_224"),
    ],
)
def test_timms_other_networks_are_never_taken_for_this_vit(architecture: str, timm: Any, tmp_path: Path) -> None:
    import torch

    with torch.device("meta"):
        model = timm.create_model(architecture)
    # Of one width and depth in place of thousands of megabytes: what is refused is refused by names.
    tensors = {name: np.zeros(tuple(tensor.shape), np.float32) for name, tensor in model.state_dict().items()}
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if tensor.size < 3_000_000 and not re.match(r"blocks\.[3-9]", name)
    }
    path = state_dicts.write(tmp_path / "a.safetensors", kept)
    if architecture == "deit3_small_patch16_224":
        with pytest.raises(CheckpointError, match=r"missing block_3\.norm1\.scale"):
            checkpoints.load(path)  # this ViT, with blocks missing
        return
    with pytest.raises(
        CheckpointError, match=r"is not a ViT that vit-deploy knows|of no known dialect|leaves its prefix"
    ):
        checkpoints.load(path)


DAMAGES: dict[str, Callable[[Tensors], Any]] = {
    "missing block_1.attention.query.kernel (12, 12)": lambda t: t.pop("blocks.1.attn.qkv.weight"),
    "missing block_0.ffn.down.bias (12,)": lambda t: t.pop("blocks.0.mlp.fc2.bias"),
    "missing head.bias (5,)": lambda t: t.pop("head.bias"),
    "missing patch_embed.bias (12,)": lambda t: t.pop("patch_embed.proj.bias"),
    "missing norm.bias (12,)": lambda t: t.pop("norm.bias"),
    "unexpected extra (2, 3)": lambda t: t.update(extra=np.ones((2, 3))),
    "unexpected head_dist.weight (5, 12)": lambda t: t.update({"head_dist.weight": np.ones((5, 12))}),
    "block_1.attention.value.bias cannot be made of blocks.1.attn.qkv.bias (35,)": lambda t: t.update(
        {"blocks.1.attn.qkv.bias": np.ones(35)}
    ),
    "block_1.attention.query.kernel has shape (12, 10), expected (12, 12)": lambda t: t.update(
        {"blocks.1.attn.qkv.weight": np.ones((30, 12))}
    ),
    "block_0.ffn.up.kernel has shape (12, 23), expected (12, 24)": lambda t: t.update(
        {"blocks.0.mlp.fc1.weight": np.ones((23, 12))}
    ),
    "class_token.class has shape (1, 11), expected (1, 12)": lambda t: t.update(cls_token=np.ones((1, 1, 11))),
    "head.bias has shape (6,), expected (5,)": lambda t: t.update({"head.bias": np.ones(6)}),
    "norm.scale has 12 values that are NaN or infinite": lambda t: t.update({"norm.weight": np.full(12, np.nan)}),
}


def test_everything_that_is_wrong_is_listed_at_once(tmp_path: Path) -> None:
    together = golden("plain")
    for expected, damage in DAMAGES.items():
        alone = golden("plain")
        damage(alone)
        with pytest.raises(CheckpointError) as caught:
            checkpoints.load(state_dicts.write(tmp_path / "a.safetensors", alone), config=STATED)
        assert expected in caught.value.message
        damage(together)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(state_dicts.write(tmp_path / "a.safetensors", together), config=STATED)
    assert "block_1.attention.value.bias cannot be made of" in caught.value.message
    assert "missing block_1.attention.query.bias (12,)" in caught.value.message


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda t: t.update({"blocks.999999.norm1.weight": np.ones(12)}), "it names 1000000 blocks, and holds 33 ten"),
        (lambda t: t.update({"blocks.0.mlp.fc2.weight": np.ones(3)}) or t.pop("blocks.1.mlp.fc2.weight"), "not 2 axes"),
        (lambda t: t.pop("patch_embed.proj.weight"), "it has no patch_embed.proj.weight"),
        (lambda t: t.update(pos_embed=np.ones((25, 12))), "pos_embed (25, 12) has not 3 axes"),
    ],
)
def test_what_the_config_is_read_from_has_to_be_there(
    damage: Callable[[Tensors], Any], expected: str, tmp_path: Path
) -> None:
    tensors = golden("plain")
    damage(tensors)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(state_dicts.write(tmp_path / "a.safetensors", tensors), config=STATED)
    assert expected in caught.value.message


def test_a_config_that_differs_from_the_weights_is_refused(tmp_path: Path) -> None:
    path = state_dicts.write(tmp_path / "a.safetensors", golden("plain"))
    wrong = ViTConfig(**STATED, patch_size=(8, 4), embed_dim=12, num_layers=3, mlp_dim=24, num_classes=6, pooling="cls")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path, config=wrong)
    assert "num_layers is 2 by its weights and 3 by the config given" in caught.value.message
    assert "num_classes is 5 by its weights and 6 by the config given" in caught.value.message


def test_large_matrices_are_transposed_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    dim, hidden = 66, 131
    tensors: Tensors = {
        "cls_token": rng.standard_normal((1, 1, dim)),
        "pos_embed": rng.standard_normal((1, 3, dim)),
        "patch_embed.proj.weight": rng.standard_normal((dim, 1, 1, 2)),
        "patch_embed.proj.bias": rng.standard_normal(dim),
        "blocks.0.attn.qkv.weight": rng.standard_normal((3 * dim, dim)),
        "blocks.0.attn.proj.weight": rng.standard_normal((dim, dim)),
        "blocks.0.mlp.fc1.weight": rng.standard_normal((hidden, dim)),
        "blocks.0.mlp.fc2.weight": rng.standard_normal((dim, hidden)),
        **{f"{norm}.weight": np.ones(dim) for norm in ("blocks.0.norm1", "blocks.0.norm2", "norm")},
    }
    path = state_dicts.write(tmp_path / "a.safetensors", tensors)
    weights = checkpoints.load(path, config={"num_heads": 3, "image_size": [1, 4]}).weights
    packed = tensors["blocks.0.attn.qkv.weight"].astype(np.float32)
    for index, role in enumerate(("query", "key", "value")):
        kernel = weights[f"block_0.attention.{role}.kernel"]
        np.testing.assert_array_equal(kernel, packed[index * dim : (index + 1) * dim].T)
        assert kernel.flags.c_contiguous
    for ours, theirs in {"attention.out": "attn.proj", "ffn.up": "mlp.fc1", "ffn.down": "mlp.fc2"}.items():
        stored = tensors[f"blocks.0.{theirs}.weight"].astype(np.float32)
        np.testing.assert_array_equal(weights[f"block_0.{ours}.kernel"], stored.T)
