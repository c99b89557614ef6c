"""Files that are taken for weights and are none, by their first bytes or by the names in them; a sentence for each."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from vit_deploy.checkpoints.source import KEY_END, TensorFile
from vit_deploy.errors import CheckpointError

START_BYTES = 512
LFS = b"version https://git-lfs.github.com/spec/"
TAR_AT, TAR = 257, b"ustar"
# By what a file begins with, in small letters and without white space before it.
BEGINNINGS: Mapping[bytes, tuple[str, str]] = {
    LFS: ("a pointer of git-lfs, and not the file that it points to", "get the file itself: git lfs pull"),
    **dict.fromkeys(
        (b"<!doctype", b"<html", b"<?xml", b"<head"),
        (
            "a web page, and not a file of weights",
            "download the file itself, and not the page about it: a link that ends in its name (…/resolve/main/FILE)",
        ),
    ),
    b"gguf": (
        "a GGUF file, whose weights are quantized for llama.cpp",
        "get the weights that it was made of",
    ),
    **dict.fromkeys(
        (b"\x1f\x8b", b"bzh", b"\xfd7zxz", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf"),
        ("a packed archive", "unpack it, and give what was in it"),
    ),
    **dict.fromkeys((b"{", b"["), ("a text of JSON", "give the file of the weights, or the folder that both are in")),
}
FLAX = (".msgpack",)
TENSORFLOW = re.compile(r".*(\.index|\.meta|\.data-\d{5}-of-\d{5})$")


def not_weights(path: Path, start: bytes) -> CheckpointError | None:
    """The error of a file that is known to be none of weights; None of any other.

    Args:
        path: of the file.
        start: its first bytes.
    """
    begins = start.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    for beginning, (what, fix) in BEGINNINGS.items():
        if begins.startswith(beginning):
            return CheckpointError(f"{path} is {what}", fix=fix)
    if start[TAR_AT : TAR_AT + len(TAR)] == TAR:
        return CheckpointError(
            f"{path} is a tar archive", fix="unpack it; if torch wrote it, load it there and save it again"
        )
    if path.suffix in FLAX:
        return CheckpointError(
            f"{path} holds weights of Flax",
            fix="save them for PyTorch with transformers 4: from_pretrained(…, from_flax=True).save_pretrained(…)",
        )
    if TENSORFLOW.match(path.name):
        return CheckpointError(
            f"{path} is a part of a checkpoint of TensorFlow",
            fix="save the model for PyTorch or Keras with the program that it is from",
        )
    return None


# Formats of numbers that a model's own library takes apart, by the names of their tensors.
QUANTIZED: Mapping[str, str] = {
    r"\.(absmax|quant_map|nested_absmax|quant_state\.\w+|SCB|weight_format)$": "bitsandbytes",
    r"\.(qweight|qzeros|g_idx)$": "GPTQ or AWQ",
    r"\.(weight_scale(_inv)?|scale_weight)$": "a library that keeps scales beside whole numbers",
    r"\.scales$": "MLX",
    r"(\._packed_params(\.\w+)?|\.zero_point)$": "PyTorch's own quantization",
    r"\.(weight|bias)\._(data|scale|shift)(\._data)?$": "optimum-quanto",
    r"(:_data|\.(_data|layout_tensor|tensor_impl)(\.\w+)*|\._\w+_qdata)$": "torchao",
    r"\.(weight_packed|weight_zero_point|weight_shape)$": "compressed-tensors",
}
PIECES = re.compile(r"(^|\.)(_?flat_param(_\d+)?|fp32_flat_groups|single_partition_of_fp32_groups)(\.|$)")
OPTIMIZER = re.compile(r"(^|\.)(exp_avg(_sq)?|momentum_buffer|max_exp_avg_sq|square_avg|step)$")
MAX_OF_A_HEAD = 6  # tensors
MODEL_AGAIN = "get the weights that it was quantized from, and quantize what is exported: vit-deploy quantize"


def refuse_quantized(file: TensorFile, names: Iterable[str]) -> None:
    """Refuse weights that only the library which quantized them can read, or that are computed from others.

    Raises:
        CheckpointError: says which it is.
    """
    held = list(names)
    for pattern, library in QUANTIZED.items():
        if found := next((name for name in held if re.search(pattern, name)), None):
            raise CheckpointError(f"its weights are quantized by {library} ({_plain(found)})", fix=MODEL_AGAIN)
    if found := next((name for name in held if ".parametrizations." in name), None):
        raise CheckpointError(
            f"it has a weight that torch computes from others whenever it is used ({_plain(found)})",
            fix="put it into one, and save again: torch.nn.utils.parametrize.remove_parametrizations(module, 'weight')",
        )
    subclasses = [name for name in held if file.dtype(name).startswith("a tensor of the subclass")]
    if found := next((name for name in subclasses if "torchao" in file.dtype(name)), None):
        raise CheckpointError(
            f"its weights are quantized by torchao ({_plain(found)} is {file.dtype(found)})", fix=MODEL_AGAIN
        )
    if found := next(iter(subclasses), None):
        raise CheckpointError(f"{_plain(found)} is {file.dtype(found)}", fix="save the plain weights of the model")
    if found := next((name for name in held if file.dtype(name) == "a quantized tensor"), None):
        raise CheckpointError(f"its weights are quantized by PyTorch ({_plain(found)})", fix=MODEL_AGAIN)


def refuse_empty(file: TensorFile, names: Iterable[str]) -> None:
    """Refuse a model whose tensors are elsewhere.

    Raises:
        CheckpointError: most of them hold nothing, as where each device keeps a piece.
    """
    held = list(names)
    empty = [name for name in held if 0 in file.shape(name)]
    if len(empty) > len(held) // 2:
        raise CheckpointError(
            f"{len(empty)} of its {len(held)} tensors are empty, as where each device of a training keeps a piece "
            f"({_plain(empty[0])} {file.shape(empty[0])})",
            fix="save the whole state dict (DeepSpeed: zero_to_fp32.py; FSDP: FULL_STATE_DICT), and give that",
        )


def stranger(file: TensorFile) -> CheckpointError | None:
    """The error of a file whose tensors are known to be no model's; None of any other."""
    names = list(file.names())
    if found := next((name for name in names if PIECES.search(_plain(name))), None):
        return CheckpointError(
            f"it holds pieces of the weights of a training on several devices ({_plain(found)})",
            fix="save the whole state dict (FSDP: FULL_STATE_DICT; DeepSpeed: zero_to_fp32.py), and give that",
        )
    if found := next((name for name in names if OPTIMIZER.search(_plain(name))), None):
        return CheckpointError(
            f"it holds the state of an optimizer and no model ({_plain(found)})",
            fix="give the file of the model, which is beside it as a rule",
        )
    matrices = [name for name in names if len(file.shape(name)) == 2]
    if len(matrices) == 1 and len(names) <= MAX_OF_A_HEAD and _plain(matrices[0]).endswith("weight"):
        classes, features = file.shape(matrices[0])
        return CheckpointError(
            f"it holds a head alone, from {features} features to {classes} classes",
            fix="give the encoder that it was trained on, and this file with --head",
        )
    return None


def _plain(name: str) -> str:
    return name.replace(KEY_END, ".")
