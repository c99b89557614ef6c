"""`vit-deploy build`: a Keras ViT of a named scale, with seeded random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.options import Force, ImageSize, NumClasses, OutputOptions, PatchSize, Seed, parse_size
from vit_deploy.cli.signature import command


@command
def build(
    scale: Annotated[str, typer.Argument(help="pico, tiny, small, base, large or huge.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.keras", help="What to write.", show_default=False)
    ],
    image_size: ImageSize = None,
    patch_size: PatchSize = None,
    num_classes: NumClasses = None,
    seed: Seed = None,
    channels: Annotated[int, typer.Option(min=1, help="Of the images.")] = 3,
    include_top: Annotated[bool, typer.Option("--include-top/--no-include-top", help="With a head.")] = True,
    pooling: Annotated[str | None, typer.Option(help="cls, mean, max, cls_distillation, cls_mean or map.")] = None,
    normalization_type: Annotated[
        str, typer.Option(help="layer_norm, rms_norm, dynamic_tanh or band_rms.")
    ] = "layer_norm",
    normalization_position: Annotated[str, typer.Option(help="pre or post.")] = "pre",
    ffn_type: Annotated[str, typer.Option(help="mlp, swiglu, geglu or glu.")] = "mlp",
    activation: Annotated[str, typer.Option(help="Of the mlp: gelu, gelu_tanh, relu, silu, …")] = "gelu",
    epsilon: Annotated[float, typer.Option(help="Of the norms.")] = 1e-6,
    embed_dim: Annotated[int | None, typer.Option(help="In place of the scale's.")] = None,
    num_heads: Annotated[int | None, typer.Option(help="In place of the scale's.")] = None,
    num_layers: Annotated[int | None, typer.Option(help="In place of the scale's.")] = None,
    mlp_dim: Annotated[int | None, typer.Option(help="In place of the scale's.")] = None,
    qkv_bias: Annotated[bool, typer.Option("--qkv-bias/--no-qkv-bias", help="Of query, key and value.")] = True,
    class_token: Annotated[bool, typer.Option("--class-token/--no-class-token", help="Before the patches.")] = True,
    distillation_token: Annotated[bool, typer.Option("--distillation-token", help="After the class token.")] = False,
    register_tokens: Annotated[int, typer.Option(min=0, help="Registers after those.")] = 0,
    layer_scale: Annotated[bool, typer.Option("--layer-scale", help="Of what each half of a block adds.")] = False,
    qk_norm: Annotated[bool, typer.Option("--qk-norm", help="Of each head's queries and keys.")] = False,
    pre_norm: Annotated[bool, typer.Option("--pre-norm", help="A norm in front of the first block.")] = False,
    norm_after_pooling: Annotated[
        bool, typer.Option("--norm-after-pooling", help="The last norm is that of the pooled vector.")
    ] = False,
    pre_logits_dim: Annotated[int, typer.Option(min=0, help="Width of a dense layer with tanh before the head.")] = 0,
    force: Force = False,
    *,
    printing: OutputOptions,
) -> int:
    """Write a ViT with seeded random weights, the same on every machine."""
    from vit_deploy import checkpoints
    from vit_deploy.cli.output import Output
    from vit_deploy.core import documents
    from vit_deploy.core.checkpoint import Checkpoint
    from vit_deploy.core.config import ViTConfig
    from vit_deploy.core.quantities import megabytes

    optional = {
        "num_classes": num_classes,
        "embed_dim": embed_dim,
        "num_heads": num_heads,
        "num_layers": num_layers,
        "mlp_dim": mlp_dim,
    }
    overrides: dict[str, object] = {name: value for name, value in optional.items() if value is not None}
    config = ViTConfig.from_scale(
        scale,
        image_size=parse_size(image_size or "224", "--image-size"),
        patch_size=parse_size(patch_size or "16", "--patch-size"),
        channels=channels,
        include_top=include_top,
        pooling=pooling,
        normalization_type=normalization_type,
        normalization_position=normalization_position,
        ffn_type=ffn_type,
        activation=activation,
        epsilon=epsilon,
        qkv_bias=qkv_bias,
        class_token=class_token,
        distillation_token=distillation_token,
        register_tokens=register_tokens,
        layer_scale=layer_scale,
        qk_norm=qk_norm,
        pre_norm=pre_norm,
        norm_after_pooling=norm_after_pooling,
        pre_logits_dim=pre_logits_dim,
        **overrides,
    )
    checkpoints.check_target(output, force=force)
    out = Output("build", printing)
    with out.progress() as progress:
        progress(f"drawing the weights of {scale}")
        checkpoint = Checkpoint.random(config, seed or 0)
        progress(f"writing {output}")
        checkpoints.save(checkpoint, output, force=force)
    record = documents.saved(output, checkpoint)
    rows = [(str(output), megabytes(record["bytes"]), f"{checkpoint.num_parameters / 1e6:.2f} M", f"{seed or 0}")]
    return out.finish([record], ok=True, columns=("checkpoint", "size", "parameters", "seed"), rows=rows)
