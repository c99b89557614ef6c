"""A name that is not known is answered with the one that was meant, or with all there are."""

from __future__ import annotations

import pytest

from vit_deploy.errors import closest, did_you_mean

KNOWN = ("onnx", "tflite", "savedmodel")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("onx", "did you mean 'onnx'?"),
        ("saved_model", "did you mean 'savedmodel'?"),
        ("pickle", "choose one of onnx, tflite, savedmodel"),
    ],
)
def test_the_fix_is_the_name_that_was_meant_or_all_of_them(name, words):
    assert did_you_mean(name, iter(KNOWN)) == words


def test_nothing_close_is_no_words_at_all():
    assert closest("pickle", KNOWN) == ""
    assert closest("tflit", KNOWN) == "did you mean 'tflite'?"
