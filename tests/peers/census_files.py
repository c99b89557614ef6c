"""The census of files: trainings of other programs, and what is taken for a checkpoint of a ViT and is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests import torchvision_stand_in
from tests.checkpoints import state_dicts
from tests.peers import dialect_models, make_dialect_golden
from tests.peers.census import Made, Row
from tests.peers.census_trainings import optimizer, others, prefixed, program_of

TORCH = ("torch",)
ANY = "trainings"
Wrap = Callable[[Mapping[str, Any]], Any]


def _golden_state(name: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(make_dialect_golden.TARGET / name / "model.safetensors"))


def _wrapped(name: str, wrap: Wrap, file: str, folder: Path) -> Made:
    import torch

    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(wrap(_golden_state(name)), path)
    with np.load(make_dialect_golden.TARGET / name / make_dialect_golden.EXPECTED) as arrays:
        return Made(path, arrays["images"], arrays["answer"])


def _in_a_training(name: str, how: str, wrap: Wrap, file: str) -> Row:
    """A recorded model of another program, as its training saves it."""
    case = dialect_models.CASES[name]
    stated = {"num_heads": dialect_models.HEADS, "image_size": list(case.image_size), **case.stated}
    make = partial(_wrapped, name, wrap, file)
    return Row(program_of(name), f"{name}, {file}", how, make, "", stated, TORCH)


def programs() -> Iterator[Row]:
    """Files of other programs' trainings."""
    yield _in_a_training(
        "torchvision", "torchvision's references/classification",
        lambda state: {"model": state, "optimizer": optimizer(state), "lr_scheduler": {}, "epoch": 3},
        "model_3.pth",
    )  # fmt: skip
    yield _in_a_training(
        "torchvision", "torchvision's references with --model-ema",
        lambda state: {
            "model": others(state), "epoch": 3,
            "model_ema": {**prefixed("module.", state), "n_averaged": next(iter(state.values())).sum()},
        },
        "checkpoint.pth",
    )  # fmt: skip
    yield _in_a_training(
        "torchvision-new-head", "a Lightning module around it",
        lambda state: {"state_dict": prefixed("net.", state), "hyper_parameters": {"lr": 0.1}}, "last.ckpt",
    )  # fmt: skip
    meta = {"mmpretrain_version": "1.2.0", "dataset_meta": {"classes": ["a", "b", "c", "d", "e"]}}
    yield _in_a_training(
        "mmpretrain", "mmengine's CheckpointHook",
        lambda state: {"meta": meta, "state_dict": state, "message_hub": {}, "optimizer": {}}, "epoch_100.pth",
    )  # fmt: skip
    yield _in_a_training(
        "mmpretrain-linear", "mmengine's CheckpointHook with an EMA",
        lambda state: {
            "meta": meta, "state_dict": state, "ema_state_dict": {**prefixed("module.", state)}
        }, "epoch_10.pth",
    )  # fmt: skip
    yield _in_a_training("monai", "MONAI's CheckpointSaver", lambda state: {"model": state}, "key_metric=0.9.pt")
    yield _in_a_training("vit-pytorch-0.24", "torch.save(model.state_dict())", dict, "vit.pt")
    yield _in_a_training("vit-pytorch", "torch.save(model.state_dict())", dict, "vit-1.26.pt")
    yield _in_a_training("jeonsworld", "ViT-pytorch/train.py", dict, "cifar10_checkpoint.bin")
    yield _in_a_training("pytorch_pretrained_vit", "torch.save(model.state_dict())", dict, "B_16.pth")
    yield _in_a_training("openai-clip-visual", "torch.save(model.visual.state_dict())", dict, "visual.pt")
    yield _in_a_training(
        "open_clip-coca", "open_clip's training of CoCa",
        lambda state: {"epoch": 3, "state_dict": prefixed("module.", state), "optimizer": {}}, "epoch_3.pt",
    )  # fmt: skip
    yield Row(
        "OpenAI CLIP, OpenCLIP", "CoCa, a folder of the hub", "push_to_hf_hub", _coca, "", {}, (*TORCH, "open_clip")
    )
    yield _in_a_training("dino", "torch.save of a DataParallel", partial(prefixed, "module."), "dino.pth")
    yield Row("OpenAI CLIP, OpenCLIP", "open_clip, a training folder", "logs/NAME/checkpoints", _open_clip_logs, "", {
        "num_heads": dialect_models.HEADS, "image_size": list(dialect_models.OBLONG)}, TORCH)  # fmt: skip


def _coca(folder: Path) -> Made:
    """As OpenCLIP makes and saves it today."""
    import torch

    torchvision_stand_in.install()
    case = dialect_models.CASES["open_clip-coca"]
    model, images = dialect_models.build(case, folder), dialect_models.images_for(case)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    for file, document in case.beside.items():
        (folder / file).write_text(json.dumps(document))
    return Made(folder, images, dialect_models.answer_of(case, model, images))


def _open_clip_logs(folder: Path) -> Made:
    made = _wrapped("open_clip", lambda state: {"epoch": 3, "name": "run", "state_dict": prefixed("module.", state),
                    "optimizer": {}}, "checkpoints/epoch_latest.pt", folder)  # fmt: skip
    (folder / "params.txt").write_text("lr: 0.1\n")
    return Made(folder, made.images, made.answer)


FOREIGN: Mapping[str, tuple[str, str, Mapping[str, tuple[int, ...]], str]] = {
    "a ResNet of CLIP": (
        "OpenAI CLIP, OpenCLIP", "RN50.pt", {
            "visual.conv1.weight": (8, 3, 3, 3), "visual.attnpool.positional_embedding": (5, 8)},
        "a ResNet for its vision tower"),
    "CoCa of two poolings": (
        "OpenAI CLIP, OpenCLIP", "attentional_pool='parallel'", {
            "visual.conv1.weight": (16, 3, 8, 8), "visual.class_embedding": (16,),
            "visual.attn_pool.query": (4, 16), "visual.attn_pool_contrastive.query": (1, 16)},
        "an attention pooling for words and another for classes"),
    "volumes": (
        "MONAI", "ViT of three dimensions", {"patch_embedding.patch_embeddings.weight": (16, 1, 4, 4, 4)},
        "patches of volumes"),
    "a mean behind two norms": (
        "mmpretrain, mmcls", "out_type='avg_featmap'", {
            "backbone.patch_embed.projection.weight": (16, 3, 8, 8), "backbone.ln1.weight": (16,),
            "backbone.ln2.weight": (16,)}, "a norm of the tokens and another of their mean"),
    "a hybrid": (
        "jeonsworld/ViT-pytorch", "R50-ViT-B_16", {
            "transformer.embeddings.patch_embeddings.weight": (16, 64, 1, 1),
            "transformer.embeddings.hybrid_model.root.conv.weight": (64, 3, 7, 7)},
        "a convolutional network for its stem"),
    "with its representation layer": (
        "pytorch_pretrained_vit", "load_repr_layer=True", {
            "patch_embedding.weight": (16, 3, 8, 8), "positional_embedding.pos_embedding": (1, 5, 16),
            "pre_logits.weight": (16, 16)}, "a dense layer with tanh before its last norm"),
    "a ResNet": ("torchvision", "resnet18", {"conv1.weight": (64, 3, 7, 7)}, "of no known dialect"),
    "a Swin": ("torchvision", "swin_t", {"features.0.0.weight": (96, 3, 4, 4)}, "of no known dialect"),
    "pieces of FSDP": (ANY, "FSDP without FULL_STATE_DICT", {"module._flat_param": (64,)}, "pieces of the weights"),
    "a language model": (
        ANY, "a folder of another kind", {"model.embed_tokens.weight": (9, 8), "lm_head.weight": (9, 8)},
        "of no known dialect"),
}  # fmt: skip
"""Source, how it is made, names with their shapes, and the words that it is refused with."""

TEXTS: Mapping[str, tuple[str, bytes, str]] = {
    "a packed archive": ("vit.tar.gz", b"\x1f\x8b\x08\x00\x00", "a packed archive"),
    "the config alone": ("config.json", b'{"model_type": "vit"}', "a text of JSON"),
    "a file of nothing": ("vit.pth", b"", "no checkpoint|empty"),
}


def _shapes(shapes: Mapping[str, tuple[int, ...]], folder: Path) -> Made:
    tensors = {name: np.zeros(shape) for name, shape in shapes.items()}
    return Made(state_dicts.write(folder / "model.safetensors", tensors))


def _bytes(name: str, content: bytes, folder: Path) -> Made:
    (folder / name).write_bytes(content)
    return Made(folder / name)


def foreign() -> Iterator[Row]:
    """What is refused by what it is."""
    for name, (source, how, shapes, refused) in FOREIGN.items():
        yield Row(source, name, how, partial(_shapes, shapes), refused)
    for name, (file, content, refused) in TEXTS.items():
        yield Row(ANY, name, file, partial(_bytes, file, content), refused)


def rows() -> Iterator[Row]:
    """All of them."""
    yield from programs()
    yield from foreign()
