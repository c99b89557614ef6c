"""Text towers of OpenAI's CLIP and of OpenCLIP's own transformer, with or without a path of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import numpy as np

from vit_deploy.checkpoints.assumed import Assumed
from vit_deploy.checkpoints.documents import explained
from vit_deploy.checkpoints.gathering import Origin, same, transposed
from vit_deploy.checkpoints.renamed.names import scaled_values
from vit_deploy.checkpoints.renamed.open_clip import BLOCK_OPTIONS, DOCUMENT, EPSILON, OPENAI_ENTRIES, asks_for
from vit_deploy.checkpoints.source import TensorFile
from vit_deploy.checkpoints.text_towers.found import GET_AGAIN, Found
from vit_deploy.checkpoints.text_towers.tokenizer_files import Usual, read_tokenizer
from vit_deploy.core.choices import Activation
from vit_deploy.core.config import ViTConfig
from vit_deploy.errors import CheckpointError
from vit_deploy.text.tokens import canonical, lowered, spaced
from vit_deploy.text.tower import TextConfig, TextPooling

MARK = re.compile(r"(?P<prefix>(?:.*\.)?)token_embedding\.weight")
OF_OTHERS = re.compile(r"(?:.*\.)?text\.transformer\.(?:embeddings|shared|encoder)\.")  # transformers' own models
HEAD_WIDTH = 64  # of all published text towers
TEXT = "text."
POOLINGS: Mapping[str, TextPooling] = {
    "argmax": TextPooling.GREATEST,
    "eos": TextPooling.END,
    "last": TextPooling.LAST,
    "first": TextPooling.FIRST,
}
CLEANS: Mapping[str, Callable[[str], str]] = {"lower": lowered, "whitespace": spaced, "canonicalize": canonical}
# What these options of a text tower compute, none of which is computed here.
OPTIONS: Mapping[str, str] = {
    "embed_cls": "a class token of its own, as CoCa has",
    **BLOCK_OPTIONS,
    "tokenizer_mode": "a tokenizer with a class token",
    "hf_model_name": "a language model of transformers for it",
}
WITHIN: Mapping[str, str] = {"attention.out": "attn.out_proj", "ffn.up": "mlp.c_fc", "ffn.down": "mlp.c_proj"}
NORMS_WITHIN: Mapping[str, str] = {
    **{"attention.query_norm": "attn.ln_q", "attention.key_norm": "attn.ln_k"},
    **{"attention.norm": "attn.ln_inner", "ffn.norm": "mlp.ln"},
}
OF_OPTIONS: Mapping[str, str] = {
    **{"qk_norm": "attn.ln_q.weight", "scale_attn_inner": "attn.ln_inner.weight", "scale_fc": "mlp.ln.weight"},
    "scale_heads": "attn.head_scale",
}
"""A tensor that each option of custom blocks adds to a block."""
QKV = ("query", "key", "value")


def found(file: TensorFile, names: Collection[str], images: ViTConfig) -> Found | None:
    """The text tower of a file of OpenAI or OpenCLIP; None where there is none.

    Args:
        file: that holds it.
        names: of its tensors.
        images: the config of the encoder of images, whose activation is the texts' where no config says theirs.

    Raises:
        CheckpointError: a tower of another kind, or a config that says what cannot be.
    """
    matches = [match for name in sorted(names, key=len) if (match := MARK.fullmatch(name))]
    prefix = next(
        (match["prefix"] for match in matches if f"{match['prefix']}transformer.resblocks.0.ln_1.weight" in names), None
    )
    if prefix is None:
        if any(map(OF_OTHERS.match, names)):
            raise CheckpointError(
                f"its text tower is one with {OPTIONS['hf_model_name']}, whose texts are not read",
                fix="give a model with OpenCLIP's own text tower",
            )
        return None
    text, quick = _document(file)
    with explained(f"{DOCUMENT}: text_cfg"):
        refused = [what for option, what in OPTIONS.items() if (text or {}).get(option)]
        first = f"{prefix}transformer.resblocks.0."
        refused += [
            f"{option}, of which it has no weights"
            for option, tensor in OF_OPTIONS.items()
            if asks_for(text or {}, option) and first + tensor not in names
        ]
        refused += [OPTIONS["embed_cls"]] if f"{prefix}cls_emb" in names and OPTIONS["embed_cls"] not in refused else []
        if refused:
            raise CheckpointError(
                f"its text tower has {'; '.join(refused)}, which is not computed here",
                fix="give a model with OpenCLIP's plain text tower",
            )
        if text is None and f"{_around(prefix)}logit_bias" in names:
            raise CheckpointError(
                f"it judges each text by itself, as SigLIP does, and no {DOCUMENT} says what its text tower pools",
                fix=f"give the folder with its {DOCUMENT}",
            )
        config = _config(file, names, prefix, text or {}, _activation(text, quick, names, images))
        usual = _tokenizer(text or {}, config)
    bias = f"{_around(prefix)}logit_bias"
    return Found(
        file,
        config,
        _origins(names, prefix, config),
        scale=f"{_around(prefix)}logit_scale",
        bias=bias if bias in names else "",
        tokenizer=partial(read_tokenizer, usual=usual, rows=file.shape(f"{prefix}token_embedding.weight")[0]),
        assumed=_assumed(text, config),
    )


def _around(prefix: str) -> str:
    """The path of what the tower is a part of."""
    return prefix.removesuffix(TEXT) if prefix == TEXT or prefix.endswith(f".{TEXT}") else prefix


def _document(file: TensorFile) -> tuple[Mapping[str, Any] | None, bool]:
    """What the config beside it says of texts, and whether it says the quick GELU; None where there is no config."""
    document = file.documents.get(DOCUMENT)
    model = document.get("model_cfg") if isinstance(document, Mapping) else None
    text = model.get("text_cfg") if isinstance(model, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(text, Mapping):
        return None, False
    return text, bool(model.get("quick_gelu"))


def _activation(text: Mapping[str, Any] | None, quick: bool, names: Collection[str], images: ViTConfig) -> Activation:
    if text is None:
        openai = any(name in names for name in OPENAI_ENTRIES)
        return Activation.QUICK_GELU if openai else images.activation
    options = dict(text.get("act_kwargs") or {})
    if quick:
        return Activation.QUICK_GELU
    if options not in ({}, {"approximate": "none"}, {"approximate": "tanh"}):
        raise ValueError(f"act_kwargs is {options}; expected approximate, tanh or none")
    return Activation.GELU_TANH if options.get("approximate") == "tanh" else Activation.GELU


def _config(
    file: TensorFile, names: Collection[str], prefix: str, text: Mapping[str, Any], activation: Activation
) -> TextConfig:
    block = re.compile(rf"{re.escape(prefix)}transformer\.resblocks\.(\d{{1,4}})\.")
    blocks = {int(match[1]) for name in names if (match := block.match(name))}
    depth = text.get("layers", len(blocks))
    if blocks != set(range(len(blocks))) or depth != len(blocks):
        raise CheckpointError(
            f"its text tower holds {len(blocks)} blocks, and its config says {depth} layers", fix=GET_AGAIN
        )
    positions, up = f"{prefix}positional_embedding", f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"
    if absent := [name for name in (positions, up) if name not in names]:
        raise CheckpointError(f"its text tower has no {' and no '.join(absent)}", fix=GET_AGAIN)
    (context, width), (mlp_dim, _) = file.shape(positions), file.shape(up)
    pooling = str(text.get("pool_type", "argmax"))
    if pooling not in POOLINGS:
        raise ValueError(f"pool_type is {pooling!r}; expected one of {', '.join(POOLINGS)}")
    return TextConfig(
        width=width,
        num_heads=int(text.get("heads", max(1, width // HEAD_WIDTH))),
        num_layers=len(blocks),
        mlp_dim=mlp_dim,
        context=context,
        activation=activation,
        epsilon=float((text.get("norm_kwargs") or {}).get("eps", EPSILON)),
        causal=not text.get("no_causal_mask"),
        pooling=POOLINGS[pooling],
        end=int(text.get("eos_id", 2)),
        qk_norm=f"{prefix}transformer.resblocks.0.{OF_OPTIONS['qk_norm']}" in names,
    )


def _tokenizer(text: Mapping[str, Any], config: TextConfig) -> Usual:
    options = dict(text.get("tokenizer_kwargs") or {})
    own = not text.get("hf_tokenizer_name")
    clean, drops = options.pop("clean", "lower" if own else "whitespace"), bool(options.pop("strip_sep_token", False))
    if clean not in CLEANS or options:
        raise ValueError(f"tokenizer_kwargs are {text['tokenizer_kwargs']}, with what is not done here")
    if own:
        return Usual("CLIPTokenizer", "", False, False, CLEANS[clean])
    return Usual("", "<pad>", False, not config.causal, CLEANS[clean], drops)


def _assumed(text: Mapping[str, Any] | None, config: TextConfig) -> tuple[Assumed, ...]:
    if text is not None and "heads" in text:
        return ()
    why = f"no {DOCUMENT} says it, and those of all published text towers are {HEAD_WIDTH} wide"
    return (Assumed("heads of the text tower", config.num_heads, why),)


def _origins(names: Collection[str], prefix: str, config: TextConfig) -> dict[str, Origin]:
    origins = {
        "tokens": same(f"{prefix}token_embedding.weight"),
        "positions": same(f"{prefix}positional_embedding"),
        **_norm("norm", f"{prefix}ln_final"),
        **_projection(names, f"{prefix}text_projection"),
    }
    for index in range(config.num_layers):
        ours, theirs = f"block_{index}", f"{prefix}transformer.resblocks.{index}"
        for number in (1, 2):
            origins |= _norm(f"{ours}.norm{number}", f"{theirs}.ln_{number}")
            if f"{theirs}.ls_{number}.gamma" in names:
                origins[f"{ours}.scale{number}.gamma"] = same(f"{theirs}.ls_{number}.gamma")
        for number, role in enumerate(QKV):
            origins[f"{ours}.attention.{role}.kernel"] = _third(f"{theirs}.attn.in_proj_weight", number)
            origins[f"{ours}.attention.{role}.bias"] = _third(f"{theirs}.attn.in_proj_bias", number)
        if f"{theirs}.{OF_OPTIONS['scale_heads']}" in names:
            origins |= scaled_values(f"{ours}.attention", f"{theirs}.attn", ("in_proj_weight", "in_proj_bias"))
        for part, stored in NORMS_WITHIN.items():
            if f"{theirs}.{stored}.weight" in names:
                origins |= _norm(f"{ours}.{part}", f"{theirs}.{stored}")
        for part, stored in WITHIN.items():
            origins[f"{ours}.{part}.kernel"] = transposed(f"{theirs}.{stored}.weight")
            origins[f"{ours}.{part}.bias"] = same(f"{theirs}.{stored}.bias")
    return origins


def _projection(names: Collection[str], stored: str) -> dict[str, Origin]:
    """A matrix (inputs, outputs), or a layer, or nothing."""
    if stored in names:
        return {"projection.kernel": same(stored)}
    if f"{stored}.weight" not in names:
        return {}
    biased = {"projection.bias": same(f"{stored}.bias")} if f"{stored}.bias" in names else {}
    return {"projection.kernel": transposed(f"{stored}.weight"), **biased}


def _third(name: str, number: int) -> Origin:
    return Origin((name,), lambda packed: np.split(packed, 3)[number].T)


def _norm(ours: str, theirs: str) -> dict[str, Origin]:
    return {f"{ours}.scale": same(f"{theirs}.weight"), f"{ours}.bias": same(f"{theirs}.bias")}
