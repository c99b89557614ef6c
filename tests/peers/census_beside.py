"""The census of what lies beside a model or in another way: adapters, heads in files of their own, odd storages."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.peers import timm_families
from tests.peers.census import Made, Row
from tests.peers.census_trainings import NEEDS, SIZE, STATED, prefixed, trained
from tests.peers.make_adapter_golden import BASES, CASES, TARGET

SOURCE = "trainings"
OF_ADAPTERS = "PEFT's adapters"
EXPECTED = "expected.npz"


def _adapted(name: str, folder: Path) -> Made:
    """A base model with its adapter in the same folder; the model with the adapter inside where that is how it is."""
    made = folder / "model"
    if CASES[name].whole:
        shutil.copytree(TARGET / name, made)
    else:
        shutil.copytree(BASES / CASES[name].base, made)
        for file in TARGET.joinpath(name).glob("adapter_*"):
            shutil.copy(file, made)
    return _answered(made, name)


def _answered(path: Path, name: str) -> Made:
    with np.load(TARGET / name / EXPECTED) as arrays:
        return Made(path, arrays["images"], arrays["answer"])


def _base(name: str, folder: Path) -> Made:
    shutil.copytree(BASES / CASES[name].base, folder / "base")
    return _answered(folder / "base", name)


def _alone(name: str, folder: Path) -> Made:
    for file in TARGET.joinpath(name).glob("adapter_*"):
        shutil.copy(file, folder)
    return Made(folder)


def _of_loralib(folder: Path) -> Made:
    from safetensors.numpy import load_file, save_file

    state = load_file(BASES / "timm" / "plain" / "model.safetensors")
    drawn = np.random.default_rng(0)
    state["blocks.0.attn.qkv.lora_A"] = drawn.standard_normal((2, 12)).astype(np.float32)
    state["blocks.0.attn.qkv.lora_B"] = drawn.standard_normal((36, 2)).astype(np.float32)
    save_file(state, folder / "model.safetensors")
    return Made(folder / "model.safetensors")


def _of_another_kind(folder: Path) -> Made:
    made = _adapted("timm", folder)
    path = made.path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "peft_type": "LOHA"}))
    return made


def _under_another_key(folder: Path) -> Made:
    import torch

    matrices = {"blocks.0.attn.qkv.lora_A": torch.ones(2, 12), "blocks.0.attn.qkv.lora_B": torch.ones(36, 2)}
    return _saved(lambda state: {"model": state, "lora": matrices}, folder)


def adapters() -> Iterator[Row]:
    """Low-rank adapters, beside their model, given, inside and alone."""
    for name, case in CASES.items():
        how = "a model saved with its adapter" if case.whole else f"PeftModel.save_pretrained beside {case.base}"
        yield Row(OF_ADAPTERS, name, how, partial(_adapted, name))
    yield Row(OF_ADAPTERS, "given", "--adapter FOLDER", partial(_base, "vit"), "", {"adapter": str(TARGET / "vit")})
    yield Row(OF_ADAPTERS, "alone", "the folder of an adapter", partial(_alone, "vit"), "without its base model")
    yield Row(
        OF_ADAPTERS, "matrices of loralib", "loralib's names", _of_loralib, "an adapter that is not merged", STATED
    )
    yield Row(OF_ADAPTERS, "matrices under another key", "a training that saves both", _under_another_key,
              "an adapter that is not merged", STATED, NEEDS, {"ignore": ["lora.*"]})  # fmt: skip
    yield Row(OF_ADAPTERS, "LoHa", "another kind of adapter", _of_another_kind, "peft_type 'LOHA'; expected LORA")


def _saved(store: Callable[[Mapping[str, Any]], Any], folder: Path, **options: Any) -> Made:
    import torch

    model = trained()
    torch.save(store(model.state), folder / "model.pth", **options)
    return Made(folder / "model.pth", model.images, model.answer)


def _in_one(state: Mapping[str, Any]) -> dict[str, Any]:
    """All tensors as views of one storage, as FSDP and some optimizers keep them."""
    import torch

    flat = torch.cat([tensor.reshape(-1) for tensor in state.values()])
    ends = np.cumsum([tensor.numel() for tensor in state.values()])
    starts = [0, *ends[:-1]]
    return {
        name: flat[start:end].view(tensor.shape)
        for (name, tensor), start, end in zip(state.items(), starts, ends, strict=True)
    }


def _turned(state: Mapping[str, Any]) -> dict[str, Any]:
    """The same numbers, the last axis first in memory."""
    axes = {name: tuple(reversed(range(tensor.ndim))) for name, tensor in state.items()}
    return {name: tensor.permute(axes[name]).contiguous().permute(axes[name]) for name, tensor in state.items()}


def _negated(state: Mapping[str, Any]) -> dict[str, Any]:
    """One tensor as a view with the other sign."""
    import torch

    bias = state["head.bias"]
    return {**state, "head.bias": torch.complex(torch.zeros_like(bias), -bias).conj().imag}


def _with_objects(state: Mapping[str, Any]) -> dict[str, Any]:
    """What trainings put beside: parts of functions, paths, numbers of NumPy."""
    return {
        "model": state, "loss": functools.partial(max, 1), "out": Path("/runs"), "metric": np.float64(0.7),
        "best": np.array([1.0, 2.0]), "rng": np.random.default_rng(0).bit_generator.state, "done": {1, 2},
    }  # fmt: skip


def _half(path: str, folder: Path) -> Made:
    """Without the block, or the tensor, that the path begins with."""
    return _saved(lambda state: {name: tensor for name, tensor in state.items() if not name.startswith(path)}, folder)


def _changed(change: Callable[[Any], Any], folder: Path) -> Made:
    """A model whose weights torch computes from others."""
    import torch

    model = trained()
    change(model.model)
    torch.save(model.model.state_dict(), folder / "model.pth")
    return Made(folder / "model.pth", model.images, timm_families.output(model.model, model.images).astype(np.float32))


def _prune(model: Any) -> None:
    from torch.nn.utils import prune

    for block in model.blocks:
        prune.l1_unstructured(block.mlp.fc1, "weight", 0.5)


def _normalize(model: Any) -> None:
    from torch.nn.utils import parametrizations

    parametrizations.weight_norm(model.head)


def storages() -> Iterator[Row]:
    """One model in storages of many kinds, whole and not."""
    for name, store in (
        ("one storage for all", _in_one),
        ("tensors in another order of memory", _turned),
        ("a view with the other sign", _negated),
        ("objects of Python and NumPy beside it", _with_objects),
    ):
        yield Row(SOURCE, name, "torch.save", partial(_saved, store), "", STATED, NEEDS)
    yield Row(SOURCE, "one storage for all, the format before zip", "torch.save before 1.6",
              partial(_saved, _in_one, _use_new_zipfile_serialization=False), "", STATED, NEEDS)  # fmt: skip
    yield Row(SOURCE, "pruned layers", "torch.nn.utils.prune", partial(_changed, _prune), "", STATED, NEEDS)
    yield Row(SOURCE, "a parametrized head", "torch.nn.utils.parametrizations", partial(_changed, _normalize),
              "a weight that torch computes from others", STATED, NEEDS)  # fmt: skip
    for name, path, said in (
        ("a block that is gone", "blocks.0.", "missing block_0"),
        ("a bias that is gone", "blocks.1.attn.qkv.bias", r"missing block_1\.attention\.query\.bias"),
        ("a norm that is gone", "norm.", "no last norm"),
        ("a table that is gone", "pos_embed", "no position table"),
    ):
        yield Row(SOURCE, name, f"a file without {path}", partial(_half, path), said, STATED, NEEDS)


def _head_apart(folder: Path) -> Made:
    import torch

    model = trained()
    head = {name.removeprefix("head."): tensor for name, tensor in model.state.items() if name.startswith("head.")}
    body = {name: tensor for name, tensor in model.state.items() if not name.startswith("head.")}
    torch.save(body, folder / "encoder.pth")
    torch.save({"state_dict": prefixed("linear.", head)}, folder / "head.pth")
    return Made(folder / "encoder.pth", model.images, model.answer, {"head_file": folder / "head.pth"})


def _of_timm(architecture: str, options: Mapping[str, Any], keep_config: bool, folder: Path) -> Made:
    """A model of timm's, as it is pushed to the hub, or its weights alone."""
    from tests import torchvision_stand_in

    torchvision_stand_in.install()
    import timm
    import timm.models.vision_transformer
    import torch

    torch.manual_seed(0)
    model = timm.create_model(architecture, **options).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    timm.models.save_for_hf(model, folder, safe_serialization=True, model_args=dict(options))
    if not keep_config:
        (folder / "config.json").unlink()
    images = timm_families.drawn_images(*SIZE)
    return Made(folder, images, timm_families.output(model, images).astype(np.float32))


SMALL = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}


def of_timm() -> Iterator[Row]:
    """What weights of timm's do not show."""
    leaky = {**SMALL, "act_layer": "leaky_relu"}
    yield Row("timm", "leaky ReLU", "timm.models.save_for_hf", partial(_of_timm, "vit_tiny_patch16_224", leaky, True),
              "", {}, NEEDS)  # fmt: skip
    selu = {**SMALL, "act_layer": "selu"}
    yield Row("timm", "SELU", "timm.models.save_for_hf", partial(_of_timm, "vit_tiny_patch16_224", selu, True),
              "the activation selu", {}, NEEDS)  # fmt: skip
    said = {"architecture": "vit_base_patch32_clip_quickgelu_224", "num_heads": 3, "image_size": list(SIZE)}
    quick = partial(_of_timm, said["architecture"], SMALL, False)
    yield Row("timm", "bare weights with a name", "--architecture NAME", quick, "", said, NEEDS)
    yield Row("timm", "bare weights with a misspelt name", "--architecture NAME", quick, "timm has no architecture",
              {**said, "architecture": "vit_base_patch32_clip_quickgleu_224"}, NEEDS,
              {"architecture": said["architecture"]})  # fmt: skip


def rows() -> Iterator[Row]:
    """All of them."""
    yield from adapters()
    yield from storages()
    yield Row(SOURCE, "a head in a file of its own", "--head FILE", _head_apart, "", STATED, NEEDS)
    yield from of_timm()
