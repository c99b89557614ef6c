"""Fields of the config that the names and the shapes of timm's tensors say."""

from __future__ import annotations

from typing import Any

from vit_deploy.checkpoints.timm.names import BLOCK, PATCHES, Renamed, has_last_norm
from vit_deploy.checkpoints.timm.parallel import is_parallel, parallel_shapes
from vit_deploy.checkpoints.timm.relative import relative_shapes
from vit_deploy.checkpoints.timm.things import has_things, things_shapes
from vit_deploy.core.choices import FFNType, NormalizationType, Pooling
from vit_deploy.errors import CheckpointError

LAST_OF_ATTENTION = "blocks.*.attn.proj.weight"
INNER_NORMS = {"attention_norm": "attn.norm", "ffn_norm": "mlp.norm"}  # of BEiT-3


def shapes_of(view: Renamed) -> dict[str, Any]:
    """What the names and shapes say, all but the image size."""
    kinds = view.kinds
    embed_dim, channels, *patch_size = view.common_shape(PATCHES, 4)
    kind = parallel_shapes if is_parallel(view) else things_shapes if has_things(view) else _sequential
    blocks = kind(view)
    shapes: dict[str, Any] = {
        "patch_size": tuple(patch_size),
        "channels": channels,
        "embed_dim": embed_dim,
        "num_layers": depth_of(view),
        **blocks,
        "class_token": "cls_token" in kinds,
        "distillation_token": "dist_token" in kinds,
        "register_tokens": view.common_shape("reg_token", 3)[1] if "reg_token" in kinds else 0,
        "pre_norm": "norm_pre.weight" in kinds,
        "norm_after_pooling": "fc_norm.weight" in kinds,
        "pre_logits_dim": view.common_shape("pre_logits.weight", 2)[0] if "pre_logits.weight" in kinds else 0,
        "include_top": "head.weight" in kinds,
        "num_classes": view.common_shape("head.weight", 2)[0] if "head.weight" in kinds else 0,
    }
    if not has_last_norm(view):
        shapes["last_norm"] = False
    if "patch_embed.norm.weight" in kinds:
        shapes["patch_norm"] = True
    shapes |= relative_shapes(view)
    if "attn_pool.latent" in kinds:
        shapes["pooling"] = Pooling.MAP
    if shapes["include_top"] and view.common_shape("head.weight", 2)[1] == 2 * embed_dim and shapes["class_token"]:
        shapes["pooling"] = Pooling.CLS_MEAN  # the linear heads of DINOv2's own models
    if shapes["distillation_token"]:
        shapes["pooling"] = Pooling.CLS_DISTILLATION
        if not shapes["include_top"]:  # timm's features are the average of the two tokens, which a head can compute
            shapes |= {"include_top": True, "num_classes": embed_dim}
    return shapes


def _sequential(view: Renamed) -> dict[str, Any]:
    """The fields that the usual blocks say, of attention and feed-forward one after the other."""
    kinds = view.kinds
    gate = "blocks.*.mlp.fc1_g.weight"
    hidden, _ = view.common_shape(gate if gate in kinds else "blocks.*.mlp.fc1.weight", 2)
    dim, taken = view.common_shape("blocks.*.mlp.fc2.weight", 2)
    gated = gate in kinds or hidden == 2 * taken
    layer_norm = "blocks.*.norm1.bias" in kinds
    fields: dict[str, Any] = {
        "mlp_dim": taken,
        "ffn_type": FFNType.SWIGLU if gated else FFNType.MLP,
        "normalization_type": NormalizationType.LAYER_NORM if layer_norm else NormalizationType.RMS_NORM,
        "qkv_bias": not {"blocks.*.attn.qkv.bias", "blocks.*.attn.q_bias"}.isdisjoint(kinds),
        "qk_norm": "blocks.*.attn.q_norm.weight" in kinds,
        "layer_scale": "blocks.*.ls1.gamma" in kinds,
    }
    for field, name in INNER_NORMS.items():
        if f"blocks.*.{name}.weight" in kinds:
            fields[field] = True
    if fields["qk_norm"]:
        _, width = view.common_shape(LAST_OF_ATTENTION, 2)
        head_width = view.common_shape("blocks.*.attn.q_norm.weight", 1)[0]
        fields["num_heads"] = width // head_width
        if width != dim:
            fields["head_width"] = head_width
    return fields


def attention_width(view: Renamed) -> int:
    """The width of all heads of a block together; zero where it is not one attention before one feed-forward."""
    return view.common_shape(LAST_OF_ATTENTION, 2)[1] if LAST_OF_ATTENTION in view.kinds else 0


def depth_of(view: Renamed) -> int:
    """How many blocks the names say.

    Raises:
        CheckpointError: more than there are tensors.
    """
    depth = 1 + max(int(found[1]) for name in view.names() if (found := BLOCK.match(name)))
    if depth > len(view.stored):
        raise CheckpointError(
            f"it names {depth} blocks, and holds {len(view.stored)} tensors in all",
            fix="the file is damaged: get it again",
        )
    return depth
