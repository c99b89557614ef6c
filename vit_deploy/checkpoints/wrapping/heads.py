"""Linear heads under names that the encoder's own program does not have, and heads in files of their own.

A training that puts a layer of its own on an encoder names it as it likes. What the wrapper does between the two cannot
be seen in a file, so that such a head is taken only where its shape fits, and always said as an assumption.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vit_deploy.checkpoints.assumed import HEAD_FACT
from vit_deploy.checkpoints.source import KEY_END, TensorFile
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.provenance import Step
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

NAMES = (
    r"(?:fc|classifier|linear_head|linear|heads|head|cls_head|classification_head|classifier_head|last_layer|mlp_head)"
)
# `head.weight`, `heads.0.weight`, `cls_head.fc.weight`, `classifier.1.running_mean`.
HEAD = re.compile(rf"^{NAMES}(?:\.(?:head|fc|linear|layers|\d))?\.(?P<part>weight|bias|running_mean|running_var)$")
IN_A_FILE = re.compile(r"(?:^|\.)(?:weight|bias|running_mean|running_var)$")
PROBE_EPSILON = 1e-6  # of the BatchNorm in front of MAE's linear probe
NORM_EPSILON = 1e-5  # of torch's BatchNorm otherwise
MAX_FILE_TENSORS = 16


@dataclass(frozen=True)
class LinearHead:
    """A linear layer on pooled features, with a BatchNorm before it folded in.

    Args:
        origin: where it was found, in words.
        kernel: `(features, classes)`.
        bias: `(classes,)`.
    """

    origin: str
    kernel: Float32
    bias: Float32


def head_names(names: Iterable[str], native: re.Pattern[str] | None) -> list[str]:
    """Names of tensors of a head that the dialect has no name for.

    Args:
        names: of a model, as its dialect reads them.
        native: the dialect's own heads; None where its files say themselves what they have.
    """
    if native is None:
        return []
    found = [name for name in names if HEAD.match(name)]
    return [] if any(native.match(name) and _is_linear(name, found) for name in found) else found


def _is_linear(name: str, found: list[str]) -> bool:
    """Whether a native name is of one linear layer, and not of a row of layers."""
    layer = f"{name.rpartition('.')[0]}."
    return not any(other.startswith(layer) and other.count(".") > name.count(".") for other in found)


def linear_head(file: TensorFile, names: Iterable[str], origin: str) -> LinearHead:
    """The head of these tensors.

    Raises:
        CheckpointError: they are not those of one linear layer, with or without a BatchNorm before it.
    """
    stored = {name.replace(KEY_END, "."): name for name in names}
    shapes = {name: file.shape(path) for name, path in stored.items()}
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    if len(matrices) != 1:
        raise _no_head(origin, shapes)
    layer = matrices[0].rpartition(".")[0]
    classes, features = shapes[matrices[0]]
    rest = dict(shapes)
    del rest[matrices[0]]
    bias_name = f"{layer}.bias" if layer else "bias"
    kernel = file.read(stored[matrices[0]]).T.astype(np.float64)
    bias = np.zeros(classes)
    if rest.pop(bias_name, None) == (classes,):
        bias = file.read(stored[bias_name]).astype(np.float64)
    norms = {name.rpartition(".")[0] for name in rest}
    if len(norms) > 1 or not all(shape == (features,) for shape in rest.values()):
        raise _no_head(origin, shapes)
    if norms:
        parts = {name.rpartition(".")[2]: file.read(stored[name]).astype(np.float64) for name in rest}
        kernel, bias = _folded(parts, kernel, bias, f"{origin} has a norm {norms.pop()}")
    return LinearHead(origin, kernel.astype(np.float32), bias.astype(np.float32))


def _folded(
    parts: Mapping[str, NDArray[np.float64]], kernel: NDArray[np.float64], bias: NDArray[np.float64], found: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The layer with the BatchNorm before it inside: W(s(x - m)) + b = (Ws)x + b - Wsm."""
    if not {"running_mean", "running_var"} <= set(parts):
        raise CheckpointError(
            f"{found} before its linear layer that is no BatchNorm",
            fix="read the encoder alone: --no-head",
        )
    epsilon = NORM_EPSILON if "weight" in parts else PROBE_EPSILON
    scale = parts.get("weight", 1.0) / np.sqrt(parts["running_var"] + epsilon)
    shift = parts.get("bias", 0.0) - parts["running_mean"] * scale
    return kernel * scale[:, None], bias + shift @ kernel


def _no_head(origin: str, shapes: Mapping[str, tuple[int, ...]]) -> CheckpointError:
    listed = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:8])
    return CheckpointError(
        f"{origin} is no linear layer: {listed or 'it has no tensors'}",
        fix="read the encoder alone with --no-head, or give a head of one linear layer with --head FILE",
    )


def head_in(file: TensorFile, path: Path) -> LinearHead:
    """The head in a file of its own, whatever it is called there.

    Raises:
        CheckpointError: the file holds other things than one linear layer.
    """
    names = [name for name in file.names() if len(file.shape(name)) in (1, 2)]
    plain = {name: name.replace(KEY_END, ".") for name in names}
    fitting = [name for name in names if IN_A_FILE.search(plain[name])]
    if len(fitting) > MAX_FILE_TENSORS or not fitting:
        raise CheckpointError(
            f"{path} holds {len(names)} tensors ({', '.join(list(plain.values())[:4])}, …); expected a head alone",
            fix="give a file with the weight and the bias of one linear layer",
        )
    return linear_head(file, fitting, f"the head in {path.name}")


def with_head(checkpoint: Checkpoint, head: LinearHead) -> Checkpoint:
    """The model with this head, on what its width says that it is for.

    Raises:
        CheckpointError: a head for another number of features.
    """
    config = checkpoint.config
    features, classes = head.kernel.shape
    pooling = _pooling(config, features)
    if pooling is None:
        raise CheckpointError(
            f"{head.origin} is for {features} features, and the encoder gives {config.embed_dim}"
            + (", or twice as many as class token and mean" if config.class_token else ""),
            fix="read the encoder alone with --no-head, or give the head that was trained on it",
        )
    topped = config.replace(include_top=True, num_classes=classes, pooling=pooling)
    weights = {**checkpoint.weights, "head.kernel": head.kernel, "head.bias": head.bias}
    made = dataclasses.replace(checkpoint, config=topped, weights=weights, labels=())
    *before, last = made.provenance or (Step("import"),)
    assumed = {name: value for name, value in dict(last.facts.get("assumed", {})).items() if name != "pooling"}
    fact = {"origin": head.origin, "pooling": str(pooling), "num_classes": classes}
    step = Step(last.action, {**last.facts, "assumed": assumed, HEAD_FACT: fact})
    return dataclasses.replace(made, provenance=(*before, step))


def _pooling(config: ViTConfig, features: int) -> Pooling | None:
    if features == config.embed_dim:
        found = config.effective_pooling
        fitting = found not in (None, Pooling.CLS_MEAN, Pooling.CLS_DISTILLATION)
        return found if fitting else Pooling.CLS if config.class_token else Pooling.MEAN
    return Pooling.CLS_MEAN if features == 2 * config.embed_dim and config.class_token else None
