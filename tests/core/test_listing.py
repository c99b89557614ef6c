"""The first of several texts in one line."""

from __future__ import annotations

from vit_deploy.core.listing import listed


def test_the_first_texts_are_told_and_the_others_counted():
    assert listed(["a", "b", "c"], 3) == "a, b, c"
    assert listed(["a", "b", "c", "d"], 2) == "a, b and 2 more"
    assert listed(["a", "b", "c"], 2, "; ") == "a; b; and 1 more"
