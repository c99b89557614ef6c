"""The census: no row is wrong, none ends in a traceback, and what is refused is refused in the words of its row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.peers import census_more_transformers, census_trainings, census_transformers, census_wrapping
from tests.peers.census import LIMIT, Row, distance
from vit_deploy.checkpoints import load
from vit_deploy.core.reference import forward
from vit_deploy.errors import VitDeployError


def rows() -> list[Row]:
    found = [row for module in MODULES for row in module.rows()]
    return [row for row in found if row.can_be_made]


MODULES = (census_trainings, census_wrapping, census_transformers, census_more_transformers)
ROWS = rows()


@pytest.mark.peers
@pytest.mark.parametrize("row", ROWS, ids=[f"{row.source}: {row.name}" for row in ROWS])
def test_a_row_is_exact_or_refused_in_its_words(row: Row, tmp_path: Path) -> None:
    made = row.make(tmp_path)
    if not row.refused:
        assert made.images is not None
        assert made.answer is not None
        assert distance(forward(load(made.path, config=dict(row.stated) or None), made.images), made.answer) < LIMIT
        return
    with pytest.raises(VitDeployError) as caught:
        load(made.path, config=dict(row.stated) or None)
    assert re.search(row.refused, caught.value.message)
    assert caught.value.fix
    if row.fixed is not None:
        assert made.images is not None
        assert made.answer is not None
        fixed = load(made.path, config={**row.stated, **row.fixed})
        assert distance(forward(fixed, made.images), made.answer) < LIMIT


def test_names_of_rows_are_their_own() -> None:
    names = [(row.source, row.name) for row in ROWS]
    assert len(set(names)) == len(names)
