"""The tensors of a file as canonical weights, each read once and only where it fits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vit_deploy.checkpoints.source import TensorFile
from vit_deploy.core.checkpoint import misfit, weight_problems
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.weights import Float32, WeightSpec, weight_specs
from vit_deploy.errors import CheckpointError

STRIP = 64  # columns of a transposed matrix that are copied together
MAX_AXES = 16
MAX_NUMBERS = 1 << 48  # in one tensor; NumPy can still describe an array of that many


@dataclass(frozen=True)
class Origin:
    """Where one canonical weight comes from.

    Args:
        names: the names of the tensors it is made of, as the file has them; none for a constant.
        make: takes them as arrays, gives the weight. It is tried on stand-ins first, which have the shapes and no
            memory: it may move, split, join and scale, and must not look at the values.
    """

    names: tuple[str, ...]
    make: Callable[..., Float32]


def same(name: str) -> Origin:
    """The tensor as it is."""
    return Origin((name,), lambda tensor: tensor)


def transposed(name: str) -> Origin:
    """A matrix (outputs, inputs), as PyTorch keeps it, as our (inputs, outputs)."""
    return Origin((name,), lambda tensor: tensor.T)


def zeros(*shape: int) -> Origin:
    """A weight that the file does without, and which then changes nothing."""
    return Origin((), lambda: np.zeros(shape, np.float32))


def gather(
    file: TensorFile,
    origins: Mapping[str, str | Origin],
    config: ViTConfig,
    *,
    ignored: Collection[str] = (),
    layers_a_tensor: int = 1,
    found: Sequence[str] = (),
) -> dict[str, Float32]:
    """The weights by canonical name.

    A tensor is read once, however many weights are made of it, and not at all where it does not fit: an empty stand-in
    of its shape is enough for `Checkpoint` to list it with everything else that is wrong. So are the tensors that no
    weight is made of: they are returned under their own names.

    Args:
        file: that is read.
        origins: where each canonical weight comes from; a text is the name of a tensor that is taken as it is.
        config: whose weights they are.
        ignored: names of tensors that the function of the model does not depend on.
        layers_a_tensor: the number of layers whose weights one tensor holds.
        found: what is known to be wrong already, and is listed with the rest.

    Raises:
        CheckpointError: the config asks for far more than the file has, tensors cannot be taken apart as their
            dialect wants, or something was wrong before.
    """
    check_layers(file, config, layers_a_tensor)
    stored = dict.fromkeys(file.names())
    specs = weight_specs(config)
    table = {name: same(origin) if isinstance(origin, str) else origin for name, origin in origins.items()}
    table = {name: origin for name, origin in table.items() if all(tensor in stored for tensor in origin.names)}
    weights, problems = _fitting(file, table, specs)
    used = {name for origin in table.values() for name in origin.names}
    unexpected = {name: _stand_in(file, name) for name in stored if name not in used and name not in ignored}
    if problems or found:
        problems += weight_problems(config, weights | unexpected)
        if not problems:
            raise CheckpointError("; ".join(found), fix="correct the config, or leave out what is not known")
        raise misfit([*found, *problems])
    return weights | unexpected


def check_layers(file: TensorFile, config: ViTConfig, layers_a_tensor: int = 1) -> None:
    """Refuse a config of more layers than a file can hold: it can claim any number, and each costs memory.

    Raises:
        CheckpointError: it claims more than there are tensors, or than they hold where each holds those of many.
    """
    held = len(list(file.names()))
    if config.num_layers > held * layers_a_tensor:
        raise CheckpointError(
            f"its config says {config.num_layers} layers, and it holds {held} weights in all",
            fix="the file is damaged: get it again",
        )


def _fitting(
    file: TensorFile, table: Mapping[str, Origin], specs: Mapping[str, WeightSpec]
) -> tuple[dict[str, Float32], list[str]]:
    """The weights in the order of the table, those that do not fit as stand-ins, and what cannot even be made."""
    weights: dict[str, Float32] = {}
    problems: list[str] = []
    fitting: dict[str, Origin] = {}
    for name, origin in table.items():
        stand_ins = [_stand_in(file, name) for name in origin.names]
        try:
            weights[name] = origin.make(*stand_ins)
        except (ValueError, IndexError) as error:
            shapes = ", ".join(f"{name} {file.shape(name)}" for name in origin.names)
            problems.append(f"{name} cannot be made of {shapes}: {error}")
            continue
        if name in specs and weights[name].shape == specs[name].shape:
            fitting[name] = origin
    pending = Counter(name for origin in fitting.values() for name in origin.names)
    held: dict[str, Float32] = {}
    for name, origin in fitting.items():
        for tensor in origin.names:
            if tensor not in held:
                held[tensor] = file.read(tensor)
        weights[name] = _in_order(origin.make(*(held[tensor] for tensor in origin.names)))
        # Zero axes are lost on `ascontiguousarray`.
        weights[name] = weights[name].reshape(specs[name].shape)
        _drop(held, pending, origin.names)
    return weights, problems


def _in_order(weight: Float32) -> Float32:
    """The same numbers as float32 in C order; a transposed matrix strip by strip, so that both sides stay cached."""
    if weight.ndim != 2 or weight.flags.c_contiguous or weight.strides[0] > weight.strides[1]:
        return np.ascontiguousarray(weight, np.float32)
    ordered = np.empty(weight.shape, np.float32)
    for start in range(0, weight.shape[1], STRIP):
        ordered[:, start : start + STRIP] = weight[:, start : start + STRIP]
    return ordered


def _drop(held: dict[str, Float32], pending: Counter[str], names: Iterable[str]) -> None:
    for name in names:
        pending[name] -= 1
        if not pending[name]:
            del held[name]


def _stand_in(file: TensorFile, name: str) -> Float32:
    shape = file.shape(name)
    if len(shape) > MAX_AXES or math.prod(max(side, 1) for side in shape) > MAX_NUMBERS:
        raise CheckpointError(f"{name} declares the shape {shape}", fix="the file is damaged: get it again")
    return np.broadcast_to(np.float32(0), shape)
