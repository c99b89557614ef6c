"""What a training has saved of itself beside the weights is read: the model's name, its options, names of classes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints import state_dicts
from tests.checkpoints.torch_writer import Instance, View, write_zip
from tests.peers import dialect_models, make_dialect_golden
from vit_deploy.checkpoints import assumptions, load
from vit_deploy.core.config import Activation, Pooling
from vit_deploy.errors import CheckpointError

NUMBER = np.float32([0.01])
NUMBERS = np.full(3072 * 768, 0.01, np.float32)  # of large tensors, which may not repeat one
SMALL = 1 << 20
CLASSES = 5


def repeated(*shape: int) -> View:
    if math.prod(shape) <= SMALL:
        return View(NUMBER, shape, (0,) * len(shape))
    return View(NUMBERS, shape, tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape))))


def tiny(dim: int = 192, hidden: int = 768, depth: int = 12, norm: str = "norm") -> dict[str, Any]:
    """The names and shapes of timm's vit_tiny_patch16_224; one number stands for all."""
    state: dict[str, Any] = {
        "cls_token": repeated(1, 1, dim), "pos_embed": repeated(1, 197, dim),
        "patch_embed.proj.weight": repeated(dim, 3, 16, 16), "patch_embed.proj.bias": repeated(dim),
        f"{norm}.weight": repeated(dim), f"{norm}.bias": repeated(dim),
        "head.weight": repeated(CLASSES, dim), "head.bias": repeated(CLASSES),
    }  # fmt: skip
    layers = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "mlp.fc1": (hidden, dim), "mlp.fc2": (dim, hidden)}
    for index in range(depth):
        for name in ("norm1", "norm2"):
            state |= {f"blocks.{index}.{name}.{part}": repeated(dim) for part in ("weight", "bias")}
        for name, shape in layers.items():
            state |= {f"blocks.{index}.{name}.weight": repeated(*shape)}
            state |= {f"blocks.{index}.{name}.bias": repeated(shape[0])}
    return state


def saved(folder: Path, state: dict[str, Any], **beside: Any) -> Path:
    return write_zip(folder / "last.pth.tar", {"state_dict": state, "epoch": 3, **beside})


def args(**options: Any) -> Instance:
    return Instance("argparse.Namespace", {"lr": 0.1, **options})


def test_the_name_that_timms_training_saves_is_taken(tmp_path: Path) -> None:
    found = load(saved(tmp_path, tiny(), arch="vit_tiny_patch16_224", args=args(model="vit_tiny_patch16_224")))
    assert found.config.num_heads == 3 and found.config.activation is Activation.GELU
    assert "architecture vit_tiny_patch16_224, for the training that saved it names it" in assumptions(found)
    assert "num_heads" not in assumptions(found).partition("architecture")[0]


def test_a_name_tells_what_weights_of_the_same_names_do_not(tmp_path: Path) -> None:
    state = tiny(768, 3072)
    state |= {"norm_pre.weight": repeated(768), "norm_pre.bias": repeated(768)}
    state |= {"patch_embed.proj.weight": repeated(768, 3, 32, 32), "pos_embed": repeated(1, 50, 768)}
    del state["patch_embed.proj.bias"]
    quick = load(saved(tmp_path, state, hyper_parameters={"model_name": "vit_base_patch32_clip_quickgelu_224"}))
    usual = load(saved(tmp_path, state, hyper_parameters={"model_name": "vit_base_patch32_clip_224.openai"}))
    assert (quick.config.activation, usual.config.activation) == (Activation.QUICK_GELU, Activation.GELU)


def test_the_options_that_the_model_was_made_with_are_taken(tmp_path: Path) -> None:
    options = args(model="vit_tiny_patch16_224", model_kwargs={"num_heads": 6, "act_layer": "silu"})
    found = load(saved(tmp_path, tiny(), args=options))
    assert found.config.num_heads == 6 and found.config.activation is Activation.SILU
    pooled = load(saved(tmp_path, tiny(norm="fc_norm"), args=args(model="vit_tiny_patch16_224", gp="avg")))
    assert pooled.config.pooling is Pooling.MEAN and pooled.config.norm_after_pooling
    with pytest.raises(CheckpointError, match="attention of another kind"):
        load(saved(tmp_path, tiny(), args=args(model="vit_tiny_patch16_224", model_kwargs={"attn_layer": "diff"})))


@pytest.mark.parametrize(
    "beside",
    [
        {"arch": "vit_small_patch16_224"},
        {"arch": "resnet50"},
        {"arch": ["vit_tiny_patch16_224"]},
        {"args": args(model=3)},
        {"args": args(model={"name": "vit_tiny_patch16_224"})},
        {"hyper_parameters": [1, 2]},
    ],
)
def test_a_name_that_is_not_of_these_weights_is_none(beside: dict[str, Any], tmp_path: Path) -> None:
    found = load(saved(tmp_path, tiny(), **beside))
    assert "names it" not in assumptions(found)


def test_what_the_user_says_comes_before_what_a_training_says(tmp_path: Path) -> None:
    path = saved(tmp_path, tiny(), args=args(model="vit_tiny_patch16_224", model_kwargs={"num_heads": 6}))
    assert load(path, config={"num_heads": 12}).config.num_heads == 12
    assert load(path, config={"architecture": "vit_tiny_patch16_224"}).config.num_heads == 3


NAMES = ["ant", "bee", "cow", "dog", "eel"]


@pytest.mark.parametrize(
    "meta",
    [{"dataset_meta": {"classes": NAMES}}, {"CLASSES": tuple(NAMES)}, {"dataset_meta": {"CLASSES": tuple(NAMES)}}],
)
def test_mmpretrains_names_of_classes_become_labels(meta: dict[str, Any], tmp_path: Path) -> None:
    case = dialect_models.CASES["mmpretrain-linear"]
    state = dict(state_dicts.read(make_dialect_golden.TARGET / "mmpretrain-linear" / "model.safetensors"))
    stated = {"num_heads": dialect_models.HEADS, "image_size": list(case.image_size), **case.stated}
    path = saved(tmp_path, state, meta=meta)
    assert load(path, config=stated).labels == tuple(NAMES)
    assert load(path, config={**stated, "labels": list("vwxyz")}).labels == tuple("vwxyz")
    assert load(path, config={**stated, "head": False}).labels == ()


@pytest.mark.parametrize(
    "meta", [{"dataset_meta": {"classes": NAMES[:3]}}, {"CLASSES": "abcde"}, {"CLASSES": [1, 2, 3, 4, 5]}, {}, [], 3]
)
def test_names_of_other_classes_become_none(meta: Any, tmp_path: Path) -> None:
    assert load(saved(tmp_path, tiny(), meta=meta)).labels == ()
