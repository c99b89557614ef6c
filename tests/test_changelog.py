"""The changelog has the package's version on top, and its versions are in order."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import vit_deploy

CHANGELOG = (Path(__file__).parent.parent / "CHANGELOG.md").read_text(encoding="utf-8")
RELEASES = re.findall(r"^## (\d+)\.(\d+)\.(\d+) - (\d{4}-\d{2}-\d{2})$", CHANGELOG, re.M)


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    assert ".".join(RELEASES[0][:3]) == vit_deploy.__version__


def test_every_release_has_a_later_date_and_a_higher_version_than_the_one_below() -> None:
    headings = re.findall(r"^## (.*)$", CHANGELOG, re.M)
    assert len(headings[1:] if headings[0] == "Unreleased" else headings) == len(RELEASES) >= 2
    versions = [tuple(map(int, release[:3])) for release in RELEASES]
    dates = [date.fromisoformat(release[3]) for release in RELEASES]
    assert versions == sorted(set(versions), reverse=True) and dates == sorted(dates, reverse=True)


def test_changes_stand_under_the_kinds_of_keep_a_changelog() -> None:
    kinds = set(re.findall(r"^### (.*)$", CHANGELOG, re.M))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
