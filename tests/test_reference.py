"""The reference against definitions that share no line with it: loops, SciPy, PyTorch, timm."""

from __future__ import annotations

import dataclasses
import itertools
import math
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import scipy.special
from numpy.typing import NDArray

from tests.features import FAMILIES
from tests.peers.timm_models import timm_model
from vit_deploy.checkpoint import Checkpoint
from vit_deploy.config import Activation, FFNType, NormalizationType, ViTConfig
from vit_deploy.reference import ACTIVATIONS, erf, forward, gelu, softmax

Array = NDArray[Any]

TOKEN_KINDS = ("class", "distillation", "registers")
SCALAR_ACTIVATIONS: Mapping[str, Callable[[float], float]] = {
    "gelu": lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "leaky_relu": lambda x: x if x > 0 else 0.2 * x,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "silu": lambda x: x / (1 + math.exp(-x)),
    "hard_silu": lambda x: x * min(max(x / 6 + 0.5, 0.0), 1.0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
}


def loop_norm(token: Array, name: str, config: ViTConfig, w: Mapping[str, Array]) -> Array:
    """One token's."""
    match config.normalization_type:
        case "layer_norm":
            mean = sum(token) / len(token)
            variance = sum((value - mean) ** 2 for value in token) / len(token)
            unit = (token - mean) / math.sqrt(variance + config.epsilon)
            return unit * w[f"{name}.scale"] + w[f"{name}.bias"]
        case "dynamic_tanh":
            alpha = float(w[f"{name}.alpha"])
            return np.array([math.tanh(alpha * v) for v in token]) * w[f"{name}.scale"] + w[f"{name}.bias"]
        case kind:
            unit = token / math.sqrt(sum(value**2 for value in token) / len(token) + config.epsilon)
            if kind == "rms_norm":
                return unit * w[f"{name}.scale"]
            band = float(w[f"{name}.band"])
            return unit * (1 - 0.1 + 0.1 / (1 + math.exp(-5 * band)))


def loop_pool(tokens: list[Array], prefix: int, pooling: str) -> Array:
    """One vector of the tokens of one image."""
    patches = tokens[prefix:]
    mean = sum(patches) / len(patches)
    ways = {
        "cls": lambda: tokens[0],
        "mean": lambda: mean,
        "max": lambda: np.array(patches).max(axis=0),
        "cls_distillation": lambda: np.array([*tokens[0], *tokens[1]]),
        "cls_mean": lambda: np.array([*tokens[0], *mean]),
    }
    return ways[pooling]()


def loop_patches(image: Array, config: ViTConfig, w: Mapping[str, Array]) -> list[Array]:
    """The patch tokens of one image."""
    height, width = config.patch_size
    tokens = []
    for row in range(config.image_size[0] // height):
        for column in range(config.image_size[1] // width):
            patch = image[row * height : (row + 1) * height, column * width : (column + 1) * width]
            token = w["patch_embed.bias"].copy()
            for y, x, c in np.ndindex(patch.shape):
                token += patch[y, x, c] * w["patch_embed.kernel"][y, x, c]
            tokens.append(token)
    return tokens


def loop_forward(checkpoint: Checkpoint, image: Array) -> Array:
    """One image, one token, one head and one number at a time, as the papers write it."""
    config, w = checkpoint.config, {name: value.astype(np.float64) for name, value in checkpoint.weights.items()}
    tokens = [token for kind in TOKEN_KINDS for token in w.get(f"class_token.{kind}", ())]
    prefix = len(tokens)
    tokens += loop_patches(image, config, w)
    tokens = [token + position for token, position in zip(tokens, w["pos_embed.table"], strict=True)]

    def norm(token: Array, name: str) -> Array:
        return loop_norm(token, name, config, w)

    def dense(token: Array, name: str) -> Array:
        out = np.array([token @ column for column in w[f"{name}.kernel"].T])
        return out + w[f"{name}.bias"] if f"{name}.bias" in w else out

    def head_of(token: Array, part: slice, name: str) -> Array:
        return norm(token[part], name) if config.qk_norm and "map_pool" not in name else token[part]

    def attention(asking: list[Array], sequence: list[Array], name: str) -> list[Array]:
        query = [dense(token, f"{name}.query") for token in asking]
        key, value = ([dense(token, f"{name}.{role}") for token in sequence] for role in ("key", "value"))
        size = config.embed_dim // config.num_heads
        mixed = [np.zeros(config.embed_dim) for _ in asking]
        for head in range(config.num_heads):
            part = slice(head * size, (head + 1) * size)
            keys = [head_of(k, part, f"{name}.key_norm") for k in key]
            for index, q in enumerate(head_of(q, part, f"{name}.query_norm") for q in query):
                scores = [math.exp(q @ k / math.sqrt(size)) for k in keys]
                for score, v in zip(scores, value, strict=True):
                    mixed[index][part] += score / sum(scores) * v[part]
        return [dense(token, f"{name}.out") for token in mixed]

    def feed_forward(token: Array, name: str, ffn_type: str = config.ffn_type) -> Array:
        hidden = dense(token, f"{name}.up")
        if ffn_type == "mlp":
            hidden = np.array([SCALAR_ACTIVATIONS[config.activation](value) for value in hidden])
        else:
            opened = SCALAR_ACTIVATIONS[{"swiglu": "silu", "geglu": "gelu", "glu": "sigmoid"}[ffn_type]]
            hidden = hidden * np.array([opened(value) for value in dense(token, f"{name}.gate")])
        return dense(hidden, f"{name}.down")

    tokens = [norm(token, "pre_norm") for token in tokens] if config.pre_norm else tokens
    for index in range(config.num_layers):
        block = f"block_{index}"
        for half in ("attention", "ffn"):
            name = f"{block}.{'norm1' if half == 'attention' else 'norm2'}"
            pre = config.normalization_position == "pre"
            inputs = [norm(token, name) for token in tokens] if pre else tokens
            if half == "attention":
                outputs = attention(inputs, inputs, f"{block}.attention")
            else:
                outputs = [feed_forward(token, f"{block}.ffn") for token in inputs]
            if config.layer_scale:
                gamma = w[f"{block}.scale{1 if half == 'attention' else 2}.gamma"]
                outputs = [output * gamma for output in outputs]
            tokens = [token + output for token, output in zip(tokens, outputs, strict=True)]
            tokens = tokens if pre else [norm(token, name) for token in tokens]
    tokens = tokens if config.norm_after_pooling else [norm(token, "norm") for token in tokens]
    pooling = config.pooling or ("cls" if config.include_top else None)
    if pooling is None:
        return np.array(tokens)
    if pooling == "map":
        (pooled,) = attention(list(w["map_pool.probe"]), tokens, "map_pool.attention")
        pooled = pooled + feed_forward(norm(pooled, "map_pool.norm"), "map_pool.ffn", "mlp")
    else:
        pooled = loop_pool(tokens, prefix, pooling)
    pooled = norm(pooled, "norm") if config.norm_after_pooling else pooled
    if config.pre_logits_dim:
        pooled = np.array([math.tanh(value) for value in dense(pooled, "pre_logits")])
    return dense(pooled, "head") if config.include_top else pooled


VARIANTS: list[dict[str, Any]] = [
    *(
        {"normalization_type": kind, "normalization_position": position}
        for kind, position in itertools.product(NormalizationType, ("pre", "post"))
    ),
    *({"ffn_type": kind} for kind in FFNType),
    *({"activation": kind} for kind in Activation),
    *({"pooling": kind, "include_top": top} for kind in (None, "cls", "mean", "max") for top in (True, False)),
    {"qkv_bias": False},
    {"epsilon": 0.01},
    {"epsilon": 0.01, "normalization_type": "band_rms"},
    {"channels": 1, "image_size": (16, 4), "num_layers": 1, "num_heads": 1},
    *FAMILIES.values(),
]


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: "-".join(map(str, changes.values())))
def test_the_reference_is_what_loops_over_tokens_and_heads_compute(
    make_checkpoint: Callable[..., Checkpoint], changes: dict[str, Any]
) -> None:
    checkpoint = make_checkpoint(**({"image_size": (16, 12)} | changes))
    config = checkpoint.config
    images = np.random.default_rng(2).standard_normal((2, *config.image_size, config.channels))
    expected = np.stack([loop_forward(checkpoint, image) for image in images])
    found = forward(checkpoint, images)
    assert found.dtype == np.float64
    assert found.shape == (2, *config.output_shape)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


def test_the_two_images_of_a_batch_do_not_touch_each_other(checkpoint: Checkpoint, images: Array) -> None:
    together = forward(checkpoint, images)
    alone = np.concatenate([forward(checkpoint, images[i : i + 1]) for i in range(len(images))])
    np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-14)


def test_erf_is_scipys_to_the_last_digits() -> None:
    x = np.concatenate([np.linspace(-8, 8, 100_001), np.logspace(-320, 0, 500), [0.0, np.inf, -np.inf, 5.9999, 6.0001]])
    np.testing.assert_allclose(erf(x), scipy.special.erf(x), rtol=4e-16, atol=4e-16)
    assert np.isnan(erf(np.array([np.nan]))).all()


def test_erf_keeps_shape_precision_and_sign_of_zero() -> None:
    x = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4)
    assert erf(x).dtype == np.float32
    np.testing.assert_allclose(erf(x), scipy.special.erf(x.astype(np.float64)), rtol=0, atol=6e-8)
    assert erf(np.array([])).shape == (0,)
    assert np.signbit(erf(np.array([-0.0])))[0]


def test_erf_of_more_numbers_than_one_block_of_work() -> None:
    x = np.random.default_rng(0).normal(0, 2, (3, 1 << 16))
    np.testing.assert_allclose(erf(x), scipy.special.erf(x), rtol=0, atol=4e-16)


@pytest.mark.parametrize("kind", Activation)
def test_an_activation_is_its_textbook_formula(kind: Activation) -> None:
    x = np.concatenate([np.linspace(-9, 9, 181), [0.0, 6.0, -3.0, 3.0]])
    expected = [SCALAR_ACTIVATIONS[kind](float(value)) for value in x]
    np.testing.assert_allclose(ACTIVATIONS[kind](x), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("kind", Activation)
def test_an_activation_neither_overflows_nor_leaves_its_precision(kind: Activation) -> None:
    for dtype in (np.float32, np.float64):
        with np.errstate(all="raise", under="ignore"):
            result = ACTIVATIONS[kind](np.array([-1e4, -100, 0, 100, 1e4], dtype))
        assert result.dtype == dtype
        assert np.isfinite(result).all()


def test_the_exact_gelu_is_not_the_tanh_one() -> None:
    x = np.linspace(-4, 4, 101)
    np.testing.assert_allclose(gelu(x), x * scipy.special.ndtr(x), rtol=1e-13, atol=1e-15)
    assert 1e-4 < np.abs(gelu(x) - ACTIVATIONS[Activation.GELU_TANH](x)).max() < 1e-3


def test_softmax_is_scipys_and_a_constant_added_to_the_scores_changes_nothing() -> None:
    scores = np.random.default_rng(0).normal(0, 3, (2, 3, 5))
    np.testing.assert_allclose(softmax(scores), scipy.special.softmax(scores, axis=-1), rtol=1e-13)
    np.testing.assert_allclose(softmax(scores + 123.0), softmax(scores), rtol=1e-12)
    assert np.isfinite(softmax(np.array([[1e300, -1e300, 0.0]]))).all()


def test_a_constant_key_adds_one_number_to_all_scores_of_a_query_and_changes_nothing(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    checkpoint = make_checkpoint()
    weights = dict(checkpoint.weights)
    weights["block_0.attention.key.bias"] = weights["block_0.attention.key.bias"] + np.float32(0.7)
    shifted = dataclasses.replace(checkpoint, weights=weights)
    np.testing.assert_allclose(forward(shifted, images), forward(checkpoint, images), rtol=1e-9, atol=1e-12)
    weights["block_0.attention.query.bias"] = weights["block_0.attention.query.bias"] + np.float32(0.7)
    other = dataclasses.replace(checkpoint, weights=weights)
    assert np.abs(forward(other, images) - forward(checkpoint, images)).max() > 1e-3


def test_patches_permuted_with_their_positions_leave_the_class_logits_unchanged(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    checkpoint = make_checkpoint()
    config, order = checkpoint.config, np.random.default_rng(0).permutation(24)
    (rows, columns), (height, width) = config.grid, config.patch_size
    cut = (
        images.reshape(-1, rows, height, columns, width, 3)
        .transpose(0, 1, 3, 2, 4, 5)
        .reshape(-1, 24, height, width, 3)
    )
    shuffled = (
        cut[:, order].reshape(-1, rows, columns, height, width, 3).transpose(0, 1, 3, 2, 4, 5).reshape(images.shape)
    )
    weights = dict(checkpoint.weights)
    weights["pos_embed.table"] = weights["pos_embed.table"][np.concatenate([[0], 1 + order])]
    moved = dataclasses.replace(checkpoint, weights=weights)
    expected = forward(checkpoint, images)
    np.testing.assert_allclose(forward(moved, shuffled), expected, rtol=1e-9, atol=1e-12)
    assert np.abs(forward(checkpoint, shuffled) - expected).max() > 1e-3


def changed(checkpoint: Checkpoint, weights: Mapping[str, Array]) -> Checkpoint:
    """With some weights in the place of others."""
    exact = {name: np.asarray(value, np.float32) for name, value in weights.items()}
    return dataclasses.replace(checkpoint, weights=dict(checkpoint.weights) | exact)


def test_a_layer_scale_of_one_is_none_and_of_zero_leaves_the_tokens_as_they_came(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    scaled, plain = make_checkpoint(layer_scale=True), make_checkpoint()
    shared = {name: scaled.weights[name] for name in plain.weights}
    gammas = [name for name in scaled.weights if name.endswith("gamma")]
    ones = changed(scaled, {name: np.ones(12) for name in gammas})
    np.testing.assert_array_equal(forward(ones, images), forward(changed(plain, shared), images))

    seen: dict[str, Array] = {}
    forward(changed(scaled, {name: np.zeros(12) for name in gammas}), images, tap=seen.__setitem__)
    np.testing.assert_array_equal(seen["block_1.ffn"], seen["pos_embed"])


def test_normalized_queries_and_keys_do_not_see_how_long_they_were(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    checkpoint = make_checkpoint(qk_norm=True, normalization_type="rms_norm", qkv_bias=False, epsilon=1e-15)
    names = [f"block_{index}.attention.{role}.kernel" for index in (0, 1) for role in ("query", "key")]
    longer = changed(checkpoint, {name: 8 * checkpoint.weights[name] for name in names})
    np.testing.assert_allclose(forward(longer, images), forward(checkpoint, images), rtol=1e-9, atol=1e-12)
    plain = dataclasses.replace(
        checkpoint,
        config=checkpoint.config.replace(qk_norm=False),
        weights={name: value for name, value in checkpoint.weights.items() if "_norm." not in name},
    )
    longer = changed(plain, {name: 8 * plain.weights[name] for name in names})
    assert np.abs(forward(longer, images) - forward(plain, images)).max() > 1e-3


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls_mean", "map"])
def test_registers_exchanged_with_their_positions_leave_the_logits_unchanged(
    make_checkpoint: Callable[..., Checkpoint], images: Array, pooling: str
) -> None:
    checkpoint = make_checkpoint(register_tokens=3, distillation_token=True, pooling=pooling)
    order, table = [2, 0, 1], checkpoint.weights["pos_embed.table"].copy()
    registers = checkpoint.weights["class_token.registers"][order]
    alone = changed(checkpoint, {"class_token.registers": registers})
    table[2:5] = table[2:5][order]
    moved = changed(alone, {"pos_embed.table": table})
    expected = forward(checkpoint, images)
    np.testing.assert_allclose(forward(moved, images), expected, rtol=1e-9, atol=1e-12)
    assert np.abs(forward(alone, images) - expected).max() > 1e-4


def test_a_probe_that_asks_nothing_takes_the_mean_of_all_values(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    checkpoint = make_checkpoint(pooling="map", class_token=False, register_tokens=2, include_top=False)
    own = {name.removeprefix("map_pool."): value for name, value in checkpoint.weights.items() if "map_pool." in name}
    silent = {"map_pool.attention.query.kernel": np.zeros((12, 12)), "map_pool.attention.query.bias": np.zeros(12)}
    unfed = {"map_pool.ffn.down.kernel": np.zeros((20, 12)), "map_pool.ffn.down.bias": np.zeros(12)}
    seen: dict[str, Array] = {}
    found = forward(changed(checkpoint, silent | unfed), images, tap=seen.__setitem__)
    assert seen["norm"].shape == (3, 26, 12)
    values = seen["norm"] @ own["attention.value.kernel"] + own["attention.value.bias"]
    expected = values.mean(axis=1) @ own["attention.out.kernel"] + own["attention.out.bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_the_mean_of_two_heads_is_one_head_of_both_tokens(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    checkpoint = make_checkpoint(distillation_token=True, register_tokens=1, pooling="cls_distillation")
    kernel, bias = checkpoint.weights["head.kernel"].astype(np.float64), checkpoint.weights["head.bias"]
    seen: dict[str, Array] = {}
    found = forward(checkpoint, images, tap=seen.__setitem__)
    answers = [seen["norm"][:, token] @ (2 * part) + bias for token, part in enumerate((kernel[:12], kernel[12:]))]
    np.testing.assert_allclose(found, (answers[0] + answers[1]) / 2, rtol=1e-9, atol=1e-12)
    assert np.abs(answers[0] - answers[1]).max() > 1e-3


def test_a_norm_of_the_class_token_is_the_same_before_and_after_pooling_and_of_a_mean_it_is_not(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    before, after = (make_checkpoint(norm_after_pooling=choice) for choice in (False, True))
    np.testing.assert_allclose(forward(after, images), forward(before, images), rtol=1e-12)
    before, after = (make_checkpoint(norm_after_pooling=choice, pooling="mean") for choice in (False, True))
    assert np.abs(forward(after, images) - forward(before, images)).max() > 1e-3


def test_heads_exchanged_with_their_weights_leave_the_output_unchanged(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    checkpoint = make_checkpoint()
    order = np.arange(12).reshape(3, 4)[[2, 0, 1]].ravel()
    weights = dict(checkpoint.weights)
    for role in ("query", "key", "value"):
        name = f"block_1.attention.{role}"
        weights[f"{name}.kernel"] = weights[f"{name}.kernel"][:, order]
        weights[f"{name}.bias"] = weights[f"{name}.bias"][order]
    weights["block_1.attention.out.kernel"] = weights["block_1.attention.out.kernel"][order]
    swapped = dataclasses.replace(checkpoint, weights=weights)
    np.testing.assert_allclose(forward(swapped, images), forward(checkpoint, images), rtol=1e-9, atol=1e-12)


def _last_norm(checkpoint: Checkpoint, images: Array) -> tuple[Array, Array]:
    """What goes into the final norm and what comes out of it."""
    seen: dict[str, Array] = {}
    forward(checkpoint, images, tap=seen.__setitem__)
    return seen[f"block_{checkpoint.config.num_layers - 1}.ffn"], seen["norm"]


def test_band_rms_with_a_band_of_zero_is_ninety_five_hundredths_of_the_unit_vector(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    checkpoint = make_checkpoint(normalization_type="band_rms", epsilon=1e-12)
    for band, factor in ((0.0, 0.95), (100.0, 1.0), (-100.0, 0.9), (0.2, 0.9 + 0.1 / (1 + math.exp(-1)))):
        weights = dict(checkpoint.weights) | {"norm.band": np.array(band, np.float32)}
        before, after = _last_norm(dataclasses.replace(checkpoint, weights=weights), images)
        rms = np.sqrt((before**2).mean(axis=-1, keepdims=True))
        np.testing.assert_allclose(after, before / rms * factor, rtol=1e-7, atol=1e-12)


def test_layer_norm_with_unit_weights_has_zero_mean_and_unit_variance(checkpoint: Checkpoint, images: Array) -> None:
    _, after = _last_norm(checkpoint, images)
    np.testing.assert_allclose(after.mean(axis=-1), 0, atol=1e-12)
    np.testing.assert_allclose(after.var(axis=-1), 1, rtol=0.01)


def test_layer_norm_does_not_see_a_constant_and_rms_norm_does(make_checkpoint: Callable[..., Checkpoint]) -> None:
    for kind, blind in (("layer_norm", True), ("rms_norm", False)):
        checkpoint = make_checkpoint(normalization_type=kind, num_layers=1)
        images = np.random.default_rng(0).standard_normal((1, 24, 32, 3))
        weights = dict(checkpoint.weights)
        weights["block_0.ffn.down.bias"] = weights["block_0.ffn.down.bias"] + np.float32(3)
        moved = dataclasses.replace(checkpoint, weights=weights)
        difference = np.abs(forward(moved, images) - forward(checkpoint, images)).max()
        assert (difference < 1e-6) == blind


def test_the_taps_are_called_in_the_order_of_the_network(checkpoint: Checkpoint, images: Array) -> None:
    seen: dict[str, tuple[int, ...]] = {}
    forward(checkpoint, images, tap=lambda name, values: seen.update({name: values.shape}))
    assert seen == {
        "patch_embed": (3, 24, 12),
        "pos_embed": (3, 25, 12),
        "block_0.attention": (3, 25, 12),
        "block_0.ffn": (3, 25, 12),
        "block_1.attention": (3, 25, 12),
        "block_1.ffn": (3, 25, 12),
        "norm": (3, 25, 12),
        "head": (3, 5),
    }
    assert list(seen)[2] == "block_0.attention"


def test_the_tap_of_a_norm_after_pooling_is_a_vector(make_checkpoint: Callable[..., Checkpoint], images: Array) -> None:
    checkpoint = make_checkpoint(norm_after_pooling=True, pooling="cls_mean", pre_logits_dim=7, pre_norm=True)
    seen: dict[str, tuple[int, ...]] = {}
    forward(checkpoint, images, tap=lambda name, values: seen.update({name: values.shape}))
    assert list(seen)[-3:] == ["block_1.ffn", "norm", "head"]
    assert (seen["pos_embed"], seen["norm"], seen["head"]) == ((3, 25, 12), (3, 24), (3, 5))


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: "-".join(map(str, changes.values())))
def test_in_float32_it_stays_float32_and_near_the_definition(
    make_checkpoint: Callable[..., Checkpoint], changes: dict[str, Any]
) -> None:
    checkpoint = make_checkpoint(**changes)
    config = checkpoint.config
    images = np.random.default_rng(2).standard_normal((2, *config.image_size, config.channels)).astype(np.float32)
    kinds: set[np.dtype[Any]] = set()
    single = forward(checkpoint, images, np.float32, tap=lambda name, values: kinds.add(values.dtype))
    double = forward(checkpoint, images)
    assert kinds == {np.dtype(np.float32)}
    assert 0 < np.abs(single - double).max() <= 2e-5 * max(1, np.abs(double).max())


def test_images_of_another_size_are_refused_before_any_work(checkpoint: Checkpoint) -> None:
    with pytest.raises(ValueError, match=r"images are \(32, 24, 3\), the model takes \(24, 32, 3\)"):
        forward(checkpoint, np.zeros((1, 32, 24, 3)))


def test_one_block_of_weights_is_in_memory_at_a_time() -> None:
    config = ViTConfig(
        image_size=(8, 4), patch_size=(8, 4), embed_dim=128, num_heads=2, num_layers=6, mlp_dim=512, num_classes=3
    )
    checkpoint = Checkpoint.random(config, 0)
    block = 8 * sum(weight.size for name, weight in checkpoint.weights.items() if name.startswith("block_0."))
    images = np.zeros((1, 8, 4, 3), np.float32)
    forward(checkpoint, images)  # the table of erf is made once
    tracemalloc.start()
    forward(checkpoint, images)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert block < peak < 1.2 * block


@pytest.mark.peers
@pytest.mark.parametrize("position", ["pre", "post"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_pytorchs_own_encoder_layers_compute_the_same(
    make_checkpoint: Callable[..., Checkpoint], images: Array, position: str, activation: str
) -> None:
    torch = pytest.importorskip("torch")
    checkpoint = make_checkpoint(normalization_position=position, activation=activation)
    config = checkpoint.config
    w = {name: torch.from_numpy(value.astype(np.float64)) for name, value in checkpoint.weights.items()}
    with torch.no_grad():
        convolution = torch.nn.Conv2d(3, 12, config.patch_size, config.patch_size, dtype=torch.float64)
        convolution.weight.copy_(w["patch_embed.kernel"].permute(3, 2, 0, 1))
        convolution.bias.copy_(w["patch_embed.bias"])
        x = convolution(torch.from_numpy(images.astype(np.float64)).permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        x = torch.cat([w["class_token.class"].expand(len(x), 1, 12), x], dim=1) + w["pos_embed.table"]
        for index in range(config.num_layers):
            layer = torch.nn.TransformerEncoderLayer(
                12, 3, 20, 0.0, activation, config.epsilon, True, position == "pre", dtype=torch.float64
            )
            own = {
                name.removeprefix(f"block_{index}."): value for name, value in w.items() if f"block_{index}." in name
            }
            roles = [own[f"attention.{role}.kernel"].T for role in ("query", "key", "value")]
            layer.self_attn.in_proj_weight.copy_(torch.cat(roles))
            layer.self_attn.in_proj_bias.copy_(
                torch.cat([own[f"attention.{r}.bias"] for r in ("query", "key", "value")])
            )
            for module, name in (
                (layer.self_attn.out_proj, "attention.out"),
                (layer.linear1, "ffn.up"),
                (layer.linear2, "ffn.down"),
            ):
                module.weight.copy_(own[f"{name}.kernel"].T)
                module.bias.copy_(own[f"{name}.bias"])
            for module, name in ((layer.norm1, "norm1"), (layer.norm2, "norm2")):
                module.weight.copy_(own[f"{name}.scale"])
                module.bias.copy_(own[f"{name}.bias"])
            x = layer(x)
        x = torch.nn.functional.layer_norm(x, (12,), w["norm.scale"], w["norm.bias"], config.epsilon)
        expected = (x[:, 0] @ w["head.kernel"] + w["head.bias"]).numpy()
    np.testing.assert_allclose(forward(checkpoint, images), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.peers
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_timms_vision_transformer_computes_the_same(
    make_checkpoint: Callable[..., Checkpoint], images: Array, timm: Any, pooling: str, qkv_bias: bool
) -> None:
    import torch

    checkpoint = make_checkpoint(pooling=pooling, qkv_bias=qkv_bias)
    model = timm_model(timm, checkpoint)
    with torch.no_grad():
        expected = model(torch.from_numpy(images.astype(np.float64)).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(forward(checkpoint, images), expected, rtol=1e-10, atol=1e-12)


TIMM: dict[str, dict[str, Any]] = {
    "AugReg without class token": {"class_token": False, "pooling": "mean", "norm_after_pooling": True},
    "class token, fc_norm": {"pooling": "cls", "norm_after_pooling": True},
    "average behind a prefix": {"register_tokens": 2, "pooling": "mean"},
    "greatest patch": {"class_token": False, "pooling": "max"},
    "DINOv2": {"register_tokens": 3, "layer_scale": True, "ffn_type": "swiglu", "pooling": "cls"},
    "CLIP": {"pre_norm": True, "activation": "quick_gelu", "include_top": False, "pooling": "cls"},
    "SigLIP": {"class_token": False, "pooling": "map", "activation": "gelu_tanh", "include_top": False},
    "probe that sees registers too": {"register_tokens": 1, "pooling": "map", "qk_norm": True},
    "DeiT": {"distillation_token": True, "pooling": "cls_distillation"},
    "normalized queries and keys": {"qk_norm": True, "layer_scale": True, "qkv_bias": False},
}


@pytest.mark.peers
@pytest.mark.parametrize("changes", TIMM.values(), ids=TIMM)
def test_timm_computes_the_same_for_every_family(
    make_checkpoint: Callable[..., Checkpoint], images: Array, timm: Any, changes: dict[str, Any]
) -> None:
    import torch

    checkpoint = make_checkpoint(**changes)
    if checkpoint.config.pre_norm:
        weights = dict(checkpoint.weights) | {"patch_embed.bias": np.zeros(12, np.float32)}
        checkpoint = dataclasses.replace(checkpoint, weights=weights)
    model = timm_model(timm, checkpoint)
    with torch.no_grad():
        expected = model(torch.from_numpy(images.astype(np.float64)).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(forward(checkpoint, images), expected, rtol=1e-10, atol=1e-12)
