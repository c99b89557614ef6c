"""The first activation and operator at which an artifact leaves the reference."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.choices import NormalizationType, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.outputs import PROBABILITIES
from vit_deploy.errors import ArtifactError, ConfigError
from vit_deploy.verification.activations import (
    IMAGES,
    Activations,
    Sketch,
    activation_names,
    by_token,
    detail_sketch,
    sketch,
)
from vit_deploy.verification.golden import Golden, read_golden
from vit_deploy.verification.locate import TAPPERS, Opened
from vit_deploy.verification.locate.flow import Flow, Node
from vit_deploy.verification.locate.structure import Place, find_activations
from vit_deploy.verification.locate.sublayers import Detail
from vit_deploy.verification.tolerances import DEFAULTS, NOISE_FACTOR, SIGMAS, tolerated_rms

Array = NDArray[Any]

READ_ALONE = (2, 1)  # how many tokens may be left in the last block: those with class and distillation, or class
BEHIND_LOGITS = frozenset({"SOFTMAX", "SIGMOID", "LOGISTIC", "CAST", "IDENTITY", "QUANTIZE", "DEQUANTIZE"})
REBALANCED = (".norm", ".unit", ".value", ".mix", ".up", ".hidden", ".pooled")  # see `quantization.smoothing`


@dataclass(frozen=True)
class Deviation:
    """How far an artifact is from the reference at one activation.

    Args:
        name: "patch_embed", "pos_embed", "block_<i>.attention", "block_<i>.ffn", "norm" or "head".
        error: largest difference of what is compared; None where the activation was not found.
        noise_floor: what rounding to float32 alone does there.
        tolerance: that the error is held to.
        note: why there is no error.
    """

    name: str
    error: float | None
    noise_floor: float
    tolerance: float
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the artifact is still with the reference here, as far as that is known."""
        return self.error is None or self.error <= self.tolerance

    @property
    def times_floor(self) -> float | None:
        """The error in noise floors."""
        return None if self.error is None else self.error / self.noise_floor


@dataclass(frozen=True)
class Located:
    """Where an artifact leaves the reference.

    Args:
        artifact: that was looked into.
        activations: every activation, in the order of the network.
        activation: the first one that is wrong; None if none is.
        operator: that the error comes from, as "<operator> <name>".
        notes: what could not be looked at, and why, in words.
    """

    artifact: Artifact
    activations: tuple[Deviation, ...]
    activation: str | None
    operator: str | None
    notes: tuple[str, ...] = ()

    def growth(self) -> tuple[float | None, ...]:
        """The growth of the error, in noise floors, from each activation to the next."""
        found: list[float | None] = []
        before: float | None = None
        for activation in self.activations:
            now = activation.times_floor
            known = before is not None and now is not None and before > 0 and math.isfinite(now)
            found.append(now / before if known and now is not None and before is not None else None)
            before = now if now is not None and math.isfinite(now) else before
        return tuple(found)


def locate(
    artifact: Artifact, *, golden: Golden | None = None, runtime: str | None = None, provider: str | None = None
) -> Located:
    """Compare what an artifact computes on the way with the reference, from the images to the first wrong operator.

    It runs on the CPU, in the engine's own kernels, unless a runtime is named that shows its own. The first images of
    the golden data are compared.

    Args:
        artifact: the artifact.
        golden: images and what the reference makes of them, instead of the artifact's own.
        runtime: that is looked into where it shows what it computes; None for the format's own.
        provider: what executes the graph there; None for its usual one.

    Raises:
        ArtifactError: the golden data are missing or damaged, or hold no activations.
        ConfigError: files of this format cannot be looked into, or the reference is another kind of model.
        MissingEngineError, EngineError: the engine is not installed or refuses the file.
    """
    if artifact.format not in TAPPERS:
        raise ConfigError(
            f"cannot look into {artifact.model_path}: it is run as a whole",
            fix=f"files of {', '.join(TAPPERS)} can be looked into",
        )
    if artifact.is_bare and FORMATS[artifact.format].folds_norms:
        raise ConfigError(
            f"cannot look into {artifact.model_path}: converters move scales, biases and means between the operators "
            f"of a {FORMATS[artifact.format].title} file, and what another one moved is not known",
            fix="look into the ONNX file or the SavedModel that it was made of",
        )
    golden = golden or read_golden(artifact)
    if golden.activations is None:
        raise ArtifactError(
            f"{artifact.directory} was written by a version that recorded no activations",
            fix="give the checkpoint it was made from with --against, or export the model again",
        )
    if [*golden.activations.stream] != [*activation_names(artifact.config)]:
        blocks = [
            sum(name.endswith(".ffn") for name in names)
            for names in (activation_names(artifact.config), golden.activations.stream)
        ]
        raise ConfigError(
            f"{artifact.model_path} has {blocks[0]} blocks and the reference {blocks[1]}, so their activations have no "
            "counterparts",
            fix="give the checkpoint that it was exported from",
        )
    engine = FORMATS.runtimes()[runtime].tapper if runtime in FORMATS.runtimes() else None
    tapper = TAPPERS.load(artifact.format)() if engine is None else engine.load()(provider)
    with tapper.open(artifact) as opened:
        return _Search(
            artifact, opened, golden.images[:IMAGES], _comparable(golden.activations, artifact, opened.flow)
        ).run()


def logits_of(flow: Flow, artifact: Artifact) -> Flow:
    """The graph up to its logits, where probabilities are all that it has behind them."""
    if artifact.deepest_output != PROBABILITIES:
        return flow
    value = flow.output
    while (node := flow.producers.get(value)) is not None and node.kind in BEHIND_LOGITS:
        value = node.inputs[0]
    return dataclasses.replace(flow, output=value)


def _comparable(activations: Activations, artifact: Artifact, flow: Flow) -> Activations:
    """The reference's activations as a file of this format computes them."""
    if not FORMATS[artifact.format].folds_norms:
        return activations
    activations = activations.without_biases(artifact.config.sequence_length)
    layer_norms = artifact.config.normalization_type is NormalizationType.LAYER_NORM
    centring = any(node.kind == "SQUARED_DIFFERENCE" for node in flow.nodes)
    return activations.without_means() if layer_norms and not centring else activations


@dataclass(frozen=True)
class _Search:
    artifact: Artifact
    opened: Opened
    images: Array
    activations: Activations

    def run(self) -> Located:
        config = self.artifact.config
        flow, folded = logits_of(self.opened.flow, self.artifact), FORMATS[self.artifact.format].folds_norms
        places = find_activations(flow, config, folded_norms=folded)
        values = self._values(name for place in places.found.values() for name in place.values)
        deviations: list[Deviation] = []
        tokens = config.sequence_length
        if self._is_rebalanced():
            places.missing["norm"] = "quantizing moves factors from the norm into what reads it"
            places.found.pop("norm", None)
        for name in activation_names(config):
            reference, place = self.activations.stream[name], places.found.get(name)
            error, note = None, places.missing.get(name, "")
            if place is not None:
                activations = self._activations(place, values, *_sizes(config, name, tokens))
                if activations is None:
                    note = "what the graph computes there has another size"
                elif name == "norm" and self._final_norm_is_folded():
                    reference = self.activations.details["norm.unit"]
                    alone = not config.norm_after_pooling and activations.shape[1] < config.sequence_length
                    error = reference.error(detail_sketch(activations)[:, : 1 if alone else None])
                else:
                    tokens = activations.shape[1]
                    some = name != "patch_embed" and tokens < config.sequence_length
                    error = reference.error(sketch(activations[:, 0] if some else activations))
            deviations.append(Deviation(name, error, reference.noise_floor, self._tolerance(reference), note))
        notes = [f"{one.name} cannot be compared: {one.note}" for one in deviations if one.note]
        wrong = next((one.name for one in deviations if not one.ok), None)
        if wrong is None:
            notes.append(
                f"nothing leaves the reference on the first {len(self.images)} images in the engine's own kernels on "
                "the CPU: a fault that shows elsewhere is in the provider, the delegate or what they fuse, or in how "
                "other inputs and batches are answered"
            )
            return Located(self.artifact, tuple(deviations), None, None, tuple(notes))
        return Located(self.artifact, tuple(deviations), wrong, self._operator(places.found[wrong]), tuple(notes))

    def _tolerance(self, reference: Sketch) -> float:
        """Ten noise floors; with fewer bits also the noise that the whole model is allowed."""
        floor = NOISE_FACTOR * reference.noise_floor
        allowed = DEFAULTS.get(self.artifact.precision)
        if allowed is None or allowed.snr_db is None:
            return floor
        return max(floor, SIGMAS * tolerated_rms(allowed.snr_db, reference.rms))

    def _operator(self, place: Place) -> str:
        """The first operator in front of a wrong activation whose result is wrong already."""
        values = self._values(name for detail in place.details for option in detail.options for name in option.values)
        right = {
            detail.name: self._right(detail, values)
            for detail in place.details
            if detail.name in self.activations.details
        }
        for detail in place.details:
            unknown = detail.name not in right or (self._is_rebalanced() and detail.name.endswith(REBALANCED))
            if unknown or right[detail.name]:
                continue
            # Of nodes that the graph does not tell apart, one that computes none of the others.
            others = {node for detail in place.details for node in right.get(detail.name, ())}
            suspects = [option.node for option in detail.options if option.node not in others]
            return str(suspects[0] if suspects else detail.options[0].node)
        return str(place.node)

    def _right(self, detail: Detail, values: Mapping[str, Array]) -> set[Node]:
        """The nodes that compute a detail as the reference does."""
        tolerance = self._tolerance(self.activations.details[detail.name])
        return {
            option.node
            for option in detail.options
            for name in option.values
            for factor in detail.factors
            if (found := self._at_detail(detail, values[name])) is not None
            and self.activations.detail_error(detail.name, found / factor) <= tolerance
        }

    def _is_rebalanced(self) -> bool:
        return self.artifact.precision in FORMATS[self.artifact.format].rebalanced

    def _final_norm_is_folded(self) -> bool:
        config = self.artifact.config
        feeds_keys = config.effective_pooling is Pooling.MAP and not config.norm_after_pooling
        return FORMATS[self.artifact.format].folds_norms and (feeds_keys or config.projection_after_norm is not None)

    def _activations(
        self, place: Place, values: Mapping[str, Array], counts: Sequence[int], features: int
    ) -> Array | None:
        """The last of a place's values that has one of these numbers of tokens: `(images, tokens, features)`."""
        for name in reversed(place.values):
            for count in counts:
                if values[name].size == len(self.images) * count * features:
                    return values[name].reshape(len(self.images), count, features)
        return None

    def _at_detail(self, detail: Detail, value: Array) -> Array | None:
        """The sketch of what is between two activations; None if it has a size that it cannot have there."""
        config, images = self.artifact.config, len(self.images)
        tokens, heads = config.sequence_length, config.num_heads
        for count in (tokens, *READ_ALONE):
            if detail.features is None and value.size == images * heads * count * tokens:
                found = by_token(value.reshape(images, heads, count, tokens))
            elif detail.features is not None and value.size == images * count * detail.features:
                found = value.reshape(images, count, detail.features)
            else:
                continue
            return detail_sketch(found) if count == tokens else detail_sketch(found)[:, :1]
        return None

    def _values(self, names: Iterable[str]) -> dict[str, Array]:
        """What the artifact computes, an image a row."""
        distinct = list(dict.fromkeys(names))
        batch = self.artifact.input.batch or len(self.images)
        groups: list[dict[str, Array]] = []
        for start in range(0, len(self.images) if distinct else 0, batch):
            group = self.images[start : start + batch]
            filled = np.concatenate([group, np.repeat(group[-1:], batch - len(group), axis=0)])
            found = self.opened.values(distinct, filled)
            groups.append({name: value.reshape(batch, -1)[: len(group)] for name, value in found.items()})
        return {name: np.concatenate([group[name] for group in groups]) for name in distinct}


def _sizes(config: ViTConfig, name: str, tokens: int) -> tuple[tuple[int, ...], int]:
    """How many tokens of how many features an activation may have, where the activation before it has `tokens`."""
    match name:
        case "patch_embed":
            return (config.num_patches,), config.embed_dim
        case "norm" if config.norm_after_pooling:
            return (1,), config.pooled_dim
        case "norm":
            return (tokens,), config.embed_dim
        case "head":
            return (math.prod(config.output_shape[:-1]),), config.output_shape[-1]
        case _:
            return (config.sequence_length, *READ_ALONE), config.embed_dim
