"""Options of everything that makes a model from a scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from vit_deploy.core.options.option import Option, panel
from vit_deploy.core.rotary import RotaryConvention


@panel("Architecture")
@dataclass(frozen=True)
class ArchitectureOptions:
    """What a model has in place of what its scale says; see `ViTConfig` for each field.

    Args:
        channels: channels of the images.
        include_top: whether there is a head.
        pooling: how tokens become one vector, "cls", "mean", "max", "cls_distillation", "cls_mean",
            "prefix_mean" or "map".
        normalization_type: "layer_norm", "rms_norm", "dynamic_tanh" or "band_rms".
        normalization_position: "pre", "post", "res_post" or "parallel".
        ffn_type: "mlp", "swiglu", "geglu" or "glu".
        activation: name of the activation function of an mlp.
        epsilon: added to the variance by the normalization layers.
        embed_dim: width of the tokens; None for the scale's.
        num_heads: attention heads; None for the scale's.
        num_layers: transformer blocks; None for the scale's.
        mlp_dim: width of the feed-forward layers; None for the scale's.
        qkv_bias: whether queries, keys and values have biases.
        class_token: whether a class token stands before the patches.
        distillation_token: whether a distillation token follows it.
        register_tokens: number of registers that follow those.
        layer_scale: whether what each sub-layer adds is scaled channel by channel.
        qk_norm: whether each head's queries and keys are normalized.
        pre_norm: whether a norm stands in front of the first block.
        norm_after_pooling: whether the last norm is that of the pooled vector.
        pre_logits_dim: width of a dense layer with tanh before the head; 0 for none.
        rotary: name of a convention of rotary positions, such as "dinov3"; None for none.
        patch_norm: whether the patches are normalized once they are embedded.
        pixel_norm: whether the pixels of each patch are normalized before they are embedded.
        patch_padding: pixels of zeros above and left of the image.
        relative_positions: what attention adds by the distance of two tokens, "none", "table", "shared_table",
            "scores" or "shared_scores".
        attention_norm: whether a norm stands in front of the attention's last projection.
        ffn_norm: whether a norm stands in front of the feed-forward's last projection.
        pool_heads: heads of "map" pooling; 0 for as many as a block has.
        pool_mlp_dim: hidden units of "map" pooling; 0 for as many as a block has.
        pool_dim: width of what "map" pooling gives; 0 for that of a token.
        pool_end: what follows the attention of "map" pooling, "ffn", "norm" or "none".
        pool_patches: whether "map" pooling leaves the prefix tokens out.
        last_norm: whether a norm follows the last block.
        pre_logits_linear: whether the dense layer before the head has no tanh.
        head_norm: whether the vector that the head reads is divided by its root mean square.
        probabilities: "softmax" or "sigmoid", what makes probabilities of the logits.
        head_width: width of one attention head; 0 for the width of the tokens by the heads.
        qk_norm_across_heads: whether the queries, and the keys, of all heads are normalized together.
        qk_norm_type: name of the norm of queries and keys; None for that of the blocks.
        qk_norm_epsilon: added to the variance by the norm of queries and keys; 0 for what the others add.
        layer_scale_part: which half of a block the layer scale is of, "both", "attention" or "ffn".
    """

    channels: Annotated[int, Option(min=1, help="Of the images.")] = 3
    include_top: Annotated[bool, Option(help="With a head.")] = True
    pooling: Annotated[str | None, Option(help="cls, mean, max, cls_distillation, cls_mean, prefix_mean or map.")] = (
        None
    )
    normalization_type: Annotated[str, Option(help="layer_norm, rms_norm, dynamic_tanh or band_rms.")] = "layer_norm"
    normalization_position: Annotated[str, Option(help="pre, post, res_post or parallel.")] = "pre"
    ffn_type: Annotated[str, Option(help="mlp, swiglu, geglu or glu.")] = "mlp"
    activation: Annotated[str, Option(help="Of the mlp: gelu, gelu_tanh, relu, silu, …")] = "gelu"
    epsilon: Annotated[float, Option(help="Of the norms.")] = 1e-6
    embed_dim: Annotated[int | None, Option(help="In place of the scale's.")] = None
    num_heads: Annotated[int | None, Option(help="In place of the scale's.")] = None
    num_layers: Annotated[int | None, Option(help="In place of the scale's.")] = None
    mlp_dim: Annotated[int | None, Option(help="In place of the scale's.")] = None
    qkv_bias: Annotated[bool, Option(help="Of query, key and value.")] = True
    class_token: Annotated[bool, Option(help="Before the patches.")] = True
    distillation_token: Annotated[bool, Option(help="After the class token.")] = False
    register_tokens: Annotated[int, Option(min=0, help="Registers after those.")] = 0
    layer_scale: Annotated[bool, Option(help="Of what each half of a block adds.")] = False
    qk_norm: Annotated[bool, Option(help="Of each head's queries and keys.")] = False
    pre_norm: Annotated[bool, Option(help="A norm in front of the first block.")] = False
    norm_after_pooling: Annotated[bool, Option(help="The last norm is that of the pooled vector.")] = False
    pre_logits_dim: Annotated[int, Option(min=0, help="Width of a dense layer with tanh before the head.")] = 0
    rotary: Annotated[
        str | None, Option(help="Rotary positions: dinov3, eva, pe, rope_vit, …", values=tuple(RotaryConvention))
    ] = None
    patch_norm: Annotated[bool, Option(help="A norm behind the patch embedding.")] = False
    patch_padding: Annotated[int, Option(min=0, help="Pixels of zeros above and left of the image.")] = 0
    pixel_norm: Annotated[bool, Option(help="A norm of each patch's pixels in front of it.")] = False
    relative_positions: Annotated[
        str, Option(help="none, table or shared_table: what attention adds by the distance of two tokens.")
    ] = "none"
    attention_norm: Annotated[bool, Option(help="In front of the attention's last projection.")] = False
    ffn_norm: Annotated[bool, Option(help="In front of the feed-forward's last projection.")] = False
    pool_heads: Annotated[int, Option(min=0, help="Heads of map pooling; 0 for a block's.")] = 0
    pool_mlp_dim: Annotated[int, Option(min=0, help="Hidden units of map pooling; 0 for a block's.")] = 0
    pool_dim: Annotated[int, Option(min=0, help="Width of what map pooling gives; 0 for a token's.")] = 0
    pool_end: Annotated[str, Option(help="ffn, norm or none: what follows the attention of map pooling.")] = "ffn"
    pool_patches: Annotated[bool, Option(help="Map pooling leaves the prefix tokens out.")] = False
    last_norm: Annotated[bool, Option(help="A norm behind the last block.")] = True
    pre_logits_linear: Annotated[bool, Option(help="No tanh in the dense layer before the head.")] = False
    head_norm: Annotated[bool, Option(help="The head reads a vector divided by its root mean square.")] = False
    probabilities: Annotated[str, Option(help="softmax or sigmoid: what makes them of the logits.")] = "softmax"
    head_width: Annotated[int, Option(min=0, help="Of one attention head; 0 for embed dim by heads.")] = 0
    qk_norm_across_heads: Annotated[bool, Option(help="That norm is over the whole width.")] = False
    qk_norm_type: Annotated[str | None, Option(help="Of queries and keys, where it is not the blocks'.")] = None
    qk_norm_epsilon: Annotated[float, Option(help="Of the norm of queries and keys; 0 for the others'.")] = 0.0
    layer_scale_part: Annotated[str, Option(help="both, attention or ffn: what the layer scale is of.")] = "both"

    def fields(self) -> dict[str, Any]:
        """Fields of a config, without those that the scale says."""
        return {name: value for name, value in vars(self).items() if value is not None or name not in OF_THE_SCALE}


OF_THE_SCALE = ("embed_dim", "num_heads", "num_layers", "mlp_dim")
