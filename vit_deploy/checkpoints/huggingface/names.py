"""The names of a ViT's parts in each of transformers' layouts.

The classic layout (`encoder.layer.0.attention.attention.query`), the newer one (`layers.0.attention.q_proj`) and that
of CLIP and SigLIP (`encoder.layers.0.self_attn.q_proj`) differ in words only: whichever of them is there is taken.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from vit_deploy.checkpoints.gathering import Origin, same, transposed, zeros
from vit_deploy.checkpoints.huggingface import aimv2
from vit_deploy.core import rotary
from vit_deploy.core.choices import FFNType, Pooling, RelativePositions
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.weights import Float32, weight_specs
from vit_deploy.errors import CheckpointError

DINOV3 = "embeddings.patch_embeddings"  # a convolution without a layer around it
PIXTRAL = "patch_conv"
PATCHES = (
    *("embeddings.patch_embeddings.projection", "embeddings.patch_embedding", DINOV3),
    *(aimv2.PATCHES, PIXTRAL),
)
STEM = re.compile(rf"(?P<prefix>(?:.*\.)?)(?:{'|'.join(map(re.escape, PATCHES))})\.weight")
POSITIONS = (
    "embeddings.position_embeddings",
    "embeddings.position_embedding.weight",
    "embeddings.position_embedding",  # a parameter of its own in BLIP
)
CLASS = ("embeddings.cls_token", "embeddings.class_embedding")
DISTILLATION, REGISTERS = "embeddings.distillation_token", "embeddings.register_tokens"
DETECTION = "embeddings.detection_tokens"  # of YOLOS, behind the patches there and registers here
PRE_NORM = ("pre_layrnorm", "pre_layernorm", "ln_pre")  # the first as it is spelled in CLIP, the last is Pixtral's
RMS_NORMS = ("rms_norm1", "attention_norm")  # in front of the attention, of AIMv2 and of Pixtral
CLASS_ANGLES = "class_pos_emb"  # of MLCD: how far every block turns its class token
PIXIO_IN_A_BACKBONE, BESIDE_PIXIO = ("encoder.", "pixio."), "layernorm"
MID_POSITIONS = "encoder.mid_position_embeddings"
POOLER = "pooler.dense"
MAP_HEAD = "head"
PACKED = "self_attn.qkv"  # of BLIP: query, key and value
PACKED_GATES = "mlp.weights_in"  # of the SwiGLU feed-forward: the gate's rows before those of the other

CLASSIFIER, PROJECTION = "classifier", "visual_projection"
TWO_HEADS = ("cls_classifier", "distillation_classifier")

# Every part with a weight and a bias, by canonical name.
AROUND: Mapping[str, tuple[str, ...]] = {
    "pre_norm": PRE_NORM,
    "norm": ("layernorm", "post_layernorm", "norm", "pooler.layernorm", aimv2.NORM),  # the fourth is of BEiT's mean
    "patch_norm": (aimv2.PATCH_NORM,),
    "map_pool.attention.out": (f"{MAP_HEAD}.attention.out_proj",),
    "map_pool.norm": (f"{MAP_HEAD}.layernorm",),
    "map_pool.ffn.up": (f"{MAP_HEAD}.mlp.fc1",),
    "map_pool.ffn.down": (f"{MAP_HEAD}.mlp.fc2",),
}
WITHIN: Mapping[str, tuple[str, ...]] = {
    "norm1": ("layernorm_before", "norm1", "layer_norm1", *RMS_NORMS),
    "attention.query": ("attention.attention.query", "attention.q_proj", "self_attn.q_proj"),
    "attention.key": ("attention.attention.key", "attention.k_proj", "self_attn.k_proj"),
    "attention.value": ("attention.attention.value", "attention.v_proj", "self_attn.v_proj"),
    "attention.out": (
        *("attention.output.dense", "attention.o_proj", "self_attn.out_proj"),
        *("self_attn.projection", "self_attn.projection_layer", "attention.out_proj"),  # BLIP, Janus, AIMv2
        "attention.projection_layer",  # InternVL
    ),
    "attention.query_norm": ("attention.q_norm", "self_attn.q_norm"),
    "attention.key_norm": ("attention.k_norm", "self_attn.k_norm"),
    "norm2": ("layernorm_after", "norm2", "layer_norm2", "rms_norm2", "ffn_norm"),
    "ffn.gate": ("mlp.gate_proj", "ffn.gate_proj", "feed_forward.gate_proj"),
    "ffn.up": ("intermediate.dense", "mlp.fc1", "mlp.up_proj", "ffn.up_proj", "feed_forward.up_proj"),
    "ffn.down": (
        *("output.dense", "mlp.fc2", "mlp.weights_out", "mlp.down_proj", "ffn.down_proj", "feed_forward.down_proj"),
    ),
}
SCALES: Mapping[str, str] = {"scale1.gamma": "layer_scale1.lambda1", "scale2.gamma": "layer_scale2.lambda1"}
BEIT_SCALES: Mapping[str, str] = {"scale1.gamma": "lambda_1", "scale2.gamma": "lambda_2"}
HEAD_TENSORS = re.compile(rf"(^|\.)({'|'.join((CLASSIFIER, *TWO_HEADS, PROJECTION))})\.(weight|bias)$")
NORMS = ("norm", "norm1", "norm2", "pre_norm", "patch_norm", "query_norm", "key_norm")

BLOCK = re.compile(r"((?:encoder\.layers?|transformer\.layers|layers|(?:model\.)?layer)\.(\d{1,6}))\.")

# What the function does not depend on, by the words it is reported in: in the encoder and beside it.
SPARE_WITHIN: Mapping[str, tuple[str, ...]] = {
    "pooler": ("pooler.",),
    "mask token": ("embeddings.mask_token",),
    "position ids": ("embeddings.position_ids",),
    "attention pooling": (f"{MAP_HEAD}.",),
    "rotary frequencies": ("rope_embeddings.",),
}
SPARE_BESIDE: Mapping[str, tuple[str, ...]] = {
    "decoder": ("decoder.",),
    "text tower": ("text_model.", "text_projection.", "logit_scale", "logit_bias"),
}


@dataclass(frozen=True)
class Names:
    """The names of a file, with the prefix of its encoder.

    Args:
        stored: all of them.
        prefix: what those of the encoder begin with: nothing in a file of the bare model, its path in a larger one.
    """

    stored: frozenset[str]
    prefix: str

    @functools.cached_property
    def blocks(self) -> Mapping[int, str]:
        """The path of each block by its number, with the prefix."""
        # transformers 5 saves ViTMSN's blocks without the prefix that everything else in the encoder has.
        return self._blocks_after(self.prefix) or self._blocks_after("")

    def _blocks_after(self, prefix: str) -> Mapping[int, str]:
        paths: dict[int, str] = {}
        for name in sorted(self.stored):
            if name.startswith(prefix) and (match := BLOCK.match(name, len(prefix))):
                paths.setdefault(int(match[2]), f"{prefix}{match[1]}.")
        return paths

    @functools.cached_property
    def pre_norm(self) -> bool:
        """Whether there is a norm in front of the blocks."""
        return any(self.has(f"{norm}.weight") for norm in PRE_NORM)

    @property
    def may_do_without_biases(self) -> bool:
        """Whether its projections have biases by switches of their own."""
        return any(self.has(f"{patches}.weight") for patches in (DINOV3, aimv2.PATCHES, PIXTRAL))

    @property
    def last_norm(self) -> str:
        """The norm behind the blocks; PIXIO's backbone has one beside its encoder, and leaves the encoder's unread."""
        beside = self.prefix in PIXIO_IN_A_BACKBONE and f"{BESIDE_PIXIO}.weight" in self.stored
        return BESIDE_PIXIO if beside else self.part(AROUND["norm"])

    def head(self, name: str) -> str:
        """A head by its own name, with the path of what it is beside the encoder in."""
        parts = self.prefix.split(".")
        paths = [".".join((*parts[:end], name)) for end in range(len(parts))]
        return next((path for path in paths if f"{path}.weight" in self.stored), name)

    def has(self, name: str) -> bool:
        """Whether the encoder has a tensor of this name."""
        return self.prefix + name in self.stored

    def tensor(self, choices: Iterable[str]) -> str:
        """The first of these tensors that the encoder has, else the first of all; with the prefix."""
        return self._first(self.prefix, choices, "")

    def part(self, choices: Iterable[str]) -> str:
        """The first of these parts whose weight the encoder has, else the first of all; with the prefix."""
        return self._first(self.prefix, choices, ".weight")

    def within(self, block: int, choices: Iterable[str]) -> str:
        """The first of these parts whose weight the block has, else the first of all; with the block's path."""
        return self._first(self.blocks.get(block, f"{self.prefix}encoder.layer.{block}."), choices, ".weight")

    def _first(self, path: str, choices: Iterable[str], ending: str) -> str:
        names = [path + choice for choice in choices]
        return next((name for name in names if name + ending in self.stored), names[0])


def encoders(stored: Iterable[str]) -> list[str]:
    """What the names of each encoder of images in a file begin with, in their order; empty for something else."""
    return sorted({found["prefix"] for name in stored if (found := STEM.fullmatch(name))})


def named(stored: Iterable[str]) -> Names | None:
    """The names of a file of transformers; None if they are of something else.

    Raises:
        CheckpointError: there are encoders of images beside each other.
    """
    names = frozenset(stored)
    found = encoders(names)
    if len(found) > 1 and "" in found:  # what is around the others is then a part of this one
        found = [""]
    if len(found) > 1:
        raise CheckpointError(
            f"it has {len(found)} encoders of images: {', '.join(prefix.rstrip('.') for prefix in found)}",
            fix="say which: --tower with a part of its path",
        )
    return Names(names, found[0]) if found else None


def origins(names: Names, config: ViTConfig) -> dict[str, Origin]:
    """Where each canonical weight comes from."""
    table = {**_embeddings(names, config), **_blocks(names, config)}
    for part, choices in AROUND.items():
        table |= _part(part, names.part(choices))
    table |= _part("norm", names.last_norm)
    if config.effective_pooling is Pooling.MAP:
        if names.has(aimv2.PROBE):
            table |= aimv2.pool_origins(names.stored, names.prefix, config)
        else:
            table |= _map_head(f"{names.prefix}{MAP_HEAD}")
    if config.pre_logits_dim:
        table |= _part("pre_logits", f"{names.prefix}{POOLER}")
    if config.include_top:
        table |= _head(names, config)
    return {name: table[name] for name in weight_specs(config) if name in table}


def _embeddings(names: Names, config: ViTConfig) -> dict[str, Origin]:
    patches = names.part(PATCHES)
    biased = f"{patches}.bias" in names.stored or not names.pre_norm  # CLIP's patches have none
    return {
        "patch_embed.kernel": Origin((f"{patches}.weight",), lambda kernel: _kernel(kernel, config)),
        "patch_embed.bias": same(f"{patches}.bias") if biased else zeros(config.embed_dim),
        "pos_embed.table": _table(names, config),
        "class_token.class": _class(names.tensor(CLASS)),
        "class_token.distillation": _tokens(names.prefix + DISTILLATION),
        "class_token.registers": _registers(names),
    }


def _kernel(kernel: Float32, config: ViTConfig) -> Float32:
    """A convolution, or the matrix over the pixels (row, column, channel) of a patch that SigLIP 2 has."""
    if kernel.ndim == 2:
        return kernel.T.reshape(*config.patch_size, config.channels, config.embed_dim)
    return kernel.transpose(2, 3, 1, 0)


def computes_positions(names: Names) -> bool:
    """Whether its program computes a position table for the size of the images, as AIMv2 of any size does."""
    return names.has(f"{aimv2.PATCHES}.weight") and names.tensor(POSITIONS) not in names.stored


def _table(names: Names, config: ViTConfig) -> Origin:
    """The position table, or zeros where queries and keys are turned instead."""
    stored = names.tensor(POSITIONS)
    relative = config.relative_positions is not RelativePositions.NONE
    if (config.rotary is not None or relative) and stored not in names.stored:
        return zeros(config.sequence_length, config.embed_dim)
    if computes_positions(names):
        return Origin((), lambda: aimv2.computed_positions(config))
    return Origin((stored,), lambda table: _positions(table, config, names))


def _tokens(name: str) -> Origin:
    """Tokens `(1, tokens, dim)`, or CLIP's one `(dim)`, as `(tokens, dim)`."""
    return Origin((name,), lambda tokens: tokens[None] if tokens.ndim == 1 else _only(tokens))


def _class(name: str) -> Origin:
    """The class token, the first of several in PIXIO."""
    return Origin((name,), lambda tokens: tokens[None] if tokens.ndim == 1 else _only(tokens)[:1])


def _registers(names: Names) -> Origin:
    """Registers; what counts as such here are YOLOS's detection tokens, and PIXIO's class tokens but for the first."""
    for own in (REGISTERS, DETECTION):
        if names.has(own):
            return _tokens(names.prefix + own)
    return Origin((names.tensor(CLASS),), lambda tokens: tokens[None, 1:] if tokens.ndim == 1 else _only(tokens)[1:])


def _positions(table: Float32, config: ViTConfig, names: Names) -> Float32:
    """In our order, with a row of zeros for each register that gets no position."""
    table = table if table.ndim == 2 else _only(table)
    if config.patch_padding:  # ViTPose
        return table[1:] + table[:1]
    if not config.register_tokens:
        return table
    if names.has(DETECTION):
        return np.concatenate([table[:1], table[-config.register_tokens :], table[1 : -config.register_tokens]])
    if len(table) == config.sequence_length:
        return table
    registers = np.zeros((config.register_tokens, table.shape[1]), np.float32)
    return np.concatenate([table[:1], registers, table[1:]])


def _only(batch: Float32) -> Float32:
    if len(batch) != 1:
        raise ValueError(f"expected one, found {len(batch)}")
    only: Float32 = batch[0]
    return only


def _blocks(names: Names, config: ViTConfig) -> dict[str, Origin]:
    table: dict[str, Origin] = {}
    for index in range(config.num_layers):
        for part, choices in WITHIN.items():
            table |= _part(f"block_{index}.{part}", names.within(index, choices))
        path = names.within(index, ("",))
        if names.has(CLASS_ANGLES):
            table[f"block_{index}.attention.{rotary.CLASS_ANGLES}"] = same(names.prefix + CLASS_ANGLES)
        if names.may_do_without_biases:
            table |= _biases_left_out(index, names, config)
        for gamma, stored in SCALES.items():
            there = BEIT_SCALES[gamma] if path + BEIT_SCALES[gamma] in names.stored else stored
            table[f"block_{index}.{gamma}"] = same(path + there)
        if f"{path}{PACKED}.weight" in names.stored:
            for number, role in enumerate(("query", "key", "value")):
                table[f"block_{index}.attention.{role}.kernel"] = _share(f"{path}{PACKED}.weight", number, 3)
                table[f"block_{index}.attention.{role}.bias"] = _share(f"{path}{PACKED}.bias", number, 3)
        packed = path + PACKED_GATES
        if config.ffn_type is not FFNType.MLP and f"{packed}.weight" in names.stored:
            for number, role in enumerate(("gate", "up")):
                table[f"block_{index}.ffn.{role}.kernel"] = _share(f"{packed}.weight", number, 2)
                table[f"block_{index}.ffn.{role}.bias"] = _share(f"{packed}.bias", number, 2)
    return table


def _biases_left_out(index: int, names: Names, config: ViTConfig) -> dict[str, Origin]:
    """Zeros for the biases that no block has: DINOv3's keys have none, and Pixtral no projection."""
    block, specs = f"block_{index}.", weight_specs(config)
    return {
        f"{block}{part}.bias": zeros(*specs[f"{block}{part}.bias"].shape)
        for part, choices in WITHIN.items()
        if f"{block}{part}.bias" in specs
        and part.startswith(("attention", "ffn"))
        and not any(f"{names.within(other, choices)}.bias" in names.stored for other in names.blocks)
    }


def _part(canonical: str, stored: str) -> dict[str, Origin]:
    """A norm, whose vector we call a scale, or a dense layer."""
    if canonical.rpartition(".")[2] in NORMS:
        return {f"{canonical}.scale": same(f"{stored}.weight"), f"{canonical}.bias": same(f"{stored}.bias")}
    return {f"{canonical}.kernel": transposed(f"{stored}.weight"), f"{canonical}.bias": same(f"{stored}.bias")}


def _share(name: str, number: int, of: int) -> Origin:
    """One of several equal shares of the rows, as a kernel or a bias."""
    return Origin((name,), lambda packed: np.split(packed, of)[number].T)


def _map_head(path: str) -> dict[str, Origin]:
    """The probe and the packed query, key and value of torch's own attention layer."""
    table = {"map_pool.probe": _tokens(f"{path}.probe")}
    for number, role in enumerate(("query", "key", "value")):
        table[f"map_pool.attention.{role}.kernel"] = _share(f"{path}.attention.in_proj_weight", number, 3)
        table[f"map_pool.attention.{role}.bias"] = _share(f"{path}.attention.in_proj_bias", number, 3)
    return table


def _head(names: Names, config: ViTConfig) -> dict[str, Origin]:
    if config.effective_pooling is Pooling.CLS_DISTILLATION:  # the answer is the mean of the two heads'
        return {
            "head.kernel": Origin(tuple(f"{names.head(head)}.weight" for head in TWO_HEADS), _halved_beside),
            "head.bias": Origin(
                tuple(f"{names.head(head)}.bias" for head in TWO_HEADS), lambda *biases: np.stack(biases).mean(axis=0)
            ),
        }
    projection = names.head(PROJECTION)
    if f"{projection}.weight" in names.stored:
        return {"head.kernel": transposed(f"{projection}.weight"), "head.bias": zeros(config.num_classes)}
    return _part("head", names.head(CLASSIFIER))


def _halved_beside(*heads: Float32) -> Float32:
    beside: Float32 = np.concatenate(heads, axis=1).T * np.float32(0.5)
    return beside


def spare(names: Names, config: ViTConfig, whole: str = "") -> dict[str, list[str]]:
    """Tensors that the function does not depend on, by what they are.

    Args:
        names: the names of the file.
        config: the config of the ViT.
        whole: model type of the larger model whose tower it is.
    """
    pooler = bool(config.pre_logits_dim) or names.has("pooler.layernorm.weight")
    used = {"pooler": pooler, "attention pooling": config.effective_pooling is Pooling.MAP}
    beginnings = {
        **{what: tuple(names.prefix + part for part in parts) for what, parts in SPARE_WITHIN.items()},
        **SPARE_BESIDE,
    }
    found = {
        what: sorted(name for name in names.stored if name.startswith(parts))
        for what, parts in beginnings.items()
        if not used.get(what)
    }
    if whole:
        head = names.head(PROJECTION) if config.include_top else ""
        rest = [name for name in names.stored if not name.startswith((names.prefix, f"{head}."))]
        found = {what: tensors for what, tensors in found.items() if what not in SPARE_BESIDE}
        found[f"rest of a {whole}"] = sorted(rest)
    norms = {names.part(AROUND["norm"]), names.last_norm} - ({names.last_norm} if config.last_norm else set())
    found["last norm"] = sorted(name for name in names.stored if name.rpartition(".")[0] in norms)
    if not config.register_tokens:
        found["registers"] = [name for name in (f"{names.prefix}{REGISTERS}",) if name in names.stored]
    # A buffer of YOLOS, empty unless it adds positions after every block.
    found["mid positions"] = [name for name in (f"{names.prefix}{MID_POSITIONS}",) if name in names.stored]
    later = tuple(path for number, path in names.blocks.items() if number >= config.num_layers)
    found["blocks after the one that is read"] = sorted(name for name in names.stored if name.startswith(later))
    return {what: tensors for what, tensors in found.items() if tensors}
