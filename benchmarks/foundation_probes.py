"""Linear probes and nearest neighbours by fp32's vectors, which tell the classes of photographs by those of any file.

Photographs are told by probes that other photographs made, over several ways of halving them: where one probe is in
doubt of a photograph another is not, so that what a precision loses shows with a smaller error. All precisions are told
by the same probes, which are made of the first photographs alone, however many more a precision is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vit_deploy.verification.probes import LinearProbe, fit_linear_probe, nearest

Float32 = NDArray[np.float32]
Classes = NDArray[np.int64]

HALVINGS = 10
SEED = 0  # of them


@dataclass(frozen=True, eq=False)
class Judge:
    """Photographs by fp32, and the probes that they make.

    Args:
        gallery: fp32's vectors `(known, dim)` of photographs that are told by none.
        known: their classes.
        exact: fp32's vectors `(n, dim)` of those that are told.
        classes: their classes.
        made_of: so many of these, the first, are what probes and neighbours are of.
        halves: `(halvings, n)`, on which side each is.
        probes: of each halving two: the first is made of the gallery and of side 0, and tells side 1.
    """

    gallery: Float32
    known: Classes
    exact: Float32
    classes: Classes
    made_of: int
    halves: NDArray[np.bool_]
    probes: Sequence[tuple[LinearProbe, LinearProbe]]

    def told(self, own: Float32) -> dict[str, float]:
        """What a file loses by its vectors `(m, dim)` of the first m photographs: shares, and points with an error."""
        count = len(own)
        facts: dict[str, float] = {"told": count, "made_of": self.made_of, "halvings": len(self.halves)}
        ways: Mapping[str, Callable[[Float32, int, int], Classes]] = {
            "linear_probe": lambda vectors, halving, side: self.probes[halving][side].classes(vectors),
            "knn": self._by_neighbours,
        }
        for name, tell in ways.items():
            found, expected = (self._over_halvings(vectors, tell) for vectors in (own, self.exact[:count]))
            right, exact = (told == self.classes[:count] for told in (found, expected))
            lost = (exact.astype(np.float64) - right).mean(axis=0)
            facts |= {
                name: float(right.mean()),
                f"fp32_{name}": float(exact.mean()),
                f"{name}_error": float(lost.std(ddof=1) / np.sqrt(count)),
                f"{name.removeprefix('linear_')}_agreement": float((found == expected).mean()),
            }
        return facts

    def _over_halvings(self, vectors: Float32, tell: Callable[[Float32, int, int], Classes]) -> Classes:
        """What each of the photographs is told, `(halvings, m)`, by what the other half made."""
        found = np.zeros((len(self.halves), len(vectors)), np.int64)
        for halving, sides in enumerate(self.halves):
            for side in (0, 1):
                asked = sides[: len(vectors)] != bool(side)
                if asked.any():
                    found[halving, asked] = tell(vectors[asked], halving, side)
        return found

    def _by_neighbours(self, vectors: Float32, halving: int, side: int) -> Classes:
        there = np.flatnonzero(self.halves[halving, : self.made_of] == bool(side))
        near = nearest(vectors, np.concatenate([self.gallery, self.exact[there]]))
        return near.classes(np.concatenate([self.known, self.classes[there]]))


def judge(gallery: Float32, known: Classes, exact: Float32, classes: Classes, made_of: int) -> Judge:
    """Fit the probes; see `Judge`."""
    rng = np.random.default_rng(SEED)
    halves = np.concatenate(
        [
            np.stack([rng.permutation(count) % 2 == 1 for _ in range(HALVINGS)])
            for count in (made_of, len(exact) - made_of)
        ],
        axis=1,
    )

    def probe(sides: NDArray[np.bool_]) -> LinearProbe:
        there = np.flatnonzero(sides[:made_of])
        return fit_linear_probe(np.concatenate([gallery, exact[there]]), np.concatenate([known, classes[there]]))

    return Judge(gallery, known, exact, classes, made_of, halves, [(probe(~sides), probe(sides)) for sides in halves])
