"""What the tensors of a TFLite file are on calibration images: their ranges, and how those of a layer go together."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from vit_deploy.core.engine_paths import engine_path
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.exporters.quantization.calibration import Calibration, batches
from vit_deploy.exporters.quantization.clipping import NOTHING, Float32, Observed
from vit_deploy.exporters.quantization.squares import Read, Rows, summed
from vit_deploy.exporters.tflite.layers import Layer
from vit_deploy.runtimes.values import as_stored


class Inside:
    """An engine that keeps all the tensors of a file, which is run on images, one batch of its size after the other.

    Args:
        path: the path of a float TFLite file.
        spec: its input.
        calibration: images as its session takes them; see `calibration.batches`.

    Attributes:
        engine: LiteRT's interpreter.
        floats: the name of each tensor of float32 that the file is given or computes, by its index.
        scores: the indices of what a softmax reads.
    """

    def __init__(self, path: Path, spec: InputSpec, calibration: Calibration) -> None:
        with quiet_stderr(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it calls this debugging, which it is
            # XNNPACK writes the tensors inside of it too when all are asked for, and is four times as fast.
            self.engine = Interpreter(
                model_path=engine_path(path), experimental_preserve_all_tensors=True, num_threads=os.cpu_count()
            )
            self.engine.allocate_tensors()
        (given,) = self.engine.get_input_details()
        steps = [step for step in self.engine._get_ops_details() if step["op_name"] != "DELEGATE"]
        there = {int(index) for step in steps for index in step["outputs"]} | {given["index"]}
        tensors = [tensor for tensor in self.engine.get_tensor_details() if tensor["dtype"] == np.float32]
        self.floats: dict[int, str] = {each["index"]: each["name"] for each in tensors if each["index"] in there}
        self.scores = {int(step["inputs"][0]) for step in steps if step["op_name"] == "SOFTMAX"}
        self._given, self._spec, self._images = given["index"], spec, calibration.images

    def batches(self) -> Iterator[None]:
        """Run one batch after the other; its tensors are there until the next."""
        for images in batches(self._images, self._spec.batch, 1):
            self.engine.set_tensor(self._given, as_stored(images, self._spec))
            self.engine.invoke()
            yield


@dataclass(frozen=True, eq=False)
class Observations:
    """What calibration saw.

    Args:
        tensors: name to the values seen; constants are not among them.
        means: name of each tensor asked for to the mean of each of its channels (its last axis).
        learned: (low, high) of tensors whose range is known from training.
    """

    tensors: dict[str, Observed]
    means: dict[str, NDArray[np.float64]]
    learned: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def with_ranges(self, learned: Mapping[str, tuple[float, float]]) -> Observations:
        """The same with ranges that training learned."""
        return dataclasses.replace(self, learned=learned)


def observe(
    path: Path,
    spec: InputSpec,
    calibration: Calibration,
    *,
    only: Collection[str] | None = None,
    counted: bool,
    means_of: Collection[str] = (),
    class_token_of: int = 0,
) -> Observations:
    """Run the images through a file, one batch of its size after the other, and look at its tensors.

    Errors of what a softmax reads weigh as much as the shares that it becomes. Where scores have errors d and shares p,
    the square of the error of a mean by these shares is to first order at most sum(p d^2) times the variance of what is
    averaged (Cauchy and Schwarz). So the lowest scores, which become next to nothing, may be cut off.

    Args:
        path: the path of a float TFLite file.
        spec: its input.
        calibration: images as its session takes them.
        only: names of tensors to look at; None for all of them.
        counted: whether distributions are needed, or ranges alone.
        means_of: tensors whose channels' means are needed.
        class_token_of: tokens of an image, of which the first's errors weigh as much as those of all others together;
            0 where all weigh the same.
    """
    inside = Inside(path, spec, calibration)
    looked_at = {index: name for index, name in inside.floats.items() if only is None or name in {*only, *means_of}}
    seen: dict[str, Observed] = {}
    sums: dict[str, NDArray[np.float64]] = {}
    rounds = 0
    for _ in inside.batches():
        rounds += 1
        for index, name in looked_at.items():
            values = inside.engine.get_tensor(index)
            weights = _shares(values) if index in inside.scores else None
            if class_token_of and values.ndim > 1 and values.shape[-2] == class_token_of:
                weights = _with_class_token(values.shape, weights)
            seen[name] = seen.get(name, NOTHING).also(values, counted=counted, weights=weights)
            if name in means_of:
                total = values.reshape(-1, values.shape[-1]).mean(axis=0, dtype=np.float64)
                sums[name] = sums.get(name, 0.0) + total
    return Observations(seen, {name: total / rounds for name, total in sums.items()})


def layer_squares(
    path: Path, spec: InputSpec, calibration: Calibration, layers: Iterable[Layer]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Sums of products `(inputs, inputs)` of the rows that layers read, by the name of what they read.

    Args:
        path: the path of a float TFLite file.
        spec: its input.
        calibration: images as its session takes them.
        layers: those that count; what is not computed is left out.

    Raises:
        ExportError: as `squares.summed`.
    """
    inside = Inside(path, spec, calibration)
    places = {name: index for index, name in inside.floats.items()}
    wanted = {layer.input: Read(layer.input, layer.inputs, layer.name) for layer in layers if layer.input in places}

    def rows(names: Collection[str]) -> Iterator[Rows]:
        for _ in inside.batches():
            yield {name: inside.engine.get_tensor(places[name]).reshape(-1, wanted[name].inputs) for name in names}

    return summed(list(wanted.values()), rows)


def _shares(scores: Float32) -> Float32:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Float32 = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def _with_class_token(shape: tuple[int, ...], weights: Float32 | None) -> Float32:
    """Weights `(…, tokens, channels)` of values, where the first token has as much of them as all others."""
    tokens = np.ones((shape[-2], 1), np.float32)
    tokens[0] = shape[-2] - 1
    return np.ascontiguousarray(np.broadcast_to(tokens, shape) if weights is None else weights * tokens)
