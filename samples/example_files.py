"""Small files to try the commands of the README on.

python samples/example_files.py [DIR]

It writes `vit_tiny_timm` (timm's ViT-Tiny as its hub has it, with one block, two classes and random weights),
`colleague.onnx` (the same network as somebody else exported it), `tiny_clip` (a CLIP of transformers with random
weights, which reads words letter by letter) and `labels.txt`, `photo.jpg`, and `photos`, a folder for each class.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

import vit_deploy
from vit_deploy.checkpoints.containers.safetensors_file import write_safetensors
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.synthetic_images import natural_pixels
from vit_deploy.core.weights import Float32


def write_example_files(folder: Path) -> None:
    """Write all of them into a folder; what is there by the same names is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    write_timm_folder(folder / "vit_tiny_timm")
    _colleagues_file(folder / "vit_tiny_timm", folder / "colleague.onnx")
    write_clip_folder(folder / "tiny_clip")
    (folder / "labels.txt").write_text("cat\ndog\nred panda\n", encoding="utf-8")
    pictures = natural_pixels(8, 120, 160, 3)
    Image.fromarray(pictures[0]).save(folder / "photo.jpg")
    for index, picture in enumerate(pictures):
        place = folder / "photos" / ("cat", "dog")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{index}.jpg")


def write_timm_folder(folder: Path, num_layers: int = 1, num_classes: int = 2) -> None:
    """timm's vit_tiny_patch16_224 as its hub has it, with random weights: one block unless more are asked for."""
    folder.mkdir(exist_ok=True)
    config = ViTConfig.from_scale("tiny", num_layers=num_layers, num_classes=num_classes)
    write_safetensors(folder / "model.safetensors", _timm_names(Checkpoint.random(config, 0)), {})
    described = {
        "architecture": "vit_tiny_patch16_224",
        "global_pool": "token",
        "num_classes": num_classes,
        "pretrained_cfg": {
            "input_size": [3, 224, 224],
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            **({"label_names": ["cat", "dog"]} if num_classes == 2 else {}),
        },
    }
    (folder / "config.json").write_text(json.dumps(described))


def write_clip_folder(folder: Path) -> None:
    """transformers' CLIP with two blocks for images and one for texts, and a tokenizer that knows letters alone."""
    folder.mkdir(exist_ok=True)
    letters = [chr(number) for number in range(ord("!"), ord("~") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    rng = np.random.default_rng(0)
    sides = {"vision": (64, 2), "text": (32, 1)}
    tensors = {
        "vision_model.embeddings.class_embedding": rng.standard_normal(64),
        "vision_model.embeddings.patch_embedding.weight": rng.standard_normal((64, 3, 16, 16)) * 0.05,
        "vision_model.embeddings.position_embedding.weight": rng.standard_normal((17, 64)) * 0.1,
        "text_model.embeddings.token_embedding.weight": rng.standard_normal((len(tokens), 32)),
        "text_model.embeddings.position_embedding.weight": rng.standard_normal((77, 32)) * 0.1,
        "visual_projection.weight": rng.standard_normal((48, 64)) * 0.1,
        "text_projection.weight": rng.standard_normal((48, 32)) * 0.1,
        "logit_scale": np.array(2.6592),
    }
    norms = {"vision": ("pre_layrnorm", "post_layernorm"), "text": ("final_layer_norm",)}
    for side, (width, depth) in sides.items():
        blocks = [f"encoder.layers.{index}" for index in range(depth)]
        roles = [f"{block}.self_attn.{role}_proj" for block in blocks for role in ("q", "k", "v", "out")]
        layers = dict.fromkeys(roles, (width, width))
        layers |= {f"{block}.mlp.fc1": (4 * width, width) for block in blocks}
        layers |= {f"{block}.mlp.fc2": (width, 4 * width) for block in blocks}
        for name, shape in layers.items():
            tensors[f"{side}_model.{name}.weight"] = rng.standard_normal(shape) / np.sqrt(shape[1])
            tensors[f"{side}_model.{name}.bias"] = np.zeros(shape[0])
        for name in (*norms[side], *(f"{block}.layer_norm{half}" for block in blocks for half in (1, 2))):
            tensors[f"{side}_model.{name}.weight"] = np.ones(width)
            tensors[f"{side}_model.{name}.bias"] = np.zeros(width)
    write_safetensors(folder / "model.safetensors", {name: np.float32(tensor) for name, tensor in tensors.items()}, {})
    widths = {
        f"{side}_config": {
            **{"hidden_size": width, "num_hidden_layers": depth, "intermediate_size": 4 * width},
            **{"num_attention_heads": width // 16},
        }
        for side, (width, depth) in sides.items()
    }
    widths["vision_config"] |= {"image_size": 64, "patch_size": 16}
    widths["text_config"] |= {"eos_token_id": vocabulary["<|endoftext|>"]}
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "projection_dim": 48, **widths}))
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n")


def _colleagues_file(checkpoint: Path, path: Path) -> None:
    """The checkpoint as an ONNX file that takes planes, calls things otherwise and says nothing of itself."""
    with tempfile.TemporaryDirectory() as place:
        (bundle,) = vit_deploy.export(checkpoint, place, formats=["onnx"], layout="nchw")
        model = onnx.load(bundle.model_path)
    del model.metadata_props[:]
    graph = model.graph
    for node in graph.node:
        node.input[:] = ["pixel_values" if tensor_name == "images" else tensor_name for tensor_name in node.input]
    graph.node.append(helper.make_node("Identity", ["logits"], ["scores"]))
    graph.input[0].name = "pixel_values"
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("batch", 2)))
    onnx.save(model, path)


def _timm_names(checkpoint: Checkpoint) -> dict[str, Float32]:
    ours = checkpoint.weights
    theirs = {
        "cls_token": ours["class_token.class"][None],
        "pos_embed": ours["pos_embed.table"][None],
        "patch_embed.proj.weight": ours["patch_embed.kernel"].transpose(3, 2, 0, 1),
        "patch_embed.proj.bias": ours["patch_embed.bias"],
        "norm.weight": ours["norm.scale"],
        "norm.bias": ours["norm.bias"],
        "head.weight": ours["head.kernel"].T,
        "head.bias": ours["head.bias"],
    }
    projections = {"attn.proj": "attention.out", "mlp.fc1": "ffn.up", "mlp.fc2": "ffn.down"}
    for index in range(checkpoint.config.num_layers):
        own, block = f"block_{index}", f"blocks.{index}"
        for kind, name in (("kernel", "weight"), ("bias", "bias")):
            parts = [ours[f"{own}.attention.{role}.{kind}"] for role in ("query", "key", "value")]
            theirs[f"{block}.attn.qkv.{name}"] = np.concatenate(parts, axis=-1).T
            for there, here in projections.items():
                theirs[f"{block}.{there}.{name}"] = ours[f"{own}.{here}.{kind}"].T
        for norm in ("norm1", "norm2"):
            theirs[f"{block}.{norm}.weight"] = ours[f"{own}.{norm}.scale"]
            theirs[f"{block}.{norm}.bias"] = ours[f"{own}.{norm}.bias"]
    return {name: np.ascontiguousarray(weight) for name, weight in theirs.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "directory", type=Path, nargs="?", default=Path(), help="where they go; the current folder by default"
    )
    write_example_files(parser.parse_args().directory)
