"""The range of every tensor of a TFLite file on calibration images."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from vit_deploy.core.artifact import InputSpec
from vit_deploy.core.engine_paths import engine_path
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.exporters.quantization.clipping import NOTHING, Float32, Observed
from vit_deploy.runtimes.values import as_stored


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
    """
    with quiet_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it calls this debugging, which it is
        # XNNPACK writes the tensors inside of it too when all are asked for, and is four times as fast.
        engine = Interpreter(
            model_path=engine_path(path), experimental_preserve_all_tensors=True, num_threads=os.cpu_count()
        )
        engine.allocate_tensors()
    (given,) = engine.get_input_details()
    details = {tensor["index"]: tensor for tensor in engine.get_tensor_details() if tensor["dtype"] == np.float32}
    steps = [operator for operator in engine._get_ops_details() if operator["op_name"] != "DELEGATE"]
    computed = {int(index) for step in steps for index in step["outputs"]} | {given["index"]}
    scores = {int(step["inputs"][0]) for step in steps if step["op_name"] == "SOFTMAX"}
    looked_at = [
        index for index in computed & details.keys() if only is None or details[index]["name"] in {*only, *means_of}
    ]
    seen: dict[str, Observed] = {}
    sums: dict[str, NDArray[np.float64]] = {}
    batch = spec.batch or 1
    count = -(-len(calibration.images) // batch) * batch
    filled = np.concatenate([calibration.images, calibration.images[: count - len(calibration.images)]])
    for start in range(0, count, batch):
        engine.set_tensor(given["index"], as_stored(filled[start : start + batch], spec))
        engine.invoke()
        for index in looked_at:
            name, values = details[index]["name"], engine.get_tensor(index)
            weights = _shares(values) if index in scores else None
            seen[name] = seen.get(name, NOTHING).also(values, counted=counted, weights=weights)
            if name in means_of:
                total = values.reshape(-1, values.shape[-1]).mean(axis=0, dtype=np.float64)
                sums[name] = sums.get(name, 0.0) + total
    rounds = count // batch
    return Observations(seen, {name: total / rounds for name, total in sums.items()})


def _shares(scores: Float32) -> Float32:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Float32 = powers / powers.sum(axis=-1, keepdims=True)
    return shares
