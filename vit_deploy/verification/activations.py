"""A sketch of the reference's activations: small enough to travel in an artifact, fine enough to find a changed weight.

A changed weight of a product shows in one feature of every token, a changed position in only one token. So of each
activation in the residual stream the first token is kept as it is, since it may be the only one that an artifact
computes in its last block, and a few random sums over all tokens, each with every feature. Of what lies between two of
them the sums are taken over tokens and over features: that is enough to tell right from wrong.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.choices import FFNType, NormalizationPosition
from vit_deploy.core.config import ViTConfig

Array = NDArray[Any]

IMAGES = 2  # of the golden ones
MIXES, DETAIL_MIXES = 3, 2  # random sums over the tokens
DETAIL_FEATURES = 8  # random sums over the features
SEED = 1706  # of the random sums
AFTER_STREAM = ("norm", "head")
STREAM_DETAILS = (".tokens", ".out", ".down", ".scaled")  # what the residual stream is the sum of


@dataclass(frozen=True)
class Sketch:
    """What is kept of one activation.

    Args:
        values: `(images, rows, features)`: the first token, then sums over the tokens.
        noise_floor: what rounding to float32 alone does to it; see `noise_floor.noise_floor`.
    """

    values: Array
    noise_floor: float

    def error(self, found: Array) -> float:
        """Largest difference of a sketch that holds all rows or only the first.

        Infinite if it is not finite, or not of this many features.
        """
        if not np.isfinite(found).all() or found.shape[2] != self.values.shape[2]:
            return float("inf")
        rows = min(found.shape[1], self.values.shape[1])
        return float(np.abs(found[:, :rows] - self.values[:, :rows]).max())

    def shifted(self, by: Array) -> Sketch:
        """The sketch of the activation plus one whose sketch is `by`."""
        return Sketch(self.values + by, self.noise_floor)

    @property
    def rms(self) -> float:
        """Root of the mean squared value."""
        return float(np.sqrt(np.square(self.values, dtype=np.float64).mean()))


@dataclass(frozen=True)
class Activations:
    """The reference's activations in the residual stream of a model, and between those.

    Args:
        stream: sketches of the residual stream, by the names of `activation_names`.
        details: sketches inside blocks, by the names of `detail_names`.
        biases: the biases of the norms that end in one of these in a post-norm model, and that other products can take
            up.
        centred: whether the residual stream is that of a file whose weights add nothing to its mean over features.
    """

    stream: Mapping[str, Sketch]
    details: Mapping[str, Sketch]
    biases: Mapping[str, Array] = field(default_factory=dict)
    centred: bool = False

    def detail_error(self, name: str, found: Array) -> float:
        """Largest difference of the sketch of a detail; see `Sketch.error`."""
        reference = self.details[name]
        if not (self.centred and name.endswith(STREAM_DETAILS)):
            return reference.error(found)
        features = self.stream["pos_embed"].values.shape[-1]
        centred = Sketch(_without_mean(reference.values, features), reference.noise_floor)
        return centred.error(_without_mean(found, features))

    def without_biases(self, tokens: int) -> Activations:
        """The activations of the same model whose norms have given their biases to the products that read them.

        The residual sum that follows reads them as well: for it, the bias goes into the half's last product.
        """
        stream, details = dict(self.stream), dict(self.details)
        for name, bias in self.biases.items():
            everywhere = np.broadcast_to(bias, (1, tokens, len(bias)))
            stream[name] = stream[name].shifted(-sketch(everywhere))
            block, half = name.removeprefix("block_").split(".")
            following = f"block_{block}.ffn" if half == "attention" else f"block_{int(block) + 1}.attention"
            for last in ("out", "down", "scaled"):
                if (detail := f"{following}.{last}") in details:
                    details[detail] = details[detail].shifted(detail_sketch(everywhere))
        return Activations(stream, details)

    def without_means(self) -> Activations:
        """The activations of the same model with a residual stream from which each token's mean is taken away."""
        stream = {
            name: activation
            if name in AFTER_STREAM
            else activation.shifted(-activation.values.mean(axis=-1, keepdims=True))
            for name, activation in self.stream.items()
        }
        return dataclasses.replace(self, stream=stream, centred=True)


def moving_norms(config: ViTConfig) -> dict[str, str]:
    """The norm of a post-norm model that ends in each of the stream; not the last, which the model's own norm reads."""
    if config.normalization_position is not NormalizationPosition.POST:
        return {}
    halves = [(index, half) for index in range(config.num_layers) for half in ("attention", "ffn")]
    names = {"attention": "norm1", "ffn": "norm2"}
    return {f"block_{index}.{half}": f"block_{index}.{names[half]}" for index, half in halves[:-1]}


def activation_names(config: ViTConfig) -> tuple[str, ...]:
    """Every activation of a model, in the order of the network."""
    halves = [f"block_{index}.{half}" for index in range(config.num_layers) for half in ("attention", "ffn")]
    return ("patch_embed", "pos_embed", *halves, "norm", "head")


def detail_names(config: ViTConfig) -> tuple[str, ...]:
    """What is recorded between those of the stream, by the name of the one it leads to, in the order of the network."""
    both = config.normalization_position is NormalizationPosition.PARALLEL  # of which the attention's comes first
    before = ["norm", "unit"] if both or config.normalization_position is NormalizationPosition.PRE else []
    after = ["sum"] if config.normalization_position is NormalizationPosition.POST else []
    projections = ["up"] if config.ffn_type is FFNType.MLP else ["gate", "up"]
    scaled = {half: ["scaled"] for half in config.scaled_halves}
    of_attention = ["query", "key", "value", "scores", "softmax", "mix", "out"]
    attention = [*before, *of_attention, *scaled.get("attention", []), *after]
    ffn = [*(() if both else before), *projections, "hidden", "down", *scaled.get("ffn", []), *after]
    inside = [
        f"block_{index}.{half}.{name}"
        for index in range(config.num_layers)
        for half, names in (("attention", attention), ("ffn", ffn))
        for name in names
    ]
    pre_logits = ["head.pre_logits"] if config.pre_logits_dim else []
    unit = ["norm.unit"] if config.last_norm else []
    return ("pos_embed.tokens", *inside, *unit, "head.pooled", *pre_logits)


def sketch(values: Array) -> Array:
    """The rows that are kept of `(images, tokens, features)` or, after pooling, of `(images, features)`.

    Args:
        values: an activation; of a single token only that token is kept.
    """
    values = values.astype(np.float64)
    if values.ndim == 2:
        return values[:, None]
    return _with_sums(values, MIXES)


def detail_sketch(values: Array) -> Array:
    """The same of what lies between two activations `(images, tokens, features)`, with its features summed up."""
    values = values.astype(np.float64)
    return _with_sums(values @ _random_sums(DETAIL_FEATURES, values.shape[-1]).T, DETAIL_MIXES)


def _without_mean(sketched: Array, features: int) -> Array:
    """A detail's sketch without what a mean over the features, which is the same for each of them, adds to it."""
    direction = _random_sums(DETAIL_FEATURES, features).sum(axis=1)
    direction /= np.linalg.norm(direction)
    along: Array = (sketched @ direction)[..., None] * direction
    return sketched - along


def by_token(values: Array) -> Array:
    """`(images, features)` and `(images, heads, tokens, features)` as `(images, tokens, features)`."""
    if values.ndim == 2:
        return values[:, None]
    if values.ndim == 4:
        return values.transpose(0, 2, 1, 3).reshape(len(values), values.shape[2], -1)
    return values


ARRAYS = ("tap_stream", "tap_norm", "tap_head", "tap_details", "tap_floors", "tap_detail_floors", "tap_biases")


def to_arrays(activations: Activations) -> dict[str, Array]:
    """Activations as the arrays of `golden.npz`; the residual stream, whose sketches are alike, as one."""
    names = [*activations.stream]
    arrays = {
        "tap_stream": np.stack([activations.stream[name].values for name in names[:-2]]),
        "tap_norm": activations.stream[names[-2]].values,
        "tap_head": activations.stream[names[-1]].values,
        "tap_details": np.stack([detail.values for detail in activations.details.values()]),
    }
    floors = {
        "tap_floors": np.array([activation.noise_floor for activation in activations.stream.values()]),
        "tap_detail_floors": np.array([detail.noise_floor for detail in activations.details.values()]),
    }
    arrays["tap_biases"] = np.array([*activations.biases.values()])
    return {name: array.astype(np.float32) for name, array in arrays.items()} | floors


def from_arrays(arrays: Mapping[str, Array], config: ViTConfig) -> Activations:
    """The inverse of `to_arrays`.

    Raises:
        ValueError: arrays that are no activations of this model.
    """
    names, details = activation_names(config), detail_names(config)
    found = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    images = found["tap_stream"][1][1] if len(found["tap_stream"][1]) == 4 else 0
    norm = (1, config.pooled_dim) if config.norm_after_pooling else (MIXES + 1, config.embed_dim)
    head = (MIXES + 1 if len(config.output_shape) == 2 else 1, config.output_shape[-1])
    expected = {
        "tap_stream": ("float32", (len(names) - 2, images, MIXES + 1, config.embed_dim)),
        "tap_norm": ("float32", (images, *norm)),
        "tap_head": ("float32", (images, *head)),
        "tap_details": ("float32", (len(details), images, DETAIL_MIXES + 1, DETAIL_FEATURES)),
        "tap_floors": ("float64", (len(names),)),
        "tap_detail_floors": ("float64", (len(details),)),
    }
    if len(arrays["tap_biases"]):
        expected["tap_biases"] = ("float32", (len(moving_norms(config)), config.embed_dim))
    if wrong := [
        f"{name} are {found[name]}, expected {form}" for name, form in expected.items() if found[name] != form
    ]:
        raise ValueError("; ".join(wrong))
    if not images or not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("the activations hold no images, or values that are NaN or infinite")
    if not (arrays["tap_floors"] > 0).all() or not (arrays["tap_detail_floors"] > 0).all():
        raise ValueError("a noise floor is not above zero")
    kept = [*arrays["tap_stream"], arrays["tap_norm"], arrays["tap_head"]]
    pairs = (names, kept, arrays["tap_floors"]), (details, arrays["tap_details"], arrays["tap_detail_floors"])
    stream, inside = (
        {name: Sketch(values.astype(np.float64), float(floor)) for name, values, floor in zip(*pair, strict=True)}
        for pair in pairs
    )
    return Activations(stream, inside, dict(zip(moving_norms(config), arrays["tap_biases"], strict=False)))


def _with_sums(values: Array, count: int) -> Array:
    sums = _random_sums(count, values.shape[1]) @ values
    return np.concatenate([values[:, :1], sums], axis=1)


@functools.cache
def _random_sums(count: int, length: int) -> NDArray[np.float64]:
    # RandomState's stream is frozen for good, unlike that of a Generator (NumPy enhancement proposal 19).
    drawn = np.random.RandomState(SEED).standard_normal((length, count)).T
    sums: NDArray[np.float64] = np.ascontiguousarray(drawn) / np.sqrt(length)
    return sums
