"""Text towers of transformers: CLIP, MetaCLIP 2, SigLIP, and SigLIP 2 of fixed sizes and of any."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from vit_deploy.checkpoints.documents import explained
from vit_deploy.checkpoints.gathering import Origin, same, transposed
from vit_deploy.checkpoints.huggingface.config import ACTIVATIONS
from vit_deploy.checkpoints.source import TensorFile
from vit_deploy.checkpoints.text_towers.found import GET_AGAIN, Found
from vit_deploy.checkpoints.text_towers.tokenizer_files import OF_SIGLIP, OF_SIGLIP2, Usual, read_tokenizer
from vit_deploy.core.config import ViTConfig
from vit_deploy.errors import CheckpointError
from vit_deploy.text.tower import TextConfig, TextPooling

MARK = re.compile(r"(?P<prefix>(?:.*\.)?)text_model\.embeddings\.token_embedding\.weight")
BLOCK = re.compile(r"encoder\.layers\.(\d{1,4})\.")
LEGACY_END = 2  # what early configs of CLIP say, and transformers then looks for the greatest number instead
WITHIN: Mapping[str, str] = {
    "norm1": "layer_norm1",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.out_proj",
    "norm2": "layer_norm2",
    "ffn.up": "mlp.fc1",
    "ffn.down": "mlp.fc2",
}


@dataclass(frozen=True)
class Family:
    """What transformers does for a model type unless its config says otherwise.

    Args:
        num_heads: of its attention.
        activation: by its name there.
        epsilon: of its norms.
        projection: what stands behind the token that is taken, within the tower or beside it.
        causal: whether a token sees only those before it.
        pooling: which token that is.
        tokenizer: its usual tokenizer.
    """

    num_heads: int
    activation: str
    epsilon: float
    projection: str
    causal: bool
    pooling: TextPooling
    tokenizer: Usual


BYTE_PAIRS = Usual("CLIPTokenizer", "<|endoftext|>", masks=False, needs_pad=False)
XLM_ROBERTA = Usual("XLMRobertaTokenizer", "<pad>", masks=False, needs_pad=False)
PIECES = Usual(OF_SIGLIP, "</s>", masks=True, needs_pad=True)
LOWER_CASE = Usual(OF_SIGLIP2, "<pad>", masks=True, needs_pad=True, fixed=True)
CLIP = Family(8, "quick_gelu", 1e-5, "text_projection", True, TextPooling.END, BYTE_PAIRS)
METACLIP = dataclasses.replace(CLIP, tokenizer=XLM_ROBERTA)
SIGLIP = Family(12, "gelu_pytorch_tanh", 1e-6, "text_model.head", False, TextPooling.LAST, PIECES)
SIGLIP2 = dataclasses.replace(SIGLIP, tokenizer=LOWER_CASE)  # whose images may have any size
FAMILIES: Mapping[str, Family] = {"clip": CLIP, "metaclip_2": METACLIP, "siglip": SIGLIP, "siglip2": SIGLIP2}
END = 49407  # of the token that ends a text, unless the config says otherwise


def found(file: TensorFile, names: Collection[str], images: ViTConfig) -> Found | None:
    """The text tower of a file of transformers; None where there is none.

    Args:
        file: that holds it.
        names: of its tensors.
        images: the config of the encoder of images.

    Raises:
        CheckpointError: a model type whose texts are not read, or a config that says what cannot be.
    """
    match = next((match for name in sorted(names) if (match := MARK.fullmatch(name))), None)
    if match is None:
        return None
    document = file.documents.get("config.json")
    if not isinstance(document, Mapping) or not isinstance(document.get("model_type"), str):
        raise CheckpointError(
            "it has a text tower, and no config.json beside it says its heads and its activation",
            fix="give the folder with its config.json",
        )
    family = FAMILIES.get(str(document["model_type"]))
    if family is None:
        raise CheckpointError(
            f"its config.json is that of a {document['model_type']}, whose texts are not read",
            fix=f"give a model of {', '.join(FAMILIES)}",
        )
    prefix = match["prefix"]
    tower = f"{prefix}text_model."
    with explained("config.json: text_config"):
        # As for images, early files have the same thing twice, and the second counts.
        text = dict(document.get("text_config_dict") or document.get("text_config") or {})
        config = _config(file, names, tower, text, family)
    projection = prefix + family.projection
    origins = {**_origins(tower, config), "projection.kernel": transposed(f"{projection}.weight")}
    if f"{projection}.bias" in names:
        origins["projection.bias"] = same(f"{projection}.bias")
    rows = file.shape(match[0])[0]
    bias = f"{prefix}logit_bias"
    return Found(
        file,
        config,
        origins,
        scale=f"{prefix}logit_scale",
        bias=bias if bias in names else "",
        tokenizer=partial(read_tokenizer, usual=family.tokenizer, rows=rows),
    )


def _config(
    file: TensorFile, names: Collection[str], tower: str, text: Mapping[str, Any], family: Family
) -> TextConfig:
    blocks = {int(match[1]) for name in names if name.startswith(tower) and (match := BLOCK.match(name, len(tower)))}
    depth = text.get("num_hidden_layers", len(blocks))
    if blocks != set(range(len(blocks))) or depth != len(blocks) or not blocks:
        raise CheckpointError(
            f"its text tower holds {len(blocks)} blocks, and its config.json says num_hidden_layers {depth}",
            fix=GET_AGAIN,
        )
    positions, up = f"{tower}embeddings.position_embedding.weight", f"{tower}encoder.layers.0.mlp.fc1.weight"
    if absent := [name for name in (positions, up) if name not in names]:
        raise CheckpointError(f"its text tower has no {' and no '.join(absent)}", fix=GET_AGAIN)
    (context, width), (mlp_dim, _) = file.shape(positions), file.shape(up)
    activation = text.get("hidden_act", family.activation)
    if activation not in ACTIVATIONS:
        raise CheckpointError(
            f"its text_config says hidden_act {activation!r}; expected one of {', '.join(ACTIVATIONS)}",
            fix="models with other activations cannot be converted",
        )
    end = text.get("eos_token_id", END)
    end = int(end[0] if isinstance(end, list) else end)
    greatest = family.tokenizer is BYTE_PAIRS and end == LEGACY_END
    return TextConfig(
        width=width,
        num_heads=int(text.get("num_attention_heads", family.num_heads)),
        num_layers=len(blocks),
        mlp_dim=mlp_dim,
        context=context,
        activation=ACTIVATIONS[activation],
        epsilon=float(text.get("layer_norm_eps", family.epsilon)),
        causal=family.causal,
        pooling=TextPooling.GREATEST if greatest else family.pooling,
        end=end,
    )


def _origins(tower: str, config: TextConfig) -> dict[str, Origin]:
    origins = {
        "tokens": same(f"{tower}embeddings.token_embedding.weight"),
        "positions": same(f"{tower}embeddings.position_embedding.weight"),
        **_norm("norm", f"{tower}final_layer_norm"),
    }
    for index in range(config.num_layers):
        for ours, theirs in WITHIN.items():
            stored = f"{tower}encoder.layers.{index}.{theirs}"
            part = f"block_{index}.{ours}"
            if ours.startswith("norm"):
                origins |= _norm(part, stored)
            else:
                origins |= {f"{part}.kernel": transposed(f"{stored}.weight"), f"{part}.bias": same(f"{stored}.bias")}
    return origins


def _norm(ours: str, theirs: str) -> dict[str, Origin]:
    return {f"{ours}.scale": same(f"{theirs}.weight"), f"{ours}.bias": same(f"{theirs}.bias")}
