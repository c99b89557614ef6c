"""The Vision Transformer in Keras 3, on whichever backend runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import keras

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Pooling
from vit_deploy.core.config import SCALE_CONFIGS, Scale, ViTConfig
from vit_deploy.core.outputs import Output, outputs_of_model
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.provenance import Step
from vit_deploy.core.rotary import Rotary
from vit_deploy.errors import ConfigError
from vit_deploy.model.block import TransformerBlock
from vit_deploy.model.checks import as_preprocess, checked_shape, companion_problems, option_problems
from vit_deploy.model.layers import (
    LinearPreLogits,
    PatchEmbedding,
    PositionEmbedding,
    PrefixTokens,
    PreLogits,
    Projection,
)
from vit_deploy.model.map_pooling import MapPooling
from vit_deploy.model.norms import HeadNorm, Norm, PatchNorm, PixelNorm, PreNorm
from vit_deploy.model.options import WeightOptions
from vit_deploy.model.passes import forward, outputs_by_name
from vit_deploy.model.relative import RelativeScores
from vit_deploy.model.saving import arguments_of, canonical_variables, checkpoint_of
from vit_deploy.model.summary import summary_lines


@keras.saving.register_keras_serializable("vit_deploy")
class ViT(keras.Model):  # type: ignore[misc]
    """A Vision Transformer after Dosovitskiy et al. 2020 (arXiv 2010.11929).

    Its layers `patch_embed`, `class_token`, `pos_embed`, `transformer_layers`, `norm` and `head` can be
    called one after the other on a symbolic input to build a functional model with other outputs.

    Args:
        input_shape: (height, width, channels); height and width multiples of the patch's.
        num_classes: outputs of the head.
        scale: key of `SCALE_CONFIGS`.
        patch_size: pixels, or (height, width).
        include_top: whether the model ends in a head that gives logits.
        pooling: None or one of `vit_deploy.core.choices.Pooling`; mean and max leave the prefix tokens out. None means
            the class token with a head and the whole sequence without.
        dropout_rate: after each half of a block and inside its feed-forward.
        attention_dropout_rate: the dropout rate of attention probabilities.
        pos_dropout_rate: after the positions were added.
        stochastic_depth_rate: the stochastic depth rate of the last block; it grows linearly from none in the first.
        normalization_type: "layer_norm", "rms_norm", "dynamic_tanh" or "band_rms".
        normalization_position: "pre", as published, "post", "res_post" or "parallel", see
            `vit_deploy.core.choices.NormalizationPosition`.
        ffn_type: "mlp", "swiglu", "geglu" or "glu".
        activation: the activation of the mlp; "gelu" is exact, see `vit_deploy.core.choices.Activation`.
        epsilon: the epsilon of the norms.
        kernel_initializer: the initializer of every kernel; None draws truncated normals from `seed` with NumPy.
        bias_initializer: the initializer of every bias; None is zeros.
        kernel_regularizer: the regularizer of every kernel.
        bias_regularizer: the regularizer of every bias.
        attention_args: `flash_attention` (True, False, or None for Keras's choice) and `qkv_bias`.
        embed_dim: the width of tokens, in place of the scale's; the hidden units follow it unless given.
        num_heads: the number of attention heads, in place of the scale's.
        num_layers: the number of blocks, in place of the scale's.
        mlp_dim: hidden units of the feed-forward.
        class_token: whether a class token goes before the patches.
        distillation_token: whether a distillation token follows it.
        register_tokens: the number of registers after the class and distillation tokens.
        layer_scale: whether each half's output is scaled feature by feature before its residual sum.
        qk_norm: whether each head's queries and keys are normalized.
        pre_norm: whether the tokens are normalized before the first block.
        norm_after_pooling: whether the last norm is that of the pooled vector.
        pre_logits_dim: width of a dense layer with tanh between pooling and head; 0 for none.
        rotary: the name of a convention of rotary positions, or its fields, see `vit_deploy.core.rotary`.
        relative_positions: what attention adds to its scores by the distance of two tokens, see
            `vit_deploy.core.choices.RelativePositions`.
        attention_norm: whether what the heads give is normalized before the last projection of the attention.
        ffn_norm: whether the hidden units are normalized before the last projection of the feed-forward.
        pool_heads: attention heads of "map" pooling; 0 for as many as a block has.
        pool_mlp_dim: hidden units of "map" pooling; 0 for as many as a block has.
        pool_dim: width of what "map" pooling gives; 0 for that of a token.
        pool_end: what follows the attention of "map" pooling, "ffn", "norm" or "none".
        pool_patches: whether "map" pooling leaves the prefix tokens out.
        patch_norm: whether the patches are normalized once they are embedded.
        pixel_norm: whether the pixels of each patch are normalized before they are embedded.
        patch_padding: pixels of zeros above and left of the image.
        last_norm: whether a norm follows the last block.
        pre_logits_linear: whether the dense layer between pooling and head has no tanh.
        head_norm: whether the vector that the head reads is divided by its root mean square.
        probabilities: "softmax" or "sigmoid", what makes probabilities of the logits; travels with the model.
        head_width: width of one attention head; 0 for `embed_dim / num_heads`.
        qk_norm_across_heads: whether the queries, and the keys, of all heads are normalized together.
        qk_norm_type: the norm of queries and keys; None for `normalization_type`.
        qk_norm_epsilon: the epsilon of that norm; 0 for `epsilon`.
        layer_scale_part: "both", "attention" or "ffn", the halves of a block that `layer_scale` scales.
        seed: the seed of the random weights, the same on every backend; None leaves kernels zero.
        preprocess: how images become inputs; travels with the model.
        labels: a name a class; travels with the model.
        provenance: what was done to the weights so far; travels with the model.
        ranges: the ranges of activations, where training learned them; travels with the model.
        name: the name of the model.
        **kwargs: `dtype` and `trainable`, as of any Keras layer.

    Raises:
        ConfigError: options no ViT can have.
    """

    SCALE_CONFIGS: ClassVar[Mapping[str, Scale]] = SCALE_CONFIGS
    built: bool

    read_outputs: Sequence[Output] = ()
    """The outputs that a call gives, in a list; none for the one that the config says. Set where a file has more."""

    largest_in: Callable[[Any], Any] | None = None
    """From a grid `(batch, rows, columns, dim)` to the largest value of each channel `(batch, 1, 1, dim)`; set where
    that has to be a pooling of windows, which has kernels of integers where a reduction has none."""

    restored: Callable[[str, Any], Any] | None = None
    """What an output is of `norm`, or of a block, by its name; set where other layers have some of their weights."""

    open_grid: tuple[Any, Any] | None = None
    """The patches along (height, width), as whole numbers; set where they are computed of images of another size."""

    def __init__(
        self,
        input_shape: Sequence[int] = (224, 224, 3),
        num_classes: int = 1000,
        scale: str = "base",
        patch_size: int | Sequence[int] = 16,
        include_top: bool = True,
        pooling: str | None = None,
        dropout_rate: float = 0.0,
        attention_dropout_rate: float = 0.0,
        pos_dropout_rate: float = 0.0,
        stochastic_depth_rate: float = 0.0,
        normalization_type: str = "layer_norm",
        normalization_position: str = "pre",
        ffn_type: str = "mlp",
        activation: str = "gelu",
        epsilon: float = 1e-6,
        kernel_initializer: Any = None,
        bias_initializer: Any = None,
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        attention_args: Mapping[str, Any] | None = None,
        embed_dim: int | None = None,
        num_heads: int | None = None,
        num_layers: int | None = None,
        mlp_dim: int | None = None,
        class_token: bool = True,
        distillation_token: bool = False,
        register_tokens: int = 0,
        layer_scale: bool = False,
        qk_norm: bool = False,
        pre_norm: bool = False,
        norm_after_pooling: bool = False,
        pre_logits_dim: int = 0,
        rotary: Rotary | Mapping[str, Any] | str | None = None,
        relative_positions: str = "none",
        attention_norm: bool = False,
        ffn_norm: bool = False,
        pool_heads: int = 0,
        pool_mlp_dim: int = 0,
        pool_dim: int = 0,
        pool_end: str = "ffn",
        pool_patches: bool = False,
        patch_norm: bool = False,
        pixel_norm: bool = False,
        patch_padding: int = 0,
        last_norm: bool = True,
        pre_logits_linear: bool = False,
        head_norm: bool = False,
        probabilities: str = "softmax",
        head_width: int = 0,
        qk_norm_across_heads: bool = False,
        qk_norm_type: str | None = None,
        qk_norm_epsilon: float = 0.0,
        layer_scale_part: str = "both",
        seed: int | None = 0,
        preprocess: Preprocess | Mapping[str, Any] | None = None,
        labels: Sequence[str] = (),
        provenance: Sequence[Step | Mapping[str, Any]] = (),
        ranges: Mapping[str, Sequence[float]] | None = None,
        name: str = "vit",
        **kwargs: Any,
    ) -> None:
        attention_args = dict(attention_args or {})
        rates = {
            "dropout_rate": dropout_rate,
            "attention_dropout_rate": attention_dropout_rate,
            "pos_dropout_rate": pos_dropout_rate,
            "stochastic_depth_rate": stochastic_depth_rate,
        }
        sizes = {"embed_dim": embed_dim, "num_heads": num_heads, "num_layers": num_layers, "mlp_dim": mlp_dim}
        height, width, channels = checked_shape(input_shape)
        problems = option_problems(rates, attention_args, seed)
        try:
            config = ViTConfig.from_scale(
                scale,
                image_size=(height, width),
                patch_size=patch_size,
                channels=channels,
                num_classes=num_classes,
                include_top=include_top,
                pooling=pooling,
                normalization_type=normalization_type,
                normalization_position=normalization_position,
                ffn_type=ffn_type,
                activation=activation,
                epsilon=epsilon,
                qkv_bias=attention_args.get("qkv_bias", True),
                class_token=class_token,
                distillation_token=distillation_token,
                register_tokens=register_tokens,
                layer_scale=layer_scale,
                qk_norm=qk_norm,
                pre_norm=pre_norm,
                norm_after_pooling=norm_after_pooling,
                pre_logits_dim=pre_logits_dim,
                rotary=rotary,
                relative_positions=relative_positions,
                attention_norm=attention_norm,
                ffn_norm=ffn_norm,
                pool_heads=pool_heads,
                pool_mlp_dim=pool_mlp_dim,
                pool_dim=pool_dim,
                pool_end=pool_end,
                pool_patches=pool_patches,
                patch_norm=patch_norm,
                pixel_norm=pixel_norm,
                patch_padding=patch_padding,
                last_norm=last_norm,
                pre_logits_linear=pre_logits_linear,
                head_norm=head_norm,
                probabilities=probabilities,
                head_width=head_width,
                qk_norm_across_heads=qk_norm_across_heads,
                qk_norm_type=qk_norm_type,
                qk_norm_epsilon=qk_norm_epsilon,
                layer_scale_part=layer_scale_part,
                **{key: size for key, size in sizes.items() if size is not None},
            )
        except ConfigError as error:
            raise ConfigError("; ".join([error.message, *problems]), fix=error.fix) from None
        preprocess = as_preprocess(preprocess, config)
        problems += companion_problems(config, preprocess, labels)
        if problems:
            raise ConfigError("; ".join(problems), fix="correct the options named above")
        super().__init__(name=name, **kwargs)
        self.config = config
        self.scale = scale
        self.rates = rates
        self.attention_args = attention_args
        self.weight_options = WeightOptions(
            seed, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer
        )
        self.preprocess = preprocess
        self.labels = tuple(labels)
        drawn = seed is not None and kernel_initializer is None and not provenance
        first = [Step("random", {"seed": seed})] if drawn else []
        self.provenance = (*first, *(step if isinstance(step, Step) else Step.from_dict(step) for step in provenance))
        self.ranges = {tensor: (float(low), float(high)) for tensor, (low, high) in (ranges or {}).items()}
        self._make_layers()
        self.input_spec = keras.layers.InputSpec(shape=(None, *config.image_size, config.channels))
        self.build((None, *config.image_size, config.channels))

    def _make_layers(self) -> None:
        config, options, policy = self.config, self.weight_options, self.dtype_policy
        self.patch_embed = PatchEmbedding(
            config.embed_dim,
            config.patch_size,
            padding=config.patch_padding,
            name="patch_embed",
            dtype=policy,
            **options.projection("patch_embed"),
        )
        norm = (config.normalization_type, config.epsilon)
        self.pixel_norm = (
            PixelNorm(*norm, config.patch_size, name="pixel_norm", dtype=policy) if config.pixel_norm else None
        )
        self.patch_norm = PatchNorm(*norm, name="patch_norm", dtype=policy) if config.patch_norm else None
        self.class_token = PrefixTokens(config, options, name="class_token", dtype=policy)
        self.pos_embed = PositionEmbedding(
            options.drawn("pos_embed.table"), self.rates["pos_dropout_rate"], name="pos_embed", dtype=policy
        )
        self.pre_norm = PreNorm(*norm, name="pre_norm", dtype=policy) if config.pre_norm else None
        self.relative = RelativeScores.shared(config, options, policy)
        self.transformer_layers = [
            TransformerBlock(
                config,
                dropout_rate=self.rates["dropout_rate"],
                attention_dropout_rate=self.rates["attention_dropout_rate"],
                stochastic_depth_rate=self.rates["stochastic_depth_rate"] * index / max(1, config.num_layers - 1),
                flash_attention=self.attention_args.get("flash_attention", False),
                weights=options,
                name=f"block_{index}",
                dtype=policy,
            )
            for index in range(config.num_layers)
        ]
        self.norm = Norm(*norm, name="norm", dtype=policy) if config.last_norm else None
        is_map = config.effective_pooling is Pooling.MAP
        self.map_pool = MapPooling(config, options, name="map_pool", dtype=policy) if is_map else None
        dense = LinearPreLogits if config.pre_logits_linear else PreLogits
        self.pre_logits = (
            dense(config.pre_logits_dim, name="pre_logits", dtype=policy, **options.projection("pre_logits"))
            if config.pre_logits_dim
            else None
        )
        self.head_norm = HeadNorm(name="head_norm", dtype=policy) if config.head_norm else None
        # Logits stay in the type of the weights: in float16 a loss over them overflows.
        self.head = (
            Projection(config.num_classes, name="head", dtype=policy.variable_dtype, **options.projection("head"))
            if config.include_top
            else None
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make all weights; the constructor has done it already, so that a model is never half made."""
        if self.built:
            return
        config = self.config
        sequence = (None, config.sequence_length, config.embed_dim)
        if self.pixel_norm is not None:
            self.pixel_norm.build(input_shape)
        self.patch_embed.build(input_shape)
        if self.patch_norm is not None:
            self.patch_norm.build((None, config.num_patches, config.embed_dim))
        self.class_token.build((None, config.num_patches, config.embed_dim))
        for layer in (self.pos_embed, self.pre_norm, *self.transformer_layers, self.map_pool):
            if layer is not None:
                layer.build(sequence)
        if self.relative is not None:
            self.relative.build()
        if self.norm is not None:
            self.norm.build((None, config.pooled_dim) if config.norm_after_pooling else sequence)
        if self.pre_logits is not None:
            self.pre_logits.build((None, config.pooled_dim))
        if self.head is not None:
            self.head.build((None, config.pre_logits_dim or config.pooled_dim))
        self.built = True

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Images `(batch, height, width, channels)`, normalised, to logits or features."""
        if self.read_outputs:
            return list(outputs_by_name(self, images, self.read_outputs, training).values())
        return forward(self, images, training)

    def outputs_by_name(self, images: Any, names: Sequence[str], training: bool | None = None) -> dict[str, Any]:
        """What the model gives for images, by the names of outputs such as "class_token", "block_8.map", "logits".

        On a symbolic input it makes a functional model, `keras.Model(images, model.outputs_by_name(images, names))`.

        Args:
            images: `(batch, height, width, channels)`, normalised.
            names: see `vit_deploy.core.outputs`.
            training: whether some values are dropped.

        Raises:
            ConfigError: names that this model does not have, an attention that a fused kernel computes, or one of a
                symbolic input.
        """
        return outputs_by_name(self, images, outputs_of_model(names, self.config), training)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """`(batch, classes)`, `(batch, width of the vector)` or `(batch, tokens, embed dim)`."""
        return (input_shape[0], *self.config.output_shape)

    def compute_output_spec(self, images: Any, training: bool | None = None) -> Any:
        """The symbolic output; the head's type is not that of the blocks in mixed precision."""
        dtype = self.compute_dtype if self.head is None else self.head.compute_dtype
        return keras.KerasTensor(self.compute_output_shape(images.shape), dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as plain values."""
        base: dict[str, Any] = super().get_config()
        return base | arguments_of(self)

    def canonical_variables(self) -> dict[str, Any]:
        """Every variable by its canonical name, in the order in which the network uses them.

        The states of the random generators are not among them: the function does not depend on them.
        """
        return canonical_variables(self)

    def to_checkpoint(self) -> Checkpoint:
        """Config, weights as float32 NumPy arrays, and all that travels with the model."""
        return checkpoint_of(self)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, **options: Any) -> ViT:
        """A model with the checkpoint's weights; `options` are the constructor's that its config leaves open."""
        model = cls.from_structure(
            checkpoint.config,
            preprocess=checkpoint.preprocess,
            labels=checkpoint.labels,
            provenance=checkpoint.provenance,
            ranges=checkpoint.ranges,
            **options,
        )
        for name, variable in model.canonical_variables().items():
            variable.assign(checkpoint.weights[name])
        return model

    @classmethod
    def from_structure(cls, config: ViTConfig, **options: Any) -> ViT:
        """A model of this config whose kernels are zero, for weights that come from elsewhere."""
        plain = config.to_dict()
        shape = (*plain.pop("image_size"), plain.pop("channels"))
        attention_args = {"qkv_bias": plain.pop("qkv_bias"), **options.pop("attention_args", {})}
        return cls(input_shape=shape, attention_args=attention_args, seed=None, **plain, **options)

    def summary_detailed(self, print_fn: Callable[[str], Any] = print) -> None:
        """Print each part with its output shape, parameters and multiply-accumulates an image."""
        for line in summary_lines(self.name, self.config):
            print_fn(line)
