"""The census of what trainings leave behind: files of many programs, in every wrapping that is usual."""

from __future__ import annotations

import argparse
import json
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.peers import dialect_models, make_dialect_golden, timm_families
from tests.peers.census import Made, Row

NEEDS = ("torch", "timm")
GOLDEN = Path(__file__).with_name("golden")
STATED = {"num_heads": 3, "image_size": [24, 32]}
SIZE = (24, 32)
OTHER_PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
    "net.",
    "encoder.",
    "backbone.",
    "teacher.",
    "student.",
    "base_encoder.",
    "my_vit.",
)
KEYS = (
    *("state_dict", "model", "model_state_dict", "weights", "net", "module", "net_state", "teacher", "ema"),
    *("state_dict_ema", "model_ema"),
)
DINO_HEAD = {
    "mlp.0.weight": (8, 12), "mlp.0.bias": (8,), "mlp.2.weight": (4, 8), "mlp.2.bias": (4,),
    "last_layer.weight_g": (6, 1), "last_layer.weight_v": (6, 4),
}  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A model of timm and what it answers.

    Args:
        state: its state dict.
        images: `(batch, height, width, channels)`.
        answer: of the model.
        model: itself.
    """

    state: Mapping[str, Any]
    images: Any
    answer: Any
    model: Any


def trained(case: str = "plain", **changes: Any) -> Trained:
    """A model of `timm_families`."""
    from tests import torchvision_stand_in

    torchvision_stand_in.install()
    import timm
    import timm.models.vision_transformer

    model = timm_families.make(timm, case, **changes).float()
    images = timm_families.drawn_images(*SIZE)
    state = OrderedDict((name, tensor.clone()) for name, tensor in model.state_dict().items())
    return Trained(state, images, timm_families.output(model, images).astype(np.float32), model.float())


def prefixed(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in state.items()}


def others(state: Mapping[str, Any]) -> dict[str, Any]:
    """The same names with other numbers, which must not be taken."""
    return {name: tensor + 1 for name, tensor in state.items()}


def drawn(shapes: Mapping[str, tuple[int, ...]], prefix: str = "") -> dict[str, Any]:
    """Tensors of what is beside a model."""
    import torch

    return {prefix + name: torch.randn(shape) for name, shape in shapes.items()}


def optimizer(state: Mapping[str, Any]) -> Any:
    """What AdamW saves after a step."""
    import torch

    parameters = [torch.nn.Parameter(tensor.clone()) for tensor in state.values()]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    made = torch.optim.AdamW(parameters)
    made.step()
    return made.state_dict()


Wrap = Callable[[Trained], Any]


def saved(wrap: Wrap, file: str, case: str, options: Mapping[str, Any], folder: Path) -> Made:
    import torch

    model = trained(case, **options)
    torch.save(wrap(model), folder / file)
    return Made(folder / file, model.images, model.answer)


def _row(
    name: str,
    how: str,
    wrap: Wrap,
    *,
    file: str = "checkpoint.pth",
    case: str = "plain",
    options: Mapping[str, Any] | None = None,
    source: str = "trainings",
    refused: str = "",
    stated: Mapping[str, Any] | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> Row:
    make = partial(saved, wrap, file, case, options or {})
    return Row(source, name, how, make, refused, {**STATED, **(stated or {})}, NEEDS, fixed)


def _golden(name: str) -> Row:
    case = dialect_models.CASES[name]

    def make(folder: Path) -> Made:
        target = folder / name
        shutil.copytree(make_dialect_golden.TARGET / name, target)
        with np.load(target / make_dialect_golden.EXPECTED) as arrays:
            images, answer = arrays["images"], arrays["answer"]
        (target / make_dialect_golden.EXPECTED).unlink()
        return Made(target, images, answer)

    sizes = {} if case.beside else {"num_heads": dialect_models.HEADS, "image_size": list(case.image_size)}
    return Row(program_of(name), name, "as its own program saves it", make, "", {**sizes, **case.stated})


def program_of(name: str) -> str:
    """The source in the README's table of a recorded model."""
    programs = {
        "torchvision": "torchvision",
        "open": "OpenAI CLIP, OpenCLIP",
        "vit-pytorch": "vit-pytorch",
        "monai": "MONAI",
        "mmpretrain": "mmpretrain, mmcls",
        "jeonsworld": "jeonsworld/ViT-pytorch",
        "pytorch_pretrained_vit": "pytorch_pretrained_vit",
    }
    return next((source for start, source in programs.items() if name.startswith(start)), ORIGINALS)


ORIGINALS = "originals of DINO, DINOv2, MAE, DeiT, MoCo v3, iBOT, I-JEPA, MSN"


def _hub(name: str) -> Row:
    def make(folder: Path) -> Made:
        from tests import torchvision_stand_in

        torchvision_stand_in.install()
        import timm
        import timm.models.vision_transformer

        model = timm_families.make(timm, name)
        timm_families.save(timm, name, model, folder)
        images = timm_families.drawn_images(*SIZE)
        return Made(folder, images, timm_families.output(model, images).astype(np.float32))

    return Row("timm", name, "timm.models.save_for_hf", make, needs=NEEDS)


def _namespace(**options: Any) -> Any:
    return argparse.Namespace(lr=1e-3, data_path=Path("/data"), **options)


def _dtype(name: str) -> Wrap:
    import importlib

    return lambda model: {
        key: tensor.to(getattr(importlib.import_module("torch"), name)) for key, tensor in model.state.items()
    }


def _without_head(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("head")}


def _in_half(name: str) -> Row:
    """Weights in another type: the answer is that of the numbers as they are then."""

    def make(folder: Path) -> Made:
        import torch

        model = trained()
        state = {key: tensor.to(getattr(torch, name)) for key, tensor in model.state.items()}
        torch.save(state, folder / "weights.pth")
        model.model.load_state_dict({key: tensor.float() for key, tensor in state.items()})
        answer = timm_families.output(model.model, model.images).astype(np.float32)
        return Made(folder / "weights.pth", model.images, answer)

    return Row("trainings", f"in {name}", f"torch.save of a state dict in {name}", make, "", STATED, NEEDS)


def _dino(model: Trained) -> Any:
    backbone = _without_head(model.state)
    head = drawn(DINO_HEAD)
    return {
        "student": {**prefixed("module.backbone.", others(backbone)), **prefixed("module.head.", head)},
        "teacher": {**prefixed("backbone.", backbone), **prefixed("head.", head)},
        "optimizer": optimizer(backbone),
        "epoch": 3,
        "args": _namespace(arch="vit_small"),
        "dino_loss": drawn({"center": (1, 6)}),
    }


def _moco(model: Trained) -> Any:
    body = _without_head(model.state)
    mlp = {"head.0.weight": (8, 12), "head.1.running_mean": (8,), "head.1.running_var": (8,), "head.3.weight": (4, 8)}
    base = {**prefixed("module.base_encoder.", body), **drawn(mlp, "module.base_encoder.")}
    momentum = {**prefixed("module.momentum_encoder.", others(body)), **drawn(mlp, "module.momentum_encoder.")}
    predictor = drawn({"0.weight": (8, 4), "3.weight": (4, 8)}, "module.predictor.")
    return {"epoch": 3, "arch": "vit_base", "state_dict": {**base, **momentum, **predictor}, "optimizer": {}}


def _mae(model: Trained) -> Any:
    body = _without_head(model.state)
    decoder = {
        "mask_token": (1, 1, 8), "decoder_embed.weight": (8, 12), "decoder_embed.bias": (8,),
        "decoder_pos_embed": (1, 25, 8), "decoder_blocks.0.norm1.weight": (8,), "decoder_norm.weight": (8,),
        "decoder_pred.weight": (96, 8), "decoder_pred.bias": (96,),
    }  # fmt: skip
    return {"model": {**body, **drawn(decoder)}, "optimizer": {}, "epoch": 3, "scaler": {}, "args": _namespace()}


def _ijepa(model: Trained) -> Any:
    body = prefixed("module.", _without_head(model.state))
    predictor = drawn({"module.predictor_embed.weight": (8, 12), "module.mask_token": (1, 1, 8)})
    counters = {"epoch": 3, "loss": 0.3, "batch_size": 8, "world_size": 1, "lr": 1e-3}
    return {
        "encoder": others(body),
        "predictor": predictor,
        "target_encoder": body,
        "opt": {},
        "scaler": None,
        **counters,
    }


def _msn(model: Trained) -> Any:
    body = prefixed("module.", _without_head(model.state))
    head = drawn({"fc1.weight": (8, 12), "bn1.running_mean": (8,), "fc3.weight": (4, 8)}, "module.fc.")
    import torch

    return {
        "encoder": {**others(body), **head}, "target_encoder": {**body, **head}, "opt": {}, "epoch": 3,
        "prototypes": torch.randn(6, 4), "unsup": 0.1, "batch_size": 8, "world_size": 1, "lr": 1e-3, "temperature": 0.1,
    }  # fmt: skip


def _dinov2(model: Trained) -> Any:
    body = _without_head(model.state)
    heads = {**drawn(DINO_HEAD, "dino_head."), **drawn(DINO_HEAD, "ibot_head.")}
    return {"teacher": {**prefixed("backbone.", body), **heads}}


def _lightning(model: Trained) -> Any:
    state = {**prefixed("model.", model.state), **drawn({"criterion.weight": (5,)})}
    return {
        "epoch": 3, "global_step": 100, "pytorch-lightning_version": "2.4.0", "state_dict": state, "loops": {},
        "callbacks": {"ModelCheckpoint": {"best_model_path": "a.ckpt"}}, "optimizer_states": [optimizer(model.state)],
        "lr_schedulers": [], "hparams_name": "kwargs", "hyper_parameters": {"lr": 1e-3},
    }  # fmt: skip


def _timm_train(model: Trained) -> Any:
    return {
        "epoch": 3, "arch": "vit_tiny_patch16_224", "state_dict": model.state, "optimizer": optimizer(model.state),
        "version": 2, "args": _namespace(model="vit_tiny_patch16_224"), "metric": 77.1,
        "state_dict_ema": model.state, "amp_scaler": {},
    }  # fmt: skip


def _solo(model: Trained) -> Any:
    body = _without_head(model.state)
    head = {"classifier.weight": model.state["head.weight"], "classifier.bias": model.state["head.bias"]}
    return {"state_dict": {**prefixed("backbone.", body), **head, **drawn({"projector.0.weight": (8, 12)})}}


def _linear_probe(model: Trained) -> Any:
    """MAE's: a BatchNorm without scale and bias in front of the head."""
    import torch

    mean, variance = torch.randn(12), torch.rand(12) + 0.5
    state = _without_head(model.state)
    state |= {"head.0.running_mean": mean, "head.0.running_var": variance}
    state |= {"head.0.num_batches_tracked": torch.tensor(7)}
    weight = model.state["head.weight"]
    # What the model answers without the norm is what it answers with it and these weights.
    scale = torch.sqrt(variance + 1e-6)
    state |= {"head.1.weight": weight * scale, "head.1.bias": model.state["head.bias"] + weight @ mean}
    return {"model": state}


def trainings() -> Iterator[Row]:
    """Of a timm model, wrapped."""
    plain = lambda model: model.state  # noqa: E731
    yield _row("a state dict", "torch.save(model.state_dict())", plain, file="model.pth")
    for suffix in ("pt", "bin", "ckpt", "pth.tar"):
        yield _row(f"a state dict, .{suffix}", f"saved as weights.{suffix}", plain, file=f"weights.{suffix}")
    yield Row("trainings", "the format before zip", "torch.save in the format before 1.6", _legacy, "", STATED, NEEDS)
    for name in ("float16", "bfloat16", "float64"):
        yield _in_half(name)
    for prefix in OTHER_PREFIXES:
        yield _row(f"names after {prefix}", f"wrapped as {prefix}", lambda model, at=prefix: prefixed(at, model.state))
    yield _row("compiled and parallel", "torch.compile in DistributedDataParallel",
               lambda model: prefixed("module._orig_mod.", model.state))  # fmt: skip
    for key in KEYS:
        yield _row(f"under {key}", f"saved under {key}", lambda model, at=key: {at: model.state, "epoch": 3})
    yield _row(
        "with its optimizer and arguments", "the loop of torchvision's references",
        lambda model: {"model": model.state, "optimizer": optimizer(model.state), "epoch": 3, "args": _namespace()},
    )  # fmt: skip
    yield _row("model_best.pth.tar", "the loop of PyTorch's ImageNet example", lambda model: {
        "epoch": 3, "arch": "vit", "state_dict": prefixed("module.", model.state), "best_acc1": _number(77.0),
        "optimizer": optimizer(model.state), "scheduler": {}}, file="model_best.pth.tar")  # fmt: skip
    yield _row("timm's train.py", "timm's CheckpointSaver", _timm_train, file="model_best.pth.tar", source="timm")
    yield _row("timm's train.py, averaged weights", "timm with --model-ema", lambda model: {
        **_timm_train(model), "state_dict": others(model.state)}, source="timm")  # fmt: skip
    yield Row("timm", "timm's train.py, its options", "timm's --model and --model-kwargs", _with_options, needs=NEEDS)
    yield _row("torch's averaged model", "torch.optim.swa_utils.AveragedModel", lambda model: {
        **prefixed("module.", model.state), "n_averaged": _number(3)})  # fmt: skip
    yield _row("Lightning", "a ModelCheckpoint of Lightning", _lightning, file="epoch=3.ckpt")
    yield _row("accelerate", "accelerate's save_state", plain, file="pytorch_model.bin")
    yield _row("solo-learn's online classifier", "solo-learn", _solo)
    o = ORIGINALS
    yield _row("DINO, a training", "dino/main_dino.py", _dino, source=o, options={"num_classes": 0})
    yield _row("DINO, its backbone", "dino_deitsmall16_pretrain.pth", lambda model: _without_head(model.state),
               source=o, options={"num_classes": 0})  # fmt: skip
    yield _row("iBOT, a training", "ibot/main_ibot.py", _dino, source=o, options={"num_classes": 0})
    yield _row("MoCo v3, a training", "moco-v3/main_moco.py", _moco, source=o, options={"num_classes": 0})
    yield _row("MoCo v3, linear classifier", "moco-v3/main_lincls.py", lambda model: {
        "state_dict": prefixed("module.", model.state), "best_acc1": _number(1.0)}, source=o)  # fmt: skip
    yield _row("MAE, a training", "mae/main_pretrain.py", _mae, source=o, options={"num_classes": 0})
    yield _row("MAE, fine-tuned", "mae/main_finetune.py", lambda model: {
        "model": model.state, "optimizer": {}, "args": _namespace()}, case="fc_norm", source=o)  # fmt: skip
    yield _row("MAE, linear probe", "mae/main_linprobe.py", _linear_probe, source=o)
    yield _row("DeiT", "deit_small_patch16_224-cd65a155.pth", lambda model: {"model": model.state}, source=o)
    yield _row("DeiT, distilled", "deit/main.py", lambda model: {
        "model": model.state, "optimizer": {}, "lr_scheduler": {}, "model_ema": model.state, "scaler": {},
        "args": _namespace()}, case="distilled", source=o)  # fmt: skip
    yield _row(
        "I-JEPA", "ijepa/src/train.py", _ijepa, source=o, case="gap", options={"num_classes": 0, "fc_norm": False}
    )
    yield _row("MSN", "msn/src/msn_train.py", _msn, source=o, options={"num_classes": 0})
    for number, case in enumerate(("dinov2", "dinov2_reg4", "dinov2_giant")):
        yield _row(f"DINOv2, a teacher {number}", "dinov2/train.py", _dinov2, case=case, source=o,
                   stated={"activation": "gelu"} if number < 2 else {})  # fmt: skip
    yield Row("trainings", "a folder with one file", "a folder", _folder, "", STATED, NEEDS)
    yield Row(
        "trainings", "safetensors of a state dict", "safetensors.torch.save_file", _safetensors, "", STATED, NEEDS
    )
    yield Row("trainings", ".npz of a state dict", "numpy.savez", _npz, "", STATED, NEEDS)


def _with_options(folder: Path) -> Made:
    """A training whose options alone say the heads and the activation."""
    from tests import torchvision_stand_in

    torchvision_stand_in.install()
    import timm
    import timm.models.vision_transformer
    import torch

    torch.manual_seed(0)
    name, options = "vit_tiny_patch16_224", {"num_heads": 6, "act_layer": "quick_gelu"}
    model = timm.create_model(name, num_classes=5, **options).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    args = _namespace(model=name, model_kwargs=options)
    torch.save({"arch": name, "state_dict": model.state_dict(), "args": args, "epoch": 1}, folder / "last.pth.tar")
    images = timm_families.drawn_images(224, 224)[:1]
    return Made(folder / "last.pth.tar", images, timm_families.output(model, images).astype(np.float32))


def _number(value: float) -> Any:
    import torch

    return torch.tensor(value)


def _legacy(folder: Path) -> Made:
    import torch

    model = trained()
    torch.save(model.state, folder / "old.pth", _use_new_zipfile_serialization=False)
    return Made(folder / "old.pth", model.images, model.answer)


def _folder(folder: Path) -> Made:
    return saved(lambda model: {"state_dict": model.state}, "last.pth", "plain", {}, folder)


def _safetensors(folder: Path) -> Made:
    from safetensors.torch import save_file

    model = trained()
    save_file(dict(model.state), folder / "model.safetensors")
    return Made(folder / "model.safetensors", model.images, model.answer)


def _npz(folder: Path) -> Made:
    model = trained()
    np.savez(folder / "weights.npz", **{name: tensor.numpy() for name, tensor in model.state.items()})
    return Made(folder / "weights.npz", model.images, model.answer)


def _whole_model(folder: Path) -> Made:
    import torch

    model = trained()
    torch.save(model.model, folder / "model.pth")
    return Made(folder / "model.pth", model.images, model.answer)


def _made(folder: Path, change: Callable[[Any], None] = lambda model: None, **options: Any) -> Made:
    import torch

    model = trained(**options)
    change(model.model)
    torch.save(model.model, folder / "model.pth")
    answer = timm_families.output(model.model, model.images).astype(np.float32)
    return Made(folder / "model.pth", model.images, answer)


def _sharing(folder: Path) -> Made:
    def change(model: Any) -> None:
        model.blocks[1] = model.blocks[0]

    return _made(folder, change)


def _leaky(folder: Path) -> Made:
    return _made(folder, act_layer="leaky_relu")


def _selu(folder: Path) -> Made:
    return _made(folder, act_layer="selu")


def _of_the_mean(folder: Path) -> Made:
    return _made(folder, global_pool="avg", fc_norm=False)


def _script(folder: Path) -> Made:
    import torch

    model = trained()
    pixels = torch.from_numpy(model.images).permute(0, 3, 1, 2)
    torch.jit.trace(model.model, pixels, check_trace=False).save(str(folder / "model.pt"))
    return Made(folder / "model.pt", model.images, model.answer)


def others_of_torch() -> Iterator[Row]:
    """Whole models, scripts, and what is no checkpoint at all."""
    yield Row("trainings", "a whole pickled model", "torch.save(model)", _whole_model, "", STATED, NEEDS)
    yield Row("trainings", "a whole model that shares a block", "torch.save(model)", _sharing, "",
              {"num_heads": 3}, NEEDS)  # fmt: skip
    yield Row("trainings", "a whole model with leaky ReLU", "torch.save(model)", _leaky, "", {}, NEEDS)
    yield Row("trainings", "a whole model with SELU", "torch.save(model)", _selu, "the activation SELU", {}, NEEDS)
    yield Row("trainings", "a whole model of the mean", "torch.save(model)", _of_the_mean, "", {}, NEEDS)
    yield Row("trainings", "TorchScript", "torch.jit.trace(model).save", _script, "", STATED, NEEDS)
    yield Row("trainings", "a git-lfs pointer", "git clone without git-lfs", _pointer, "git-lfs|Git LFS|pointer")
    yield Row("trainings", "a page of HTML", "a download of an error page", _page, "HTML|web page|page")
    yield Row(
        "trainings",
        "an optimizer alone",
        "torch.save(optimizer.state_dict())",
        _optimizer,
        "it holds the state of an optimizer and no model",
        {},
        NEEDS,
    )
    yield Row("trainings", "an empty folder", "a folder without files", Made, "no checkpoint")


def _pointer(folder: Path) -> Made:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 346284714\n"
    (folder / "model.safetensors").write_text(text)
    return Made(folder / "model.safetensors")


def _page(folder: Path) -> Made:
    (folder / "vit.pth").write_text("<!DOCTYPE html>\n<html><head><title>403</title></head></html>\n")
    return Made(folder / "vit.pth")


def _optimizer(folder: Path) -> Made:
    import torch

    torch.save(optimizer(trained().state), folder / "optimizer.pt")
    return Made(folder / "optimizer.pt")


def _open_clip_training(folder: Path) -> Made:
    """A file of OpenCLIP's training: the golden model's weights as its loop saves them."""
    import torch
    from safetensors.torch import load_file

    golden = make_dialect_golden.TARGET / "open_clip"
    state = prefixed("module.", load_file(golden / "model.safetensors"))
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {}}, folder / "epoch_3.pt")
    with np.load(golden / make_dialect_golden.EXPECTED) as arrays:
        return Made(folder / "epoch_3.pt", arrays["images"], arrays["answer"])


def programs() -> Iterator[Row]:
    """Recorded models of other programs, and files of their trainings."""
    yield from map(_golden, dialect_models.CASES)
    stated = {"num_heads": dialect_models.HEADS, "image_size": list(dialect_models.OBLONG)}
    yield Row(
        "OpenAI CLIP, OpenCLIP", "open_clip, a training", "open_clip_train", _open_clip_training, "", stated, ("torch",)
    )


def rows() -> Iterator[Row]:
    """All of them."""
    yield from map(_hub, timm_families.CASES)
    yield from trainings()
    yield from others_of_torch()
    yield from programs()


__all__ = ["json", "rows"]
