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
from vit_deploy.core.choices import Activation, Pooling
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
    with pytest.raises(CheckpointError, match="it has differential attention"):
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


TEST_PIPELINE = """[
    dict(type='LoadImageFromFile'),
    dict(backend='pillow', edge='short', interpolation='bicubic', scale=(SCALE), type='ResizeEdge'),
    dict(crop_size=(SIZE), type='CenterCrop'),
    dict(type='PackInputs'),
]"""
OF_MMENGINE = """
data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53], num_classes=5, std=[58.395, 57.12, 57.375], to_rgb=True)
model = dict(
    backbone=dict(arch=dict(num_heads=2), norm_cfg=dict(eps=1e-05, type='LN'), type='VisionTransformer'),
    head=dict(num_classes=5, type='VisionTransformerClsHead'), neck=None, type='ImageClassifier')
test_dataloader = dict(batch_size=64, dataset=dict(pipeline=PIPELINE, type='ImageNet'))
optim_wrapper = dict(optimizer=dict(lr=0.003, type='AdamW'))
"""
OF_MMCV = """
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
model = dict(type='ImageClassifier', backbone=dict(type='VisionTransformer', arch='deit-t'))
data = dict(test=dict(type='ImageNet', pipeline=[
    dict(type='LoadImageFromFile'),
    dict(type='Resize', size=(64, -1), backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=(SIZE)),
    dict(type='Normalize', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
    dict(type='ImageToTensor', keys=['img']),
    dict(type='Collect', keys=['img'])]))
"""
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def of_mmpretrain(folder: Path, text: str, pipeline: str = TEST_PIPELINE, **stated: Any) -> Any:
    """What is read of a recorded model of mmpretrain whose file has the text of a config."""
    case = dialect_models.CASES["mmpretrain"]
    state = dict(state_dicts.read(make_dialect_golden.TARGET / "mmpretrain" / "model.safetensors"))
    text = text.replace("PIPELINE", pipeline).replace("SCALE", "64").replace("SIZE", str(tuple(case.image_size)))
    key = "config" if text.startswith(OF_MMCV[:8]) else "cfg"
    path = saved(folder, state, meta={key: text})
    return load(path, config={"num_heads": dialect_models.HEADS, "image_size": list(case.image_size), **stated})


@pytest.mark.parametrize("text", [OF_MMENGINE, OF_MMCV])
def test_the_config_text_of_mmpretrain_says_mean_std_and_sizes(text: str, tmp_path: Path) -> None:
    found = of_mmpretrain(tmp_path, text)
    assert found.preprocess.mean == pytest.approx([value / 255 for value in MEAN])
    assert found.preprocess.std == pytest.approx([value / 255 for value in STD])
    assert (found.preprocess.resize, found.preprocess.crop, found.preprocess.interpolation) == (64, True, "bicubic")
    said = assumptions(found)
    assert "mean" not in said and "interpolation" not in said and "preprocess" not in said


def test_a_config_text_says_heads_and_epsilon_unless_the_user_does(tmp_path: Path) -> None:
    case = dialect_models.CASES["mmpretrain"]
    state = dict(state_dicts.read(make_dialect_golden.TARGET / "mmpretrain" / "model.safetensors"))
    path = saved(tmp_path, state, meta={"cfg": OF_MMENGINE.replace("PIPELINE", "[]")})
    found = load(path, config={"image_size": list(case.image_size)})
    assert (found.config.num_heads, found.config.epsilon) == (2, 1e-5)
    assert "num_heads" not in assumptions(found)
    assert load(path, config={"image_size": list(case.image_size), "num_heads": 1}).config.num_heads == 1


def test_a_model_for_blue_first_becomes_one_for_red_first(tmp_path: Path) -> None:
    from vit_deploy.core.reference import forward

    usual = of_mmpretrain(tmp_path, OF_MMENGINE)
    turned = of_mmpretrain(tmp_path, OF_MMENGINE.replace("to_rgb=True", "to_rgb=False"))
    assert turned.preprocess.mean == usual.preprocess.mean[::-1] and turned.preprocess.std == usual.preprocess.std[::-1]
    pixels = np.random.default_rng(0).integers(0, 256, (2, *usual.config.image_size, 3), np.uint8)
    theirs = forward(usual, usual.preprocess.normalize(pixels[..., ::-1]))  # as the file has it, of blue first
    assert np.abs(forward(turned, turned.preprocess.normalize(pixels)) - theirs).max() < 1e-5


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [
        (TEST_PIPELINE.replace("backend='pillow', ", ""), "interpolation of Pillow, for its training resized with"),
        (TEST_PIPELINE.replace("'CenterCrop'", "'TenCrop'"), "preprocess resized to the model's input"),
        (TEST_PIPELINE.replace("edge='short'", "edge='long'"), "preprocess resized to the model's input"),
        (TEST_PIPELINE.replace("crop_size=(SIZE)", "crop_size=999"), "preprocess resized to the model's input"),
        ("[]", "preprocess resized to the model's input"),
    ],
)
def test_a_pipeline_that_is_not_taken_as_it_is_said_is_an_assumption(pipeline: str, said: str, tmp_path: Path) -> None:
    found = of_mmpretrain(tmp_path, OF_MMENGINE, pipeline)
    assert said in assumptions(found)
    assert found.preprocess.mean == pytest.approx([value / 255 for value in MEAN])


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.system('false')",
        "data_preprocessor = __import__('os').system('false')",
        "data_preprocessor = dict(mean=[1, 2, 3])",
        "data_preprocessor = dict(mean=[1, 2, 3], std=[1, 1, 0])",
        "data_preprocessor = dict(mean='abc', std='abc')",
        "a = " + "(" * 5000 + ")" * 5000,
        "a = " + "[" * 90 + "]" * 90,
        "a = \x00",
        "data_preprocessor: dict = {'mean': [1], **{}}",
    ],
)
def test_a_text_that_says_nothing_is_none(text: str, tmp_path: Path) -> None:
    found = of_mmpretrain(tmp_path, text)
    assert "mean" in assumptions(found)
