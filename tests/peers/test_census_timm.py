"""The census of timm's names: each is exact, or refused with what it needs."""

from __future__ import annotations

import csv
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from benchmarks.census_tables import outcome
from benchmarks.records import RESULTS, read
from tests.peers import census_timm

ROWS = {row["name"]: row for row in census_timm.rows()}
SAMPLE = [*ROWS][10::40]
REFUSED = r"is not a ViT that vit-deploy knows: it has|is of no known dialect"


def test_nearly_all_names_of_timm_are_exact_and_none_is_wrong() -> None:
    names, exact = census_timm.counts()
    assert exact >= 0.98 * names
    assert {outcome(row) for row in ROWS.values()} == {"exact", "refused"}


def test_every_name_of_the_table_was_walked() -> None:
    text = resources.files("vit_deploy.checkpoints.timm").joinpath("architectures.csv").read_text(encoding="utf-8")
    assert ROWS.keys() == {row["name"] for row in csv.DictReader(text.splitlines())}


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if outcome(row) == "refused"])
def test_what_is_refused_says_what_it_has_and_what_to_do(name: str) -> None:
    assert re.search(REFUSED, ROWS[name]["refused"])
    assert ROWS[name]["fix"]


@pytest.mark.peers
def test_every_name_that_the_library_registers_was_walked(timm: Any) -> None:
    if timm.__version__ != read(RESULTS / "census")["timm"]["versions"]["timm"]:
        pytest.skip("another timm than the one that was walked: python -m benchmarks --only census")
    assert {name["name"]: name for name in census_timm.registered(timm)}.keys() == ROWS.keys()


def is_as_walked(name: str, timm: Any, folder: Path) -> None:
    found = census_timm.walked(timm, name, ROWS[name]["today"], folder)
    assert outcome(found) == outcome(ROWS[name])


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("name", SAMPLE)
def test_a_name_of_a_sample_is_what_it_was_when_all_were_walked(name: str, timm: Any, tmp_path: Path) -> None:
    is_as_walked(name, timm, tmp_path)


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("name", [name for name in ROWS if name not in SAMPLE])
def test_a_name_of_timm_is_what_it_was_when_all_were_walked(name: str, timm: Any, tmp_path: Path) -> None:
    is_as_walked(name, timm, tmp_path)
