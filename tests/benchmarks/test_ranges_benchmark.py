"""The table of ranges and outliers, and that a recipe which is not the best way shows."""

import pytest

from benchmarks import ranges, ranges_tables
from benchmarks.ranges_tables import RECIPE, render, targets


def result(agreements, data="digits"):
    """A stored result in which each way of ONNX's int8 has these shares, plain and planted."""
    host = {"cpu": "a", "cores": 2, "python": "3.11", "load_1m": 0.0}
    facts = {"started": "2026-01-01 00:00 UTC", "host": host, "versions": {}}
    variants = {
        variant: [
            {"format": "onnx", "precision": "int8", "way": way, "proven": way != "unproven", "lost": 0.5}
            | {"agreement": shares[index]}
            for way, shares in agreements.items()
        ]
        for index, variant in enumerate(ranges_tables.VARIANTS)
    }
    return {**facts, "model": f"{data}-0", "data": data, **variants}


@pytest.fixture
def onnx_alone(monkeypatch):
    monkeypatch.setattr(ranges_tables, "CASES", (("onnx", "int8"),))


def test_a_recipe_is_measured_against_the_best_of_the_other_ways_over_both_variants(onnx_alone):
    shares = {RECIPE: (0.990, 0.990), "other": (0.999, 0.900), "unproven": (0.992, 0.996)}
    on_digits, on_photos = targets({"a": result(shares)})
    assert on_digits.measured == pytest.approx(-0.4) and on_digits.met is False
    assert on_photos.measured is None and on_photos.met is None
    (better, _) = targets({"a": result(shares), "b": result({**shares, RECIPE: (1.0, 1.0)})})
    assert better.measured == pytest.approx(0.1) and better.met


def test_a_way_that_needs_images_is_no_choice_for_a_recipe_that_needs_none(onnx_alone):
    shares = {RECIPE: (0.990, 0.990), "nothing moved": (0.980, 0.980), "smoothed by 0.5": (1.0, 1.0)}
    (on_digits, _) = targets({"a": result(shares)})
    assert on_digits.measured == pytest.approx(1.0)
    assert "smoothed by 0.5" in render({"a": result(shares)})


def test_what_failed_its_proof_is_said():
    models = {
        "a": result({RECIPE: (1.0, 1.0), "unproven": (0.5, 0.5)}),
        "b": result({RECIPE: (1, 1), "unproven": (1, 1)}),
    }
    text = render(models)
    assert f"| onnx-int8 | {RECIPE} | 0.50 | 100.0% | 0.50 | 100.0% |" in text
    assert "| onnx-int8 | unproven | 0.50 | 75.0%, 2 of 2 not proven | 0.50 | 75.0%, 2 of 2 not proven |" in text


def test_what_is_measured_is_what_is_judged():
    assert tuple(ranges.CASES) == ranges_tables.CASES
    assert all(next(iter(ways)) == RECIPE and not ways[RECIPE] for ways in ranges.CASES.values())
