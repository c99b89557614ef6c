"""What a name of timm's stands for, and what weights without one were taken for."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from tests.checkpoints.state_dicts import read, write
from tests.peers import timm_families
from vit_deploy.checkpoints import assumed, load
from vit_deploy.checkpoints.timm import architectures as table
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation, Pooling
from vit_deploy.core.reference import forward
from vit_deploy.errors import CheckpointError

LIMIT = 1e-5  # of the largest logit


def weights_like(name: str, folder: Path, depth: int = 1) -> Path:
    """A file with tensors of an architecture's names and shapes, cut to `depth` blocks, and no config."""
    row = next(
        architecture for architecture in table.architectures() if architecture.name == name and architecture.traits
    )
    dim, hidden = row.embed_dim, row.mlp_dim
    traits = set(row.traits.split("+"))
    tokens = ("class" in traits) + 4
    tensors = {
        "pos_embed": (1, tokens, dim),
        "patch_embed.proj.weight": (dim, 3, *row.patch_size),
        **({"cls_token": (1, 1, dim)} if "class" in traits else {}),
        **({} if "pre_norm" in traits else {"patch_embed.proj.bias": (dim,)}),
    }
    norms = ["fc_norm" if "fc_norm" in traits else "norm", *(["norm_pre"] if "pre_norm" in traits else [])]
    for block in (f"blocks.{index}" for index in range(depth)):
        tensors |= {f"{block}.attn.qkv.weight": (3 * dim, dim), f"{block}.attn.proj.weight": (dim, dim)}
        tensors |= {f"{block}.mlp.fc1.weight": (hidden, dim), f"{block}.mlp.fc2.weight": (dim, hidden)}
        tensors |= {f"{block}.attn.proj.bias": (dim,), f"{block}.mlp.fc1.bias": (hidden,)}
        tensors |= {f"{block}.mlp.fc2.bias": (dim,)}
        tensors |= {} if "no_qkv_bias" in traits else {f"{block}.attn.qkv.bias": (3 * dim,)}
        tensors |= {f"{block}.ls{number}.gamma": (dim,) for number in (1, 2) if "layer_scale" in traits}
        norms += [f"{block}.norm1", f"{block}.norm2"]
    tensors |= {f"{norm}.{part}": (dim,) for norm in norms for part in ("weight", "bias")}
    return write(folder / "alone.safetensors", {key: np.zeros(shape, np.float32) for key, shape in tensors.items()})


def said_of(checkpoint: Checkpoint) -> dict[str, tuple[Any, str]]:
    return {sentence.field: (sentence.value, sentence.why) for sentence in assumed(checkpoint.provenance)}


def test_a_name_is_known_or_refused() -> None:
    assert len({architecture.name for architecture in table.architectures()}) > 300
    base = table.architecture_named("vit_base_patch16_224.augreg_in21k")
    assert base is not None and (base.num_heads, base.needs, base.image_size) == (12, "", (224, 224))
    assert table.architecture_named("vit_base_patch16_of_tomorrow") is None


@pytest.mark.parametrize(
    ("name", "field", "value", "others"),
    [
        ("vit_base_patch16_gap_224", "num_heads", 12, "vit_base_patch16_gap_224 (16 heads"),
        ("vit_base_patch32_clip_224", "activation", "gelu", "quickgelu_224 (activation quick_gelu)"),
        ("vit_small_patch16_rope_ape_224", "num_heads", 6, "vit_small_patch16_rope_ape_224 (rotary positions)"),
        ("vit_base_patch16_clip_224", "epsilon", 1e-5, "vit_pe_spatial_base_patch16_512 (rotary positions)"),
    ],
)
def test_bare_weights_say_what_they_were_taken_for_and_what_else_has_them(
    name: str, field: str, value: object, others: str, tmp_path: Path
) -> None:
    checkpoint = load(weights_like(name, tmp_path))
    said = said_of(checkpoint)
    assert said[field][0] == value
    taken, why = said["architecture"]
    assert table.architecture_named(taken) is not None
    assert others in why and "--architecture NAME" in why


def test_bare_weights_of_one_architecture_alone_are_read_as_it(tmp_path: Path) -> None:
    checkpoint = load(weights_like("vit_giantopt_patch16_siglip_gap_256", tmp_path))
    assert (checkpoint.config.num_heads, checkpoint.config.activation) == (16, Activation.GELU_TANH)
    assert checkpoint.config.pooling is Pooling.MEAN
    assert "architecture" not in said_of(checkpoint)


def test_bare_weights_say_where_images_may_be_larger_than_what_is_read(tmp_path: Path) -> None:
    tensors = dict(read(weights_like("vit_so400m_patch14_siglip_gap_384", tmp_path)))
    tensors["pos_embed"] = np.zeros((1, 27 * 27, 1152), np.float32)
    file = write(tmp_path / "alone.safetensors", tensors)
    checkpoint = load(file)
    assert checkpoint.config.image_size == (378, 378)
    assert "vit_so400m_patch14_siglip_gap_384 (images of 384x384)" in said_of(checkpoint)["architecture"][1]
    named = load(file, config={"architecture": "vit_so400m_patch14_siglip_gap_384"})
    assert named.preprocess.input_size == (384, 384)


@pytest.mark.parametrize("name", ["vit_pe_core_gigantic_patch14_448"])
def test_bare_weights_that_only_another_network_has_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load(weights_like(name, tmp_path))
    assert f"timm has such weights in {name}" in caught.value.message
    assert "--architecture NAME" in caught.value.fix


def test_bare_weights_of_no_known_width_say_which_features_would_not_show(tmp_path: Path) -> None:
    golden = Path(timm_families.__file__).parent / "golden" / "timm" / "deit3" / "model.safetensors"
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(golden.read_bytes())
    value, why = said_of(load(alone, config={"num_heads": 3, "image_size": [24, 32]}))["architecture"]
    assert value == "VisionTransformer"
    assert "rope_ape_224" in why and "(rotary positions)" in why


def test_a_name_that_the_user_gives_decides(tmp_path: Path) -> None:
    file = weights_like("vit_base_patch16_gap_224", tmp_path)
    checkpoint = load(file, config={"architecture": "vit_base_patch16_gap_224"})
    assert checkpoint.config.num_heads == 16
    assert set(said_of(checkpoint)) <= {"mean", "std", "image_size", "resize", "crop", "interpolation"}
    stated = load(file, config={"architecture": "vit_base_patch16_gap_224", "num_heads": 8})
    assert stated.config.num_heads == 8
    with pytest.raises(CheckpointError, match=r"r50_s16_224 is not a ViT that vit-deploy knows: it has a convol"):
        load(file, config={"architecture": "vit_base_r50_s16_224"})
    with pytest.raises(CheckpointError, match="its tokens are 768 wide, and those of vit_large_patch16_224 1024"):
        load(file, config={"architecture": "vit_large_patch16_224"})


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        ("nope", "give timm's name of the model, as vit_base_patch16_224"),
        ("vit_base_patch16_gap_242", "did you mean 'vit_base_patch16_gap_224'?"),
    ],
)
def test_a_name_that_is_none_of_timms_is_refused_with_what_may_be_meant(given: str, fix: str, tmp_path: Path) -> None:
    file = weights_like("vit_base_patch16_gap_224", tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load(file, config={"architecture": given})
    assert str(caught.value) == f"{file}: timm has no architecture {given!r} that is read here\n  fix: {fix}"


def test_a_name_that_the_user_gives_wins_over_one_that_is_not_known(tmp_path: Path) -> None:
    golden = Path(timm_families.__file__).parent / "golden" / "timm" / "plain"
    (tmp_path / "model.safetensors").write_bytes((golden / "model.safetensors").read_bytes())
    text = (golden / "config.json").read_text().replace('"vit_tiny_patch16_224"', '"vit_tiny_of_mine"')
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="vit_tiny_of_mine is not a ViT that vit-deploy knows") as caught:
        load(tmp_path)
    assert "--architecture NAME" in caught.value.fix
    assert load(tmp_path, config={"architecture": "vit_tiny_patch16_224"}) is not None


def test_a_name_is_of_timm_alone(tmp_path: Path) -> None:
    folder = Path(timm_families.__file__).parent / "golden" / "huggingface" / "vit"
    with pytest.raises(CheckpointError, match="an architecture of timm is given, and it is of"):
        load(folder, config={"architecture": "vit_tiny_patch16_224"})
    with pytest.raises(CheckpointError, match="architecture is 3; expected a name"):
        load(folder, config={"architecture": 3})


def written() -> list[dict[str, str]]:
    text = resources.files("vit_deploy.checkpoints.timm").joinpath(table.TABLE).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@pytest.mark.peers
@pytest.mark.slow  # it makes every model of the library
def test_the_table_is_what_the_library_says_today(timm: Any) -> None:
    from tests.peers.make_timm_architectures import names_of, rows_of

    depths = {row["name"]: int(row["num_layers"]) for row in written()}
    with mock.patch.object(table, "architectures", tuple):
        found = [row for name, today in names_of(timm) for row in rows_of(timm, name, today, depths.get(name))]
    assert [{key: str(value) for key, value in row.items()} for row in found] == [
        {key: row[key] for key in found[0]} for row in written()
    ]


WIDE = {"img_size": [24, 32], "patch_size": [8, 4], "num_classes": 5, "depth": 2}


@pytest.mark.peers
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_base_patch32_siglip_256", "deit3_small_patch16_224"])
def test_heads_of_a_name_are_meant_for_the_width_that_its_config_says(name: str, timm: Any, tmp_path: Path) -> None:
    arguments = {**WIDE, "embed_dim": 24}
    torch = pytest.importorskip("torch")
    model = timm.create_model(name, **arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.3 + (parameter.ndim == 1))
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True, model_args=arguments)
    images = timm_families.drawn_images(24, 32)
    theirs = timm_families.output(model, images)
    assert np.abs(forward(load(tmp_path), images) - theirs).max() < LIMIT * np.abs(theirs).max()


@pytest.mark.peers
@pytest.mark.slow  # likewise
def test_no_bare_weights_of_timm_are_read_wrong_without_a_word(timm: Any) -> None:
    from tests.peers.make_timm_architectures import Shapes, made, names_of
    from vit_deploy.checkpoints.timm import source
    from vit_deploy.errors import VitDeployError

    wrong, said, exact, refused = [], [], [], []
    for name, today in names_of(timm):
        model, row = made(timm, today, depth=1), table.architecture_named(name)
        assert row is not None
        file = Shapes(model.state_dict()) if model is not None else None
        if file is None or not source.TimmSource().detects(file):
            continue
        try:
            checkpoint = source.TimmSource().read(file, {})
        except VitDeployError:
            refused.append(name)
            continue
        config = checkpoint.config
        right = not row.needs and config.num_heads == row.num_heads and config.epsilon == row.epsilon
        right = right and (config.activation == row.activation or "gated" in row.traits)
        right = right and config.effective_pooling in (row.pooling, Pooling.CLS_DISTILLATION)
        if right:
            exact.append(name)
        else:
            (said if "architecture" in said_of(checkpoint) else wrong).append(name)
    assert not wrong
    assert len(exact) > 140
    assert {"vit_small_patch16_rope_ape_224", "vit_base_patch16_clip_quickgelu_224"} <= set(said)
    assert "vit_pe_core_gigantic_patch14_448" in refused
