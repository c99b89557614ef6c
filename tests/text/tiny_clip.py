"""A CLIP of transformers that NumPy draws, with the files of a tokenizer, and its texts in plain loops."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.checkpoints.state_dicts import write
from tests.peers.text_models import byte_pairs

Tensors = dict[str, NDArray[Any]]
WIDTH, HEADS, LAYERS, CONTEXT, DIM = 12, 3, 2, 24, 10
VISION = {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 20}
START, END = "<|startoftext|>", "<|endoftext|>"

vocabulary = functools.cache(byte_pairs)


def tensors() -> Tensors:
    """All of the model's."""
    rng = np.random.default_rng(11)

    def drawn(*shape: int) -> NDArray[np.float64]:
        return rng.standard_normal(shape) * 0.3

    made: Tensors = {}

    def layer(name: str, inputs: int, outputs: int) -> None:
        made.update({f"{name}.weight": drawn(outputs, inputs), f"{name}.bias": drawn(outputs)})

    def norm(name: str, width: int) -> None:
        made.update({f"{name}.weight": 1 + drawn(width), f"{name}.bias": drawn(width)})

    def blocks(tower: str, width: int, hidden: int, count: int) -> None:
        for index in range(count):
            block = f"{tower}.encoder.layers.{index}"
            for role in ("q", "k", "v", "out"):
                layer(f"{block}.self_attn.{role}_proj", width, width)
            norm(f"{block}.layer_norm1", width)
            norm(f"{block}.layer_norm2", width)
            layer(f"{block}.mlp.fc1", width, hidden)
            layer(f"{block}.mlp.fc2", hidden, width)

    images = VISION["hidden_size"]
    made["vision_model.embeddings.class_embedding"] = drawn(images)
    made["vision_model.embeddings.patch_embedding.weight"] = drawn(images, 3, 4, 4)
    made["vision_model.embeddings.position_embedding.weight"] = drawn(5, images)
    norm("vision_model.pre_layrnorm", images)
    norm("vision_model.post_layernorm", images)
    blocks("vision_model", images, VISION["intermediate_size"], VISION["num_hidden_layers"])
    made["text_model.embeddings.token_embedding.weight"] = drawn(len(vocabulary()[0]), WIDTH)
    made["text_model.embeddings.position_embedding.weight"] = drawn(CONTEXT, WIDTH)
    norm("text_model.final_layer_norm", WIDTH)
    blocks("text_model", WIDTH, 15, LAYERS)
    made["visual_projection.weight"] = drawn(DIM, images)
    made["text_projection.weight"] = drawn(DIM, WIDTH)
    made["logit_scale"] = np.array(2.0)
    return made


def saved(folder: Path, changes: Mapping[str, NDArray[Any] | None] = {}, **config: Any) -> Path:
    """A folder of the model; with other tensors, of which None takes one out, and entries of its config."""
    held = {name: tensor for name, tensor in {**tensors(), **changes}.items() if tensor is not None}
    write(folder / "model.safetensors", held)
    numbers, merges = vocabulary()
    text = {"num_attention_heads": HEADS, "num_hidden_layers": LAYERS, "eos_token_id": numbers[END]}
    document = {
        "model_type": "clip",
        "text_config": text,
        "vision_config": {**VISION, "image_size": 8, "patch_size": 4},
        "projection_dim": DIM,
        **config,
    }
    (folder / "config.json").write_text(json.dumps(document))
    (folder / "vocab.json").write_text(json.dumps(numbers))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]))
    return folder


def embedding(numbers: Sequence[int]) -> NDArray[np.float64]:
    """What the text tower makes of tokens that end in the end of a text, one after the other."""
    w = {name: np.asarray(tensor, np.float32).astype(np.float64) for name, tensor in tensors().items()}

    def layer(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    def norm(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        centred = x - x.mean()
        return centred / math.sqrt((centred * centred).mean() + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    places = w["text_model.embeddings.position_embedding.weight"]
    tokens = [w["text_model.embeddings.token_embedding.weight"][n] + places[at] for at, n in enumerate(numbers)]
    for index in range(LAYERS):
        block = f"text_model.encoder.layers.{index}"
        normed = [norm(token, f"{block}.layer_norm1") for token in tokens]
        query, key, value = (
            [layer(token, f"{block}.self_attn.{role}_proj").reshape(HEADS, -1) for token in normed] for role in "qkv"
        )
        for at in range(len(tokens)):
            mixed = []
            for head in range(HEADS):
                scores = [
                    math.exp(query[at][head] @ key[other][head] / math.sqrt(WIDTH // HEADS)) for other in range(at + 1)
                ]
                mixed.append(sum(score / sum(scores) * value[other][head] for other, score in enumerate(scores)))
            tokens[at] = tokens[at] + layer(np.concatenate(mixed), f"{block}.self_attn.out_proj")
        for at, token in enumerate(tokens):
            hidden = layer(norm(token, f"{block}.layer_norm2"), f"{block}.mlp.fc1")
            hidden = np.array([number / (1 + math.exp(-1.702 * number)) for number in hidden])
            tokens[at] = token + layer(hidden, f"{block}.mlp.fc2")
    return w["text_projection.weight"] @ norm(tokens[-1], "text_model.final_layer_norm")
