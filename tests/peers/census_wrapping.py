"""The census of folders of runs, copies beside each other, heads apart, and files that are no plain weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.peers import make_mlx_golden, timm_families
from tests.peers.census import Made, Row
from tests.peers.census_trainings import (
    DINO_HEAD,
    NEEDS,
    STATED,
    Trained,
    drawn,
    optimizer,
    others,
    prefixed,
    saved,
    trained,
)

SOURCE = "trainings"
HEADLESS: Mapping[str, Any] = {"num_classes": 0}


def _row(
    name: str,
    how: str,
    wrap: Callable[[Trained], Any],
    *,
    refused: str = "",
    stated: Mapping[str, Any] | None = None,
    fixed: Mapping[str, Any] | None = None,
    headless: bool = False,
    file: str = "checkpoint.pth",
) -> Row:
    options = HEADLESS if headless else {}
    make = partial(saved, wrap, file, "plain", options)
    return Row(SOURCE, name, how, make, refused, {**STATED, **(stated or {})}, NEEDS, fixed)


def _parts(model: Trained) -> tuple[dict[str, Any], dict[str, Any]]:
    """Encoder and head."""
    head = {name: tensor for name, tensor in model.state.items() if name.startswith("head.")}
    return {name: tensor for name, tensor in model.state.items() if name not in head}, head


def _named(name: str, head: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}.{part.removeprefix('head.')}": tensor for part, tensor in head.items()}


def copies() -> Iterator[Row]:
    """Several models in one file."""
    yield _row(
        "EMA as a module", "a loop with ModelEma", lambda m: {"model": others(m.state), "ema": {"module": m.state}}
    )
    yield _row("an EMA's student", "the same, --weights model", lambda m: {"model": m.state, "ema": others(m.state)},
               stated={"weights": "model"})  # fmt: skip
    yield _row("student and teacher in one state dict", "a training of two modules", lambda m: {
        **prefixed("student.backbone.", others(m.state)), **prefixed("teacher.backbone.", m.state)})  # fmt: skip
    yield _row("the student of the two", "the same, --weights student", lambda m: {
        **prefixed("student.backbone.", m.state), **prefixed("teacher.backbone.", others(m.state))},
        stated={"weights": "student"})  # fmt: skip
    yield _row("online and target", "BYOL", lambda m: {"state_dict": {
        **prefixed("online_encoder.", others(m.state)), **prefixed("target_encoder.", m.state)}})  # fmt: skip
    yield _row("two models of no rule", "a dictionary of two", lambda m: {"left": m.state, "right": others(m.state)},
               refused="several models: left, right", fixed={"weights": "left"})  # fmt: skip
    yield _row("an unknown key", "--weights of a misspelt key", lambda m: {"model": m.state, "ema": {**m.state}},
               refused="called teacher; they are", stated={"weights": "teacher"}, fixed={"weights": "ema"})  # fmt: skip


def beside() -> Iterator[Row]:
    """What stands beside an encoder, and heads under other names."""
    for name in ("fc", "classifier", "linear_head", "heads.head", "cls_head.fc"):
        yield _row(f"a head called {name}", f"a module with backbone and {name}", lambda m, at=name: {
            **prefixed("backbone.", _parts(m)[0]), **_named(at, _parts(m)[1])})  # fmt: skip
    yield _row("a loss with weights", "a module with its criterion", lambda m: {
        **prefixed("net.", m.state), **drawn({"criterion.weight": (5,), "loss_fn.margin": (1,)})})  # fmt: skip
    yield _row("metrics with a state", "Lightning with torchmetrics", lambda m: {"state_dict": {
        **prefixed("model.", m.state), **drawn({"train_acc.correct": (5,), "val_metrics.total": (1,)})}})  # fmt: skip
    yield _row("an unknown module", "a module with a branch of its own", lambda m: {
        **prefixed("net.", m.state), **drawn({"gate.weight": (5, 12)})},
        refused=r"unexpected \S*gate\.weight", fixed={"ignore": ["gate.*"]})  # fmt: skip
    yield _row("a projection head", "a contrastive training", lambda m: {
        **prefixed("encoder.", m.state), **drawn({"projection_head.0.weight": (8, 12)})}, headless=True)  # fmt: skip
    yield _row("DINO's head in one state dict", "DINO's student alone", lambda m: {
        **prefixed("module.backbone.", m.state), **drawn(DINO_HEAD, "module.head.")}, headless=True)  # fmt: skip
    yield _row("a row of layers for a head", "a module with an MLP for a head", lambda m: {
        **_parts(m)[0], **drawn({"head.0.weight": (12, 12), "head.2.weight": (5, 12)})},
        refused="no linear layer", headless=True, fixed={"head": False})  # fmt: skip
    yield Row(SOURCE, "DINOv2's linear head", "dinov2_vits14_lc", _linear_of_dinov2, "", STATED, NEEDS)


def _linear_of_dinov2(folder: Path) -> Made:
    """Class token and mean of the patches, as the hub's `_lc` models take them."""
    import torch

    model = trained(num_classes=0)
    with torch.no_grad():
        tokens = model.model.forward_features(torch.from_numpy(model.images).permute(0, 3, 1, 2))
    head = torch.nn.Linear(24, 5)
    answer = head(torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)).detach().numpy()
    weights = {f"linear_head.{name}": tensor for name, tensor in head.state_dict().items()}
    torch.save({**prefixed("backbone.", model.state), **weights}, folder / "dinov2_lc.pth")
    return Made(folder / "dinov2_lc.pth", model.images, answer)


def folders() -> Iterator[Row]:
    """Folders that programs leave."""
    for name, taken, rest in (
        ("timm's output folder", "model_best.pth.tar", ("last.pth.tar", "checkpoint-1.pth.tar")),
        ("Lightning's logs", "lightning_logs/version_0/checkpoints/epoch=3-step=100.ckpt", ()),
        ("a Trainer's folder", "checkpoint-500/pytorch_model.bin", ()),
        ("mmpretrain's work folder", "best_accuracy_top1_epoch_9.pth", ("epoch_9.pth", "epoch_10.pth")),
        ("a folder with best and last", "weights/best.pt", ("weights/last.pt",)),
    ):
        make = partial(_run, taken, rest)
        yield Row(SOURCE, name, "the folder that the program writes", make, "", STATED, NEEDS)
    yield Row(SOURCE, "the cache of a hub", "huggingface_hub's cache", _cache, "", {}, NEEDS)
    for name, file, said in (
        ("DeepSpeed's shards", "global_step9/zero_pp_rank_0_mp_rank_00_optim_states.pt", "DeepSpeed.*in pieces"),
        ("FSDP's shards", "__0_0.distcp", "FSDP.*in pieces"),
        ("weights of Flax", "flax_model.msgpack", "Flax"),
        ("weights of TensorFlow", "tf_model.h5", "TensorFlow"),
        ("a GGUF file", "model-q4.gguf", "GGUF"),
    ):
        yield Row(SOURCE, name, f"a folder with {Path(file).name}", partial(_other, file), said)
    yield Row(SOURCE, "several files", "checkpoints of several epochs", _several, "several checkpoints", STATED, NEEDS)


def _run(taken: str, rest: tuple[str, ...], folder: Path) -> Made:
    import torch

    model = trained()
    for name, state in ((taken, model.state), *((name, others(model.state)) for name in rest)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state_dict": state, "epoch": 1}, folder / name)
    torch.save(optimizer(model.state), (folder / taken).parent / "optimizer.pt")
    return Made(folder, model.images, model.answer)


def _cache(folder: Path) -> Made:
    from tests import torchvision_stand_in

    torchvision_stand_in.install()
    import timm
    import timm.models.vision_transformer

    model = timm_families.make(timm, "plain")
    home = folder / "models--somebody--vit"
    timm_families.save(timm, "plain", model, home / "snapshots" / "abc")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    images = timm_families.drawn_images(24, 32)
    return Made(home, images, timm_families.output(model, images).astype(np.float32))


def _other(file: str, folder: Path) -> Made:
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(b"\0" * 64)
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    return Made(folder)


def _several(folder: Path) -> Made:
    import torch

    model = trained()
    for name in ("checkpoint0020.pth", "checkpoint0040.pth"):
        torch.save(model.state, folder / name)
    return Made(folder)


def quantized() -> Iterator[Row]:
    """Weights that only a library can take apart, and those that are read."""
    layer = "blocks.0.attn.proj"
    for name, beside, said in (
        ("bitsandbytes, 8 bits", {f"{layer}.SCB": (12,)}, "bitsandbytes"),
        ("bitsandbytes, 4 bits", {f"{layer}.weight.absmax": (3,), f"{layer}.weight.quant_map": (16,)}, "bitsandbytes"),
        ("GPTQ", {f"{layer}.qweight": (2, 12), f"{layer}.qzeros": (1, 2)}, "GPTQ"),
        ("PyTorch's quantization", {f"{layer}.zero_point": (1,), f"{layer}.scale": (1,)}, "PyTorch's own"),
        ("torchao, safetensors", {f"{layer}._weight_qdata": (12, 12), f"{layer}._weight_scale": (12, 1)}, "torchao"),
        ("quanto", {f"{layer}.weight._data": (12, 12), f"{layer}.weight._scale": (12, 1)}, "optimum-quanto"),
    ):
        yield _row(name, f"saved by {name}", lambda m, more=beside: {**m.state, **drawn(more)}, refused=said)
    yield Row(SOURCE, "torchao", "torchao.quantization.quantize_", _quantized_by_torchao, "by torchao", STATED,
              (*NEEDS, "torchao"))  # fmt: skip
    yield _row("a whole model that PyTorch quantized", "torch.ao.quantization.quantize_dynamic", _quantized_whole,
               refused="PyTorch's own quantization")  # fmt: skip
    yield Row(SOURCE, "floats of eight bits with scales", "torch.float8_e4m3fn", _eight_bits, "", STATED, NEEDS)
    yield Row(SOURCE, "packed by MLX", "mlx.nn.quantize of a CLIP", _packed_by_mlx)
    yield Row(SOURCE, "packed by MLX, without its config", "the same without config.json", _packed_without_config,
              "quantized by MLX .* no config.json says bits and group_size")  # fmt: skip
    yield _row("a head alone", "a linear probe's own file", lambda m: {"fc.weight": m.state["head.weight"]},
               refused="a head alone")  # fmt: skip
    yield _row("a tensor that is sparse", "a pruned layer", lambda m: {
        **m.state, "head.weight": m.state["head.weight"].to_sparse()}, refused="sparse")  # fmt: skip


def _quantized_by_torchao(folder: Path) -> Made:
    import torch
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = trained().model
    quantize_(model, Int8WeightOnlyConfig())
    torch.save(model.state_dict(), folder / "model.pth")
    return Made(folder / "model.pth")


def _quantized_whole(model: Trained) -> Any:
    import torch

    return torch.ao.quantization.quantize_dynamic(model.model, {torch.nn.Linear})


def _packed_by_mlx(folder: Path) -> Made:
    shutil.copytree(make_mlx_golden.TARGET, folder / "mlx")
    with np.load(folder / "mlx" / make_mlx_golden.EXPECTED) as arrays:
        made = Made(folder / "mlx", arrays["images"], arrays["answer"])
    (folder / "mlx" / make_mlx_golden.EXPECTED).unlink()
    return made


def _packed_without_config(folder: Path) -> Made:
    shutil.copy(make_mlx_golden.TARGET / "model.safetensors", folder)
    return Made(folder)


def _eight_bits(folder: Path) -> Made:
    import torch

    model = trained()
    stored, plain = dict(model.state), dict(model.state)
    for name in [name for name, tensor in model.state.items() if tensor.ndim == 2 and name.startswith("blocks.")]:
        scale = model.state[name].abs().max() / 200
        stored[name] = (model.state[name] / scale).to(torch.float8_e4m3fn)
        stored[f"{name}_scale"] = scale
        plain[name] = stored[name].float() * scale
    torch.save(stored, folder / "model.pth")
    model.model.load_state_dict(plain)
    answer = timm_families.output(model.model, model.images).astype(np.float32)
    return Made(folder / "model.pth", model.images, answer)


def rows() -> Iterator[Row]:
    """All of them."""
    for found in (copies, beside, folders, quantized):
        yield from found()
