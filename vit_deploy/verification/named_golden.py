"""Golden data of outputs by name, of which no more is kept than a file can carry.

Some 4 MB are kept of the output that is read first, and as much of all others together, in equal parts; and as much of
either again at all further sizes of images together. Where an output is larger than its part, fewer images are kept,
and where two are still too many, some of their rows: tokens, or queries of heads. Those are drawn with a seed, and a
few sums over all rows with random signs join them, in which every row shows.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.outputs import Output

Array = NDArray[Any]

NUMBERS = 1 << 19  # of all outputs together, 4 MB in float64
FEWEST = 2  # images, since a right answer is told from a constant one by their difference
SUMS = 4  # over all rows
SEED = 1805
OUTPUTS, NAMES, FLOORS = "outputs", "outputs.names", "outputs.noise_floors"
FIRST = ""  # the name by which the sums over the output that is read first are drawn


@dataclass(frozen=True)
class Kept:
    """What is kept of an output.

    Args:
        images: how many of the golden images, from the first on.
        rows: which rows of an image, in order; None for all.
        of_rows: how many an image has.
    """

    images: int
    rows: Array | None
    of_rows: int

    def of(self, values: Array, name: str = FIRST) -> Array:
        """The part `(images, rows, features)` of an output `(images, …)`; sums follow where it is not all rows."""
        table = values[: self.images].reshape(min(len(values), self.images), self.of_rows, -1)
        if self.rows is None:
            return table
        sums = np.einsum("sr,irf->isf", _signs(name, self.of_rows).astype(table.dtype), table)
        return np.concatenate([table[:, self.rows], sums], axis=1)

    def to_dict(self) -> dict[str, int]:
        """What is compared, in plain JSON values."""
        rows = self.of_rows if self.rows is None else len(self.rows)
        return {"images": self.images, "rows": rows, "of_rows": self.of_rows, "sums": 0 if self.rows is None else SUMS}


@dataclass(frozen=True)
class NamedGolden:
    """What is recorded of one output.

    Args:
        kept: which part of it.
        values: that part of the float64 reference's, `(images, rows, features)`.
        noise_floor: what rounding to float32 alone does to it; see `noise_floor.noise_floor`.
    """

    kept: Kept
    values: NDArray[np.float64]
    noise_floor: float


def kept_of(output: Output, config: ViTConfig, count: int, others: int) -> Kept:
    """What to keep of an output of a file that has others.

    Args:
        output: the output.
        config: the config of the ViT.
        count: how many golden images there are.
        others: how many outputs share the room.
    """
    shape = output.shape(config)
    features = shape[-1]
    size = int(np.prod(shape))
    room = NUMBERS // max(1, others)
    rows = size // features
    if FEWEST * size <= room:
        return Kept(min(count, room // size), None, rows)
    most = max(1, room // (FEWEST * features) - SUMS)
    return Kept(FEWEST, _drawn(output.name, rows, most), rows)


def _drawn(name: str, rows: int, count: int) -> Array:
    chosen = np.random.default_rng([SEED, *name.encode()]).choice(rows, min(rows, count), replace=False)
    return np.sort(chosen)


def _signs(name: str, rows: int) -> Array:
    """The factors of each sum, `(sums, rows)`, which leave rows that are independent as large as they are."""
    signs = np.random.default_rng([SEED + 1, *name.encode()]).choice([-1.0, 1.0], (SUMS, rows))
    result: Array = signs / np.sqrt(rows)
    return result


def to_arrays(named: Mapping[str, NamedGolden], prefix: str = "") -> dict[str, Array]:
    """Arrays for `golden.npz`, whose names begin with the prefix."""
    arrays: dict[str, Array] = {NAMES: np.array(list(named))}
    arrays[FLOORS] = np.array([golden.noise_floor for golden in named.values()], np.float64)
    for name, golden in named.items():
        arrays[f"{OUTPUTS}.{name}"] = golden.values
        if golden.kept.rows is not None:
            arrays[rows_name(name)] = golden.kept.rows
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def rows_name(name: str = FIRST) -> str:
    """What the array is called that says which rows of an output are kept."""
    return f"{OUTPUTS}.{name}.rows" if name else f"{OUTPUTS}.rows"


def first_kept(
    archive: zipfile.ZipFile,
    member: Callable[[zipfile.ZipFile, str], Array],
    artifact: Artifact,
    values: Array,
    prefix: str = "",
) -> Kept | None:
    """Which part of the output that is read first is recorded; None for all of it.

    Args:
        archive: `golden.npz`.
        member: reads one array of it.
        artifact: that they are of, taken for their size.
        values: what is recorded.
        prefix: that names of arrays begin with.

    Raises:
        ValueError, KeyError: arrays that are missing or do not fit.
    """
    name = f"{prefix}{rows_name()}"
    if f"{name}.npy" not in archive.namelist():
        return None
    own = [output for output in artifact.named_outputs if output.name == artifact.output_name]
    if not own:
        raise ValueError(f"it has rows of {artifact.output_name}, and the file has no outputs by name")
    return _checked(own[0], artifact.config, values, member(archive, name), len(values) if values.ndim else 0)


def from_archive(
    archive: zipfile.ZipFile,
    member: Callable[[zipfile.ZipFile, str], Array],
    artifact: Artifact,
    count: int,
    prefix: str = "",
) -> dict[str, NamedGolden]:
    """The inverse of `to_arrays`; empty where none are recorded.

    Args:
        archive: `golden.npz`.
        member: reads one array of it.
        artifact: that they are of, taken for their size.
        count: how many golden images there are.
        prefix: that names of arrays begin with.

    Raises:
        ValueError, KeyError: arrays that are missing or do not fit.
    """
    outputs = {output.name: output for output in artifact.named_outputs if output.name != artifact.output_name}
    if not outputs:
        return {}
    names, floors = member(archive, f"{prefix}{NAMES}"), member(archive, f"{prefix}{FLOORS}")
    if names.dtype.kind != "U" or sorted(names.tolist()) != sorted(outputs) or floors.shape != names.shape:
        raise ValueError(f"it has data of {names.tolist()}, and the file's other outputs are {list(outputs)}")
    if floors.dtype != np.float64 or not (np.isfinite(floors).all() and (floors > 0).all()):
        raise ValueError(f"the noise floors of its outputs are {floors}")
    found = {}
    for name, floor in zip(names.tolist(), floors.tolist(), strict=True):
        values = member(archive, f"{prefix}{OUTPUTS}.{name}")
        its_rows = f"{prefix}{rows_name(name)}"
        rows = member(archive, its_rows) if f"{its_rows}.npy" in archive.namelist() else None
        found[name] = NamedGolden(_checked(outputs[name], artifact.config, values, rows, count), values, floor)
    return found


def _checked(output: Output, config: ViTConfig, values: Array, rows: Array | None, count: int) -> Kept:
    """What the arrays of an output hold.

    Raises:
        ValueError: they are not of this output.
    """
    shape = output.shape(config)
    every = int(np.prod(shape)) // shape[-1]
    right = values.dtype == np.float64 and values.ndim == 3 and 1 <= len(values) <= count
    if rows is not None:
        right = right and rows.dtype.kind == "i" and rows.ndim == 1 and bool(((rows >= 0) & (rows < every)).all())
    expected = every if rows is None else len(rows) + SUMS
    if not right or values.shape[1:] != (expected, shape[-1]) or not np.isfinite(values).all():
        raise ValueError(f"{output.name} is recorded as {values.dtype} {values.shape}, which is no part of it")
    return Kept(len(values), rows, every)
