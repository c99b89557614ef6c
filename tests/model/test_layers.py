from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from vit_deploy.core.activation_functions import ACTIVATIONS as REFERENCE_ACTIVATIONS
from vit_deploy.core.choices import Activation
from vit_deploy.core.config import ViTConfig
from vit_deploy.model.attention import Attention
from vit_deploy.model.block import TransformerBlock
from vit_deploy.model.feed_forward import ACTIVATIONS, FeedForward
from vit_deploy.model.layers import (
    LayerScale,
    PatchEmbedding,
    PositionEmbedding,
    PrefixTokens,
    PreLogits,
    Projection,
)
from vit_deploy.model.map_pooling import MapPooling
from vit_deploy.model.norms import Norm, PreNorm
from vit_deploy.model.options import SeededTruncatedNormal, WeightOptions
from vit_deploy.model.vit import ViT

CONFIG = ViTConfig(
    image_size=(24, 32),
    patch_size=(8, 4),
    channels=3,
    embed_dim=12,
    num_heads=3,
    num_layers=2,
    mlp_dim=20,
    num_classes=5,
)
TOKENS = np.random.default_rng(0).standard_normal((2, 25, 12)).astype(np.float32)


def as_array(tensor: Any) -> NDArray[Any]:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


LAYERS = [
    lambda: Projection(7, name="projection"),
    lambda: Projection(7, use_bias=False, kernel_regularizer="l2"),
    lambda: PatchEmbedding(12, (8, 4)),
    lambda: PrefixTokens(CONFIG, WeightOptions(seed=3)),
    lambda: PrefixTokens(CONFIG.replace(class_token=False, pooling="mean", register_tokens=3)),
    LayerScale,
    lambda: PreNorm("rms_norm", 1e-3),
    lambda: PreLogits(7),
    lambda: Attention(12, 3, qk_norm="rms_norm", epsilon=1e-3),
    lambda: TransformerBlock(CONFIG.replace(layer_scale=True, qk_norm=True), name="block_1", dtype="mixed_bfloat16"),
    lambda: MapPooling(CONFIG.replace(activation="gelu_tanh"), dtype="mixed_float16"),
    lambda: MapPooling(CONFIG, WeightOptions(seed=3)),
    lambda: PositionEmbedding("ones", dropout_rate=0.25),
    lambda: Norm("layer_norm", 1e-3),
    lambda: Norm("rms_norm"),
    lambda: Norm("dynamic_tanh"),
    lambda: Norm("band_rms"),
    lambda: Attention(12, 3, qkv_bias=False, dropout_rate=0.5),
    lambda: Attention(12, 3, flash_attention=None, weights=WeightOptions(seed=3), prefix="block_7.attention"),
    lambda: FeedForward(12, 20),
    lambda: FeedForward(12, 20, ffn_type="swiglu", dropout_rate=0.5),
    lambda: TransformerBlock(CONFIG, 0.1, 0.2, 0.3, name="block_1"),
    lambda: TransformerBlock(CONFIG.replace(ffn_type="glu", normalization_position="post"), dtype="mixed_float16"),
]


@pytest.mark.parametrize("make", LAYERS, ids=lambda make: type(make()).__name__)
def test_a_layer_can_be_made_again_from_its_config(make: Any) -> None:
    layer = make()
    inputs = np.ones((2, 24, 32, 3), np.float32) if isinstance(layer, PatchEmbedding) else TOKENS
    expected = as_array(layer(inputs))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    assert again.compute_output_shape(inputs.shape) == tuple(expected.shape)
    assert again(inputs).dtype == layer(inputs).dtype
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(as_array(again(inputs)), expected)


@pytest.mark.parametrize("kind", Activation)
def test_an_activation_is_that_of_the_reference(kind: Activation) -> None:
    x = np.concatenate([np.linspace(-9, 9, 361), [-40.0, 40.0]])
    found = as_array(ACTIVATIONS[kind](keras.ops.convert_to_tensor(x, "float32")))
    np.testing.assert_allclose(found, REFERENCE_ACTIVATIONS[kind](x), rtol=1e-5, atol=2e-6)


def test_a_projection_multiplies_vectors_and_sequences_alike() -> None:
    layer = Projection(7, bias_initializer="ones")
    layer.build(TOKENS.shape)
    kernel, bias = (as_array(variable) for variable in (layer.kernel, layer.bias))
    np.testing.assert_allclose(as_array(layer(TOKENS)), TOKENS @ kernel + bias, atol=1e-5)
    np.testing.assert_allclose(as_array(layer(TOKENS[:, 0])), TOKENS[:, 0] @ kernel + bias, atol=1e-5)


def test_the_patch_embedding_is_a_convolution_with_its_own_stride() -> None:
    layer = PatchEmbedding(12, (8, 4), bias_initializer="ones")
    images = np.random.default_rng(1).standard_normal((2, 24, 32, 3)).astype(np.float32)
    found = as_array(layer(images))
    plain = keras.layers.Conv2D(12, (8, 4), strides=(8, 4), data_format="channels_last")
    plain.build((None, 24, 32, 3))
    plain.set_weights([as_array(layer.kernel), as_array(layer.bias)])
    np.testing.assert_allclose(found, as_array(plain(images)).reshape(2, 24, 12), rtol=0, atol=1e-5)


def test_the_patch_embedding_does_not_ask_the_users_default_for_the_layout() -> None:
    layer = PatchEmbedding(12, (8, 4))
    images = np.random.default_rng(1).standard_normal((2, 24, 32, 3)).astype(np.float32)
    expected = as_array(layer(images))
    default = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        found = as_array(layer(images))
    finally:
        keras.config.set_image_data_format(default)
    np.testing.assert_array_equal(found, expected)


def test_the_prefix_tokens_stand_in_their_order_in_front_of_untouched_patches() -> None:
    layer = PrefixTokens(CONFIG.replace(distillation_token=True, register_tokens=2))
    layer.build(TOKENS.shape)
    names = [variable.name for variable in layer.weights]
    assert names == ["class", "distillation", "registers"]
    for value, variable in enumerate(layer.weights, start=7):
        variable.assign(np.full(variable.shape, value, np.float32))
    found = as_array(layer(TOKENS))
    for token, value in enumerate((7, 8, 9, 9)):
        assert (found[:, token] == value).all()
    np.testing.assert_array_equal(found[:, 4:], TOKENS)


def test_layer_norm_is_that_of_keras() -> None:
    ours, theirs = Norm("layer_norm", 1e-4), keras.layers.LayerNormalization(epsilon=1e-4)
    for layer in (ours, theirs):
        layer.build((None, 25, 12))
        layer.set_weights([np.linspace(0.5, 2, 12), np.linspace(-1, 1, 12)])
    np.testing.assert_allclose(as_array(ours(TOKENS)), as_array(theirs(TOKENS)), rtol=0, atol=2e-6)


def test_rms_norm_is_that_of_keras() -> None:
    ours, theirs = Norm("rms_norm", 1e-4), keras.layers.RMSNormalization(epsilon=1e-4)
    for layer in (ours, theirs):
        layer.build((None, 25, 12))
        layer.set_weights([np.linspace(0.5, 2, 12)])
    np.testing.assert_allclose(as_array(ours(TOKENS)), as_array(theirs(TOKENS)), rtol=0, atol=2e-6)


def test_dynamic_tanh_starts_with_an_alpha_of_one_half() -> None:
    np.testing.assert_allclose(as_array(Norm("dynamic_tanh")(TOKENS)), np.tanh(0.5 * TOKENS), rtol=0, atol=1e-6)


def test_band_rms_starts_in_the_upper_half_of_its_band() -> None:
    rms = np.sqrt((TOKENS**2).mean(axis=-1, keepdims=True))
    np.testing.assert_allclose(as_array(Norm("band_rms")(TOKENS)), TOKENS / rms * 0.95, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["layer_norm", "rms_norm", "band_rms"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16", "mixed_bfloat16"])
def test_a_norm_in_half_precision_does_not_overflow(kind: str, dtype: str) -> None:
    layer = Norm(kind, dtype=dtype)
    found = layer(TOKENS * 3e4 / np.abs(TOKENS).max())
    assert keras.backend.standardize_dtype(found.dtype) == dtype.removeprefix("mixed_")
    single = as_array(Norm(kind)(TOKENS * 3e4 / np.abs(TOKENS).max()))
    difference = np.abs(as_array(keras.ops.cast(found, "float32")) - single).max()
    assert difference < (0.005 if dtype.endswith("float16") and "bfloat" not in dtype else 0.05)


def test_attention_is_that_of_keras() -> None:
    ours = Attention(12, 3, weights=WeightOptions(bias_initializer="random_normal", kernel_initializer="he_normal"))
    found = as_array(ours(TOKENS))
    theirs = keras.layers.MultiHeadAttention(3, 4)
    theirs.build(TOKENS.shape, TOKENS.shape)
    weights = []
    for projection in (ours.query, ours.key, ours.value):
        weights += [as_array(projection.kernel).reshape(12, 3, 4), as_array(projection.bias).reshape(3, 4)]
    theirs.set_weights([*weights, as_array(ours.out.kernel).reshape(3, 4, 12), as_array(ours.out.bias)])
    np.testing.assert_allclose(found, as_array(theirs(TOKENS, TOKENS)), rtol=0, atol=1e-5)


def test_a_layer_stores_its_variables_by_name_and_refuses_others(tmp_path: Any) -> None:
    layer = Norm("layer_norm")
    layer.build((None, 25, 12))
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    assert list(store) == ["scale", "bias"]
    with pytest.raises(ValueError, match=r"holds \['scale'\], the file holds \['bias', 'scale'\]"):
        other = Norm("rms_norm")
        other.build((None, 25, 12))
        other.load_own_variables(store)


def test_a_custom_initializer_starts_every_kernel_and_no_two_alike() -> None:
    model = ViT((24, 32, 3), 5, "pico", (8, 4), num_layers=1, kernel_initializer="he_uniform", bias_initializer="ones")
    arrays = {name: as_array(variable) for name, variable in model.canonical_variables().items()}
    query, key = arrays["block_0.attention.query.kernel"], arrays["block_0.attention.key.kernel"]
    limit = np.sqrt(6 / 192)
    assert 0.99 * limit < np.abs(query).max() <= limit
    assert (query != key).any()
    assert all((arrays[name] == 1).all() for name in arrays if name.endswith("bias") and "norm" not in name)
    assert np.abs(arrays["pos_embed.table"]).max() <= 0.04
    assert model.provenance == ()


def test_an_initializer_may_be_a_function() -> None:
    def halves(shape: tuple[int, ...], dtype: Any = None) -> Any:
        return keras.ops.full(shape, 0.5, dtype)

    model = ViT((24, 32, 3), 5, "pico", (8, 4), num_layers=1, kernel_initializer=halves)
    assert (as_array(model.head.kernel) == 0.5).all()


def test_the_seeded_initializer_survives_its_config() -> None:
    initializer = SeededTruncatedNormal("head.kernel", 5)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(initializer))
    np.testing.assert_array_equal(as_array(initializer((3, 4))), as_array(again((3, 4))))


def test_regularizers_add_a_loss_for_every_kernel_and_for_every_bias() -> None:
    tiny: dict[str, Any] = {"input_shape": (24, 32, 3), "patch_size": (8, 4), "num_classes": 5, "num_layers": 2}
    model = ViT(scale="pico", **tiny, kernel_regularizer=keras.regularizers.L2(0.1), bias_regularizer="l1")
    kernels = [as_array(value) for name, value in model.canonical_variables().items() if name.endswith("kernel")]
    assert len(model.losses) == len(kernels) + (2 * 6 + 2)
    expected = sum(0.1 * (kernel.astype(np.float64) ** 2).sum() for kernel in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-4)
    assert ViT(scale="pico", **tiny).losses == []
