"""The proofs on the wire: every convention has its row, every cell is filled, and a model made anew fills it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.conventions import FORMATS, proven, slug
from benchmarks.conventions_tables import LIMIT, QUANTIZED
from benchmarks.records import RESULTS, read
from tests.peers.conventions import CONVENTIONS, installed

STORED = read(RESULTS / "conventions")


def assert_every_cell_is_proven(found: Mapping[str, Any]) -> None:
    for distances in (found["wire"], found["other_size"]):
        if "none" in distances:  # at another size alone
            assert distances["none"] and distances is found["other_size"]
            continue
        assert list(distances) == list(FORMATS)
        assert max(distances.values()) < LIMIT
    assert {*QUANTIZED, *(f"{format}-fp32" for format in FORMATS)} == set(found["precisions"])
    assert not [failure for precision in found["precisions"].values() for failure in precision["failures"]]


def test_every_convention_has_its_row() -> None:
    assert {name: slug(name) for name in CONVENTIONS} == {result["convention"]: name for name, result in STORED.items()}


@pytest.mark.parametrize("name", STORED)
def test_every_cell_of_a_row_is_proven(name: str) -> None:
    assert_every_cell_is_proven(STORED[name])


def test_few_conventions_have_one_size_alone() -> None:
    alone = [result["convention"] for result in STORED.values() if "none" in result["other_size"]]
    assert sorted(alone) == ["AIMv2", "distances through a network"]


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_convention_made_anew_is_proven_in_every_format(name: str, tmp_path: Path) -> None:
    if not installed(CONVENTIONS[name]):
        pytest.skip(f"needs {', '.join(CONVENTIONS[name].needs)}")
    assert_every_cell_is_proven(proven(CONVENTIONS[name], tmp_path))
