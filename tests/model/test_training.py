from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from vit_deploy.model.block import TransformerBlock
from vit_deploy.model.vit import ViT

TINY: dict[str, Any] = {
    "input_shape": (8, 12, 1),
    "patch_size": (4, 3),
    "num_classes": 2,
    "embed_dim": 12,
    "num_heads": 3,
    "num_layers": 2,
    "mlp_dim": 20,
}
Data = tuple[NDArray[np.float32], NDArray[np.int64]]


def as_array(tensor: Any) -> NDArray[Any]:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


@pytest.fixture(scope="module")
def data() -> Data:
    """Images whose upper or whose lower half is bright."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 96)
    images = 0.3 * rng.standard_normal((96, 8, 12, 1)).astype(np.float32)
    images[labels == 0, :4] += 1
    images[labels == 1, 4:] += 1
    return images, labels


def compiled(model: Any, rate: float = 3e-3, **options: Any) -> Any:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # XLA takes longer to compile these models than they take to train.
    options = {"jit_compile": False} | options
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"], **options)
    return model


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param(
            {"pooling": "mean", "normalization_type": "rms_norm", "ffn_type": "swiglu", "dropout_rate": 0.1}, marks=SLOW
        ),
        pytest.param({"pooling": "max", "normalization_type": "dynamic_tanh", "ffn_type": "geglu"}, marks=SLOW),
        pytest.param({"normalization_type": "band_rms", "ffn_type": "glu", "stochastic_depth_rate": 0.1}, marks=SLOW),
        pytest.param({"normalization_position": "post", "activation": "relu"}, marks=SLOW),
        pytest.param({"attention_args": {"flash_attention": None, "qkv_bias": False}}, marks=SLOW),
    ],
    ids=lambda options: "-".join(map(str, options.values())) or "default",
)
def test_it_learns_what_can_be_learned(data: Data, options: dict[str, Any]) -> None:
    keras.utils.set_random_seed(0)
    after = options.get("normalization_position") == "post"
    # After-norms want a lower rate (Xiong et al. 2020), and more time.
    # TensorFlow compiles one block in half the time; the depth is stochastic from the second on.
    depth = TINY["num_layers"] if "stochastic_depth_rate" in options or after else 1
    rate, epochs = (3e-3, 24) if after else (1e-2, 8)
    model = compiled(ViT(**TINY | options | {"num_layers": depth}), rate)
    history = model.fit(*data, batch_size=16, epochs=epochs, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert model.evaluate(*data, verbose=0)[1] > 0.95


@pytest.mark.parametrize(
    ("kind", "ffn_type"),
    [("layer_norm", "mlp"), ("dynamic_tanh", "swiglu"), ("band_rms", "glu"), ("rms_norm", "geglu")],
)
def test_every_trainable_weight_gets_a_gradient_and_moves(data: Data, kind: str, ffn_type: str) -> None:
    model = compiled(ViT(**TINY, normalization_type=kind, ffn_type=ffn_type), run_eagerly=True)
    before = {name: as_array(variable).copy() for name, variable in model.canonical_variables().items()}
    model.fit(*data, batch_size=48, epochs=1, verbose=0)
    still = [
        name for name, variable in model.canonical_variables().items() if (as_array(variable) == before[name]).all()
    ]
    # The softmax does not see a constant added to all its scores: the key's bias has no gradient but rounding.
    assert [name for name in still if not name.endswith("key.bias")] == []


@pytest.mark.slow
def test_it_trains_as_compile_has_it_by_default(data: Data) -> None:
    model = compiled(ViT(**TINY), jit_compile="auto")
    assert model.fit(*data, batch_size=48, epochs=1, verbose=0).history["loss"][0] < 1


@pytest.mark.slow
def test_as_a_frozen_backbone_only_the_new_head_changes(data: Data) -> None:
    backbone = ViT(**TINY, include_top=False, pooling="cls")
    backbone.trainable = False
    model = compiled(keras.Sequential([keras.Input((8, 12, 1)), backbone, keras.layers.Dense(2)]), 1e-2)
    assert [variable.path for variable in model.trainable_variables] == [w.path for w in model.layers[-1].weights]
    frozen = [value.copy() for value in backbone.get_weights()]
    head = [value.copy() for value in model.layers[-1].get_weights()]
    history = model.fit(*data, batch_size=16, epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    for before, after in zip(frozen, backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert (head[0] != model.layers[-1].get_weights()[0]).any()


def test_unfreezing_the_last_block_trains_it_alone(data: Data) -> None:
    model = ViT(**TINY)
    model.trainable = False
    model.transformer_layers[-1].trainable = True
    names = {name for name, variable in model.canonical_variables().items() if variable.trainable}
    assert names == {name for name in model.canonical_variables() if name.startswith("block_1.")}


@pytest.mark.slow  # that it is near single precision is quick
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_it_trains_in_mixed_precision_with_weights_and_logits_in_float32(data: Data, policy: str) -> None:
    keras.utils.set_random_seed(0)
    model = compiled(ViT(**TINY, dtype=policy, dropout_rate=0.1, stochastic_depth_rate=0.1, attention_dropout_rate=0.1))
    assert keras.backend.standardize_dtype(model(data[0][:2]).dtype) == "float32"
    assert {keras.backend.standardize_dtype(w.dtype) for w in model.canonical_variables().values()} == {"float32"}
    history = model.fit(*data, batch_size=16, epochs=6, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < 0.7 * history["loss"][0]


def test_mixed_precision_is_near_single_precision() -> None:
    images = np.random.default_rng(0).standard_normal((4, 8, 12, 1)).astype(np.float32)
    single = as_array(ViT(**TINY)(images))
    half = as_array(ViT(**TINY, dtype="mixed_float16")(images))
    assert 0 < np.abs(half - single).max() < 0.02 * np.abs(single).max() + 1e-3


def test_the_global_policy_is_taken_over() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = ViT(**TINY, include_top=False)
    finally:
        keras.config.set_dtype_policy("float32")
    assert keras.backend.standardize_dtype(model(np.zeros((1, 8, 12, 1), np.float32)).dtype) == "float16"


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["layer_norm", "rms_norm", "dynamic_tanh", "band_rms"])
def test_the_whole_model_can_have_another_type(dtype: str, kind: str) -> None:
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX computes in float32 unless it is told otherwise")
    model = ViT(**TINY, dtype=dtype, normalization_type=kind)
    outputs = model(np.ones((1, 8, 12, 1), dtype if dtype != "bfloat16" else np.float32))
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype
    assert keras.backend.standardize_dtype(model(keras.Input((8, 12, 1))).dtype) == dtype
    assert {keras.backend.standardize_dtype(w.dtype) for w in model.canonical_variables().values()} == {dtype}
    assert np.isfinite(as_array(keras.ops.cast(outputs, "float32"))).all()
    assert {value.dtype for value in model.to_checkpoint().weights.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    "rate", ["dropout_rate", "attention_dropout_rate", "pos_dropout_rate", "stochastic_depth_rate"]
)
def test_dropout_is_active_while_training_and_only_then(rate: str) -> None:
    images = np.random.default_rng(0).standard_normal((4, 8, 12, 1)).astype(np.float32)
    plain, dropping = ViT(**TINY), ViT(**TINY, **{rate: 0.5})
    expected = as_array(plain(images))
    for training in (False, None):
        np.testing.assert_array_equal(as_array(dropping(images, training=training)), expected)
    np.testing.assert_array_equal(dropping.predict(images, verbose=0), plain.predict(images, verbose=0))
    first, second = (as_array(dropping(images, training=True)) for _ in range(2))
    assert (first != expected).any()
    assert (first != second).any()
    np.testing.assert_array_equal(as_array(plain(images, training=True)), expected)


def _halves(block: TransformerBlock, x: Any) -> Any:
    return as_array(block(x, training=True))


def test_stochastic_depth_skips_a_half_for_a_whole_image_and_scales_the_others() -> None:
    config = ViT(**TINY).config.replace(normalization_type="rms_norm")
    block = TransformerBlock(config, stochastic_depth_rate=0.25, name="block_0")
    x = np.tile(np.random.default_rng(0).standard_normal((1, 5, 12)).astype(np.float32), (4000, 1, 1))
    # Only the feed-forward has an effect, and its output is the same for every image.
    block.build((None, 5, 12))
    block.attention.out.kernel.assign(np.zeros((12, 12)))
    block.ffn.down.bias.assign(np.ones(12))
    change = _halves(block, x) - x
    skipped = (change == 0).all(axis=(1, 2))
    assert (skipped == (change == 0).any(axis=(1, 2))).all()
    assert abs(skipped.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)
    kept = as_array(block(x[:1], training=False)) - x[:1]
    np.testing.assert_allclose(
        change[~skipped], np.broadcast_to(kept / 0.75, change[~skipped].shape), rtol=0, atol=1e-5
    )


def test_stochastic_depth_grows_linearly_from_none_to_the_rate() -> None:
    model = ViT(**TINY | {"num_layers": 5}, stochastic_depth_rate=0.2)
    rates = [block.stochastic_depth_rate for block in model.transformer_layers]
    np.testing.assert_allclose(rates, [0, 0.05, 0.1, 0.15, 0.2])
    assert ViT(**TINY | {"num_layers": 1}, stochastic_depth_rate=0.2).transformer_layers[0].stochastic_depth_rate == 0


def test_dropout_keeps_the_mean() -> None:
    model = ViT(**TINY, pos_dropout_rate=0.3)
    x = np.ones((400, 9, 12), np.float32)
    dropped = as_array(model.pos_embed(x, training=True))
    whole = as_array(model.pos_embed(x, training=False))
    assert abs((dropped == 0).mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / dropped.size)
    np.testing.assert_allclose(dropped[dropped != 0], (whole / 0.7)[dropped != 0], rtol=1e-5)


def test_attention_dropout_falls_on_the_attention_weights() -> None:
    # With values that are all one, the output of a head is the sum of its weights: 1 without dropout.
    layer = ViT(**TINY, attention_dropout_rate=0.5).transformer_layers[0].attention
    layer.value.kernel.assign(np.zeros((12, 12)))
    layer.value.bias.assign(np.ones(12))
    layer.out.kernel.assign(np.eye(12))
    x = np.random.default_rng(0).standard_normal((500, 9, 12)).astype(np.float32)
    np.testing.assert_allclose(as_array(layer(x)), 1, atol=1e-5)
    sums = as_array(layer(x, training=True)).reshape(500, 9, 3, 4)
    np.testing.assert_allclose(sums, sums[..., :1].repeat(4, axis=-1), atol=1e-5)
    assert sums.std() > 0.1
    assert abs(sums.mean() - 1) < 0.02


def test_regularizers_are_in_the_loss_that_is_trained(data: Data) -> None:
    plain, held = (compiled(ViT(**TINY, kernel_regularizer=each)) for each in (None, keras.regularizers.L2(0.5)))
    difference = held.evaluate(*data, verbose=0)[0] - plain.evaluate(*data, verbose=0)[0]
    kernels = [as_array(value) for name, value in held.canonical_variables().items() if name.endswith("kernel")]
    assert difference == pytest.approx(0.5 * sum((kernel**2).sum() for kernel in kernels), rel=1e-3)
