"""Where the weights of timm's class Eva come from: joined or separate projections, norms inside, probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_deploy.checkpoints.gathering import Origin, same, transposed, zeros
from vit_deploy.checkpoints.timm.names import PATCHES, Renamed
from vit_deploy.core.choices import FFNType, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.rotary_angles import halves_of_pairs
from vit_deploy.core.weights import Float32

Arguments = Mapping[str, Any]

FREQUENCIES = "rope.freqs"
ROLES = ("query", "key", "value")


def origins_of(view: Renamed, config: ViTConfig, arguments: Arguments, own_rows: int) -> dict[str, Origin]:
    """The origin of each weight, by canonical name.

    Args:
        view: tensors of the file by timm's names.
        config: the config that was read of them.
        arguments: that timm's architecture is made with.
        own_rows: rows of the position table for tokens in front of the patches; those that it lacks are zero.
    """
    dim, tokens, prefix = config.embed_dim, config.sequence_length, config.num_prefix_tokens

    def table(stored: Float32) -> Float32:
        missing = np.zeros((prefix - own_rows, dim), np.float32)
        return np.concatenate([stored[0, :own_rows], missing, stored[0, own_rows:]])

    has_table = "pos_embed" in view.kinds
    origins = {
        "patch_embed.kernel": Origin((PATCHES,), lambda kernel: kernel.transpose(2, 3, 1, 0)),
        "patch_embed.bias": _or_zeros("patch_embed.proj.bias", view, dim),
        "class_token.class": Origin(("cls_token",), lambda token: token[0]),
        "class_token.registers": Origin(("reg_token",), lambda token: token[0]),
        "pos_embed.table": Origin(("pos_embed",), table) if has_table else zeros(tokens, dim),
        **_norm("pre_norm", "norm_pre"),
        **_norm("norm", "fc_norm" if config.norm_after_pooling else "norm"),
    }
    if config.include_top:
        origins["head.kernel"] = transposed("head.weight")
        origins["head.bias"] = _or_zeros("head.bias", view, config.num_classes)
    for index in range(config.num_layers):
        origins |= _block(index, view, config, side_by_side=not arguments["rope_rotate_half"])
    if config.effective_pooling is Pooling.MAP:
        origins |= _map_pool()
    return origins


def _block(index: int, view: Renamed, config: ViTConfig, *, side_by_side: bool) -> dict[str, Origin]:
    ours, theirs, hidden = f"block_{index}", f"blocks.{index}", config.mlp_dim
    order = _order(config) if side_by_side and config.rotary is not None else None
    origins = {
        **_norm(f"{ours}.norm1", f"{theirs}.norm1"),
        **_norm(f"{ours}.norm2", f"{theirs}.norm2"),
        **_head_norm(f"{ours}.attention.query_norm", f"{theirs}.attn.q_norm", order, config),
        **_head_norm(f"{ours}.attention.key_norm", f"{theirs}.attn.k_norm", order, config),
        **_queries_keys_values(f"{ours}.attention", f"{theirs}.attn", view, config, order),
        **_norm(f"{ours}.attention.norm", f"{theirs}.attn.norm"),
        **_norm(f"{ours}.ffn.norm", f"{theirs}.mlp.norm"),
        f"{ours}.attention.out.kernel": transposed(f"{theirs}.attn.proj.weight"),
        f"{ours}.attention.out.bias": _or_zeros(f"{theirs}.attn.proj.bias", view, config.embed_dim),
        f"{ours}.ffn.down.kernel": transposed(f"{theirs}.mlp.fc2.weight"),
        f"{ours}.ffn.down.bias": _or_zeros(f"{theirs}.mlp.fc2.bias", view, config.embed_dim),
        f"{ours}.scale1.gamma": same(f"{theirs}.ls1.gamma"),
        f"{ours}.scale2.gamma": same(f"{theirs}.ls2.gamma"),
        f"{ours}.attention.frequencies": Origin((FREQUENCIES,), lambda tensor: tensor[:, index]),
    }
    if config.ffn_type is FFNType.SWIGLU and f"{theirs}.mlp.fc1_g.weight" not in view.stored:
        for number, role in enumerate(("gate", "up")):
            origins[f"{ours}.ffn.{role}.kernel"] = _part(f"{theirs}.mlp.fc1.weight", 2, number, matrix=True)
            origins[f"{ours}.ffn.{role}.bias"] = (
                _part(f"{theirs}.mlp.fc1.bias", 2, number) if f"{theirs}.mlp.fc1.bias" in view.stored else zeros(hidden)
            )
        return origins
    roles = {"gate": "fc1_g", "up": "fc1_x"} if config.ffn_type is FFNType.SWIGLU else {"up": "fc1"}
    for role, name in roles.items():
        origins[f"{ours}.ffn.{role}.kernel"] = transposed(f"{theirs}.mlp.{name}.weight")
        origins[f"{ours}.ffn.{role}.bias"] = _or_zeros(f"{theirs}.mlp.{name}.bias", view, hidden)
    return origins


def _order(config: ViTConfig) -> Sequence[int]:
    """Where the outputs of all queries, or keys, are taken from."""
    of_head = halves_of_pairs(config.head_dim)
    return [int(head * config.head_dim + place) for head in range(config.num_heads) for place in of_head]


def _head_norm(ours: str, theirs: str, order: Sequence[int] | None, config: ViTConfig) -> dict[str, Origin]:
    first = slice(None) if order is None else [*order[: config.head_dim]]
    return {
        f"{ours}.{part}": Origin((f"{theirs}.{name}",), lambda tensor: tensor[first])
        for part, name in (("scale", "weight"), ("bias", "bias"))
    }


def _queries_keys_values(
    ours: str, theirs: str, view: Renamed, config: ViTConfig, order: Sequence[int] | None
) -> dict[str, Origin]:
    """The three projections, packed or not, with one bias, with two apart or with none."""
    dim = config.embed_dim
    origins: dict[str, Origin] = {}
    for number, role in enumerate(ROLES):
        rows = slice(None) if order is None or role == "value" else [*order]
        own, apart = f"{theirs}.{role[0]}_proj", f"{theirs}.{role[0]}_bias"
        if f"{own}.weight" in view.stored:
            origins[f"{ours}.{role}.kernel"] = _repeated(f"{own}.weight", config, rows, matrix=True)
            bias = apart if apart in view.stored else f"{own}.bias"
            origins[f"{ours}.{role}.bias"] = _repeated(bias, config, rows) if bias in view.stored else zeros(dim)
            continue
        packed = f"{theirs}.qkv"
        origins[f"{ours}.{role}.kernel"] = _part(f"{packed}.weight", 3, number, rows, matrix=True)
        if f"{packed}.bias" in view.stored:
            # Where a mask of the bias is stored, it is that which leaves the keys without one.
            masked = role == "key" and f"{packed}.bias_mask" in view.stored
            part = _part(f"{packed}.bias", 3, number, rows)
            origins[f"{ours}.{role}.bias"] = (
                Origin(part.names, lambda bias: np.zeros(dim, np.float32)) if masked else part
            )
        elif apart in view.stored:
            origins[f"{ours}.{role}.bias"] = Origin((apart,), _rows(rows))
        else:
            origins[f"{ours}.{role}.bias"] = zeros(dim)
    return (
        origins if config.qkv_bias else {name: origin for name, origin in origins.items() if name.endswith(".kernel")}
    )


def _rows(rows: Any) -> Any:
    return lambda tensor: tensor[rows]


def _part(name: str, parts: int, number: int, rows: Any = slice(None), *, matrix: bool = False) -> Origin:
    def part(tensor: Float32) -> Float32:
        own: Float32 = np.split(tensor, parts)[number][rows]
        return own.T if matrix else own

    return Origin((name,), part)


def _repeated(name: str, config: ViTConfig, rows: Any, *, matrix: bool = False) -> Origin:
    """A projection of which groups of heads may share one, as each head's own."""
    width = config.head_dim

    def every_head(tensor: Float32) -> Float32:
        shared = len(tensor) // width
        heads = tensor.reshape(shared, width, *tensor.shape[1:])
        own: Float32 = np.repeat(heads, config.num_heads // max(1, shared), axis=0).reshape(-1, *tensor.shape[1:])[rows]
        return own.T if matrix else own

    return Origin((name,), every_head)


def _map_pool() -> dict[str, Origin]:
    origins = {
        "map_pool.probe": Origin(("attn_pool.latent",), lambda tensor: tensor[0]),
        **_norm("map_pool.norm", "attn_pool.norm"),
    }
    dense = {"attention.query": "q", "attention.out": "proj", "ffn.up": "mlp.fc1", "ffn.down": "mlp.fc2"}
    for ours, theirs in dense.items():
        origins[f"map_pool.{ours}.kernel"] = transposed(f"attn_pool.{theirs}.weight")
        origins[f"map_pool.{ours}.bias"] = same(f"attn_pool.{theirs}.bias")
    for number, role in enumerate(("key", "value")):
        origins[f"map_pool.attention.{role}.kernel"] = _part("attn_pool.kv.weight", 2, number, matrix=True)
        origins[f"map_pool.attention.{role}.bias"] = _part("attn_pool.kv.bias", 2, number)
    return origins


def _norm(ours: str, theirs: str) -> dict[str, Origin]:
    return {f"{ours}.scale": same(f"{theirs}.weight"), f"{ours}.bias": same(f"{theirs}.bias")}


def _or_zeros(name: str, view: Renamed, outputs: int) -> Origin:
    return same(name) if name in view.stored else zeros(outputs)
