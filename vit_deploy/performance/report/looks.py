"""Colours and shapes of the artifacts and engines of a report, the same in all of its charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vit_deploy.performance.report.documents import Gathered
from vit_deploy.performance.report.naming import Names
from vit_deploy.performance.report.style import COLOURS, SHAPES

GREY = "var(--muted)"
CIRCLE = SHAPES[0]


@dataclass(frozen=True)
class Entry:
    """One line of the legend.

    Args:
        name: that it explains.
        colour: of a mark, in CSS.
        shape: of a mark, one of `SHAPES`.
    """

    name: str
    colour: str
    shape: str


class Looks:
    """What every series looks like: artifacts have colours and engines have shapes, while there are enough of both.

    Args:
        gathered: what the report tells.
        names: of everything in it.
    """

    def __init__(self, gathered: Gathered, names: Names) -> None:
        pairs = {names.series(case): (names.artifact_of(case), names.place(case)) for case in gathered.cases}
        artifacts = list(dict.fromkeys(artifact for artifact, _ in pairs.values()))
        places = list(dict.fromkeys(place for _, place in pairs.values()))
        self.legend: tuple[Entry, ...]
        if len(artifacts) <= COLOURS and len(places) <= len(SHAPES):
            shapes = {name: SHAPES[index] for index, name in enumerate(places)}
            colours = {name: colour(index) for index, name in enumerate(artifacts)}
            self._looks = {name: (colours[one], shapes[other]) for name, (one, other) in pairs.items()}
            self.legend = tuple(Entry(name, colours[name], CIRCLE) for name in artifacts)
            if len(places) > 1:
                self.legend += tuple(Entry(name, GREY, shapes[name]) for name in places)
        else:
            self._looks = {
                name: (colour(index), SHAPES[(index + index // COLOURS) % len(SHAPES)])
                for index, name in enumerate(pairs)
            }
            self.legend = tuple(Entry(name, *look) for name, look in self._looks.items())

    def scales(self, series: Sequence[str]) -> dict[str, Any]:
        """Encodings of colour and shape for some of the series; their legend is that of the page."""
        domain = list(dict.fromkeys(series))
        encoding = {"field": "series", "type": "nominal", "title": None, "legend": None}
        colours, shapes = ([self._looks[name][part] for name in domain] for part in (0, 1))
        return {
            "color": {**encoding, "scale": {"domain": domain, "range": colours}},
            "shape": {**encoding, "scale": {"domain": domain, "range": shapes}},
        }


def colour(place: int) -> str:
    """The colour of page.css with a number, which goes on from the first after the last."""
    return f"var(--series-{place % COLOURS})"
