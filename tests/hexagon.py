"""Marks of tests that run on an emulated Hexagon processor."""

from __future__ import annotations

import importlib.util

import pytest

INSTALLED = importlib.util.find_spec("onnxruntime_qnn") is not None
ON_HEXAGON = [pytest.mark.qnn, pytest.mark.skipif(not INSTALLED, reason="needs onnxruntime-qnn")]

if INSTALLED:
    # Where Qualcomm's plugin was loaded before, TensorFlow crashes; see `registry.CRASHES_AFTER`.
    import tensorflow  # noqa: F401


def on_hexagon(test):
    """A test with these marks."""
    for mark in ON_HEXAGON:
        test = mark(test)
    return test
