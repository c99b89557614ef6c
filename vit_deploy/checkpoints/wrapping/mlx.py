"""Weights that MLX has quantized: whole numbers of a few bits, with a scale and an offset for each group of them.

The affine kind means `scale * number + bias`, which is what MLX computes with; its floats of four and eight bits are
refused by their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.checkpoints.source import KEY_END, TensorFile, TensorView, whole_numbers
from vit_deploy.core.config_checks import is_count
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

WEIGHT, SCALES, BIASES = ".weight", ".scales", ".biases"
PACKED_TYPES = ("U32", "uint32")
WORD = 32  # bits
BITS = (1, 2, 3, 4, 5, 6, 8)
SECTIONS = ("quantization", "quantization_config")  # of config.json
AFFINE = "affine"
CHUNK_NUMBERS = 1 << 20  # that are unpacked at once
AGAIN = "get the weights that it was quantized from, and quantize what is exported: vit-deploy quantize"


@dataclass(frozen=True)
class Packed:
    """How the numbers of one matrix are packed.

    Args:
        bits: of each.
        group: so many in a row share a scale and a bias.
        shape: of the matrix.
    """

    bits: int
    group: int
    shape: tuple[int, int]


@dataclass(frozen=True)
class Unpacked(TensorView):
    """A `TensorFile` whose packed matrices are shown as the floats that they stand for.

    Args:
        file: that is read.
        packed: by name.
    """

    packed: Mapping[str, Packed]

    @property
    def documents(self) -> Mapping[str, Any]:
        """Of the file."""
        return self.file.documents

    def names(self) -> Iterable[str]:
        """Names of all tensors but scales and biases."""
        hidden = {name.removesuffix(WEIGHT) + part for name in self.packed for part in (SCALES, BIASES)}
        return [name for name in self.file.names() if name not in hidden]

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor, unpacked."""
        return self.packed[name].shape if name in self.packed else self.file.shape(name)

    def dtype(self, name: str) -> str:
        """Of one tensor; that of the scales where it is packed."""
        return self.file.dtype(name.removesuffix(WEIGHT) + SCALES if name in self.packed else name)

    def read(self, name: str) -> Float32:
        """One tensor as float32."""
        if name not in self.packed:
            return self.file.read(name)
        packed, module = self.packed[name], name.removesuffix(WEIGHT)
        words = whole_numbers(self.file, name)
        scales, biases = (self.file.read(module + part).astype(np.float64) for part in (SCALES, BIASES))
        values = np.empty(packed.shape, np.float32)
        rows = max(CHUNK_NUMBERS // packed.shape[1], 1)
        for start in range(0, packed.shape[0], rows):
            part = slice(start, start + rows)
            numbers = _unpacked(words[part], packed).reshape(*scales[part].shape, packed.group)
            floats = numbers * scales[part, :, None] + biases[part, :, None]
            values[part] = floats.reshape(-1, packed.shape[1])
        return values


def without_packing(file: TensorFile) -> TensorFile:
    """The file with MLX's packed matrices as floats; itself where it has none.

    Raises:
        CheckpointError: nothing says how they are packed, or they are packed in another way than the affine one.
    """
    names = frozenset(file.names())
    found = [
        name
        for name in sorted(names)
        if name.endswith(WEIGHT)
        and name.removesuffix(WEIGHT) + SCALES in names
        and file.dtype(name) in PACKED_TYPES
        and len(file.shape(name)) == 2
    ]
    return Unpacked(file, dict(_packed(file, found, names))) if found else file


def _packed(file: TensorFile, found: Iterable[str], names: frozenset[str]) -> Iterator[tuple[str, Packed]]:
    sections = _sections(file)
    for name in found:
        module = name.removesuffix(WEIGHT)
        plain = module.rpartition(KEY_END)[2]
        said = next((section for section in sections if {"bits", "group_size"} <= set(section)), {})
        own: Mapping[str, Any] = next(
            (section[plain] for section in sections if isinstance(section.get(plain), Mapping)), {}
        )
        said = {**said, **own}
        mode = said.get("mode", AFFINE)
        if mode != AFFINE or module + BIASES not in names:
            other = mode if mode != AFFINE else f"a kind without {plain}{BIASES}"
            raise CheckpointError(
                f"its weights are quantized by MLX ({plain}{WEIGHT}), {other}; expected the {AFFINE} kind", fix=AGAIN
            )
        yield name, _checked(file, name, said)


def _sections(file: TensorFile) -> list[Mapping[str, Any]]:
    document = file.documents.get("config.json")
    found = [document.get(section) for section in SECTIONS] if isinstance(document, Mapping) else []
    return [section for section in found if isinstance(section, Mapping)]


def _checked(file: TensorFile, name: str, said: Mapping[str, Any]) -> Packed:
    module = name.removesuffix(WEIGHT)
    bits, group = said.get("bits"), said.get("group_size")
    if bits is None or group is None:
        raise CheckpointError(
            f"its weights are quantized by MLX ({_plain(name)}), and no config.json says bits and group_size",
            fix="put the config.json beside it that was saved with it, with its quantization {bits, group_size}",
        )
    rows, words = file.shape(name)
    columns = words * WORD // bits if is_count(bits) and bits in BITS else 0
    fits = is_count(group) and group > 0 and columns * bits == words * WORD and columns % group == 0
    expected = (rows, columns // group) if fits and rows and columns else None
    shapes = [file.shape(module + part) for part in (SCALES, BIASES)]
    if shapes != [expected] * 2 or expected is None:
        raise CheckpointError(
            f"{_plain(name)} {(rows, words)} with scales {shapes[0]} and biases {shapes[1]} is not packed as its "
            f"config.json says, in {bits} bits and groups of {group}",
            fix="get the weights and their config.json again",
        )
    return Packed(bits, group, (rows, columns))


def _unpacked(words: NDArray[np.uint32], packed: Packed) -> NDArray[np.float64]:
    """The numbers of some rows: a stream of bits, from the lowest of the first word on."""
    stream = np.unpackbits(words.astype("<u4").view(np.uint8), axis=1, bitorder="little")
    powers = 2.0 ** np.arange(packed.bits)
    numbers: NDArray[np.float64] = stream.reshape(len(words), packed.shape[1], packed.bits) @ powers
    return numbers


def _plain(name: str) -> str:
    return name.replace(KEY_END, ".")
