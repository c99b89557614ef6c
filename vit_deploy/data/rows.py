"""What is written of images: their names, digests, failures, and what a model made of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.config import ViTConfig

VECTOR, CLASS, PROBABILITY = "vector", "class", "probability"


@dataclass(frozen=True)
class Rows:
    """Several images, in their order.

    Args:
        names: of the images.
        digests: SHA-256 of their bytes, in hexadecimal; empty where there was nothing to read.
        failures: why an image has no values; empty where it has.
        values: `vector` `(rows, …)`, or `class` and `probability` `(rows, k)`; NaN and -1 where an image has none.
    """

    names: tuple[str, ...]
    digests: tuple[str, ...]
    failures: tuple[str, ...]
    values: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, part: slice) -> Rows:
        return Rows(
            self.names[part],
            self.digests[part],
            self.failures[part],
            {name: value[part] for name, value in self.values.items()},
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return sum(value.nbytes for value in self.values.values())

    def text(self) -> str:
        """A line of JSON for each image: its name, its digest, and its failure where there is one."""
        lines = []
        for name, digest, failure in zip(self.names, self.digests, self.failures, strict=True):
            more = {"failure": failure} if failure else {}
            lines.append(json.dumps({"name": name, "digest": digest, **more}) + "\n")
        return "".join(lines)

    @classmethod
    def from_text(cls, text: str, values: Mapping[str, NDArray[Any]]) -> Rows:
        """The inverse of `text`."""
        records = [json.loads(line) for line in text.splitlines()]
        return cls(
            tuple(record["name"] for record in records),
            tuple(record["digest"] for record in records),
            tuple(record.get("failure", "") for record in records),
            values,
        )


def joined(parts: Sequence[Rows]) -> Rows:
    """Several groups as one."""
    if len(parts) == 1:
        return parts[0]
    return Rows(
        tuple(name for part in parts for name in part.names),
        tuple(digest for part in parts for digest in part.digests),
        tuple(failure for part in parts for failure in part.failures),
        {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values},
    )


def regrouped(parts: Iterable[Rows], size: int) -> Iterator[Rows]:
    """The same rows in groups of `size`, of which the last may be smaller."""
    waiting: list[Rows] = []
    count = 0
    for part in parts:
        waiting.append(part)
        count += len(part)
        while count >= size:
            whole = joined(waiting)
            yield whole[:size]
            waiting, count = [whole[size:]], count - size
    if count:
        yield joined(waiting)


def spread(outputs: NDArray[Any], failures: Sequence[str], filling: float) -> NDArray[Any]:
    """Values of readable images among those of all, with `filling` for the others."""
    whole = np.full((len(failures), *outputs.shape[1:]), filling, outputs.dtype)
    whole[[not failure for failure in failures]] = outputs
    return whole


def likeliest(logits: NDArray[np.float32], count: int, config: ViTConfig) -> dict[str, NDArray[Any]]:
    """The likeliest classes of each image and their probabilities, both `(images, count)`."""
    values = logits.astype(np.float64)
    best = np.argsort(-values, axis=-1, kind="stable")[:, :count]
    probabilities = config.probabilities.of(values)
    chosen = np.take_along_axis(probabilities, best, axis=-1)
    return {CLASS: best.astype(np.int32), PROBABILITY: chosen.astype(np.float32)}
