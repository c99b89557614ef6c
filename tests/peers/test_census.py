"""The census: no row is wrong, none ends in a traceback, and what is refused is refused in the words of its row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.peers.census import LIMIT, Row, distance
from tests.peers.census_table import ANY, README, SOURCES, all_rows, table
from vit_deploy.checkpoints import load
from vit_deploy.core.reference import forward
from vit_deploy.errors import VitDeployError

ROWS = [row for row in all_rows() if row.can_be_made]


# Models that transformers makes take half a minute together, and keras-hub as long to import; its recorded files, and
# one row, are quick.
FIRST = next(row for row in ROWS if row.source == "transformers")
MARKED = [
    pytest.param(
        row,
        id=f"{row.source}: {row.name}",
        marks=pytest.mark.slow if (row.source == FIRST.source and row is not FIRST) or row.slow else [],
    )
    for row in ROWS
]


@pytest.mark.peers
@pytest.mark.parametrize("row", MARKED)
def test_a_row_is_exact_or_refused_in_its_words(row: Row, tmp_path: Path) -> None:
    made = row.make(tmp_path)
    stated = {**row.stated, **made.stated}
    if not row.refused:
        assert made.images is not None
        assert made.answer is not None
        assert distance(forward(load(made.path, config=stated or None), made.images), made.answer) < LIMIT
        return
    with pytest.raises(VitDeployError) as caught:
        load(made.path, config=stated or None)
    assert re.search(row.refused, caught.value.message)
    assert caught.value.fix
    if row.fixed is not None:
        assert made.images is not None
        assert made.answer is not None
        fixed = load(made.path, config={**stated, **row.fixed})
        assert distance(forward(fixed, made.images), made.answer) < LIMIT


def test_names_of_rows_are_their_own() -> None:
    names = [(row.source, row.name) for row in all_rows()]
    assert len(set(names)) == len(names)


def test_every_row_is_of_a_source_in_the_table() -> None:
    assert {row.source for row in all_rows()} <= {*SOURCES, ANY}


def test_the_readmes_table_counts_these_rows() -> None:
    assert table() in README.read_text(encoding="utf-8")
