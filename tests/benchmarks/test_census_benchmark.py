"""A census that was cut off goes on with whole rows of the same code, and with no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import census


def test_rows_of_the_same_code_are_kept_but_for_one_that_was_being_written(tmp_path: Path) -> None:
    kept, versions = tmp_path / "census" / "timm.rows", {"timm": "1.0", "keras": "3"}
    census._Rows(kept, versions).add({"name": "a", "exact": True})
    with kept.open("a", encoding="utf-8") as file:
        file.write('{"name": "b", "exa')
    again = census._Rows(kept, {**versions, "keras": "4"})
    assert list(again.found) == ["a"]
    again.add({"name": "b", "exact": False})
    assert list(census._Rows(kept, versions).found) == ["a", "b"]


def test_rows_of_other_code_or_another_library_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "timm.rows"
    census._Rows(kept, {"timm": "1.0"}).add({"name": "a"})
    assert not census._Rows(kept, {"timm": "1.1"}).found
    census._Rows(kept, {"timm": "1.0"}).add({"name": "a"})
    monkeypatch.setattr(census, "_digest_of_sources", lambda: "another")
    assert not census._Rows(kept, {"timm": "1.0"}).found
