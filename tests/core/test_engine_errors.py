"""What engines raise becomes one kind of error, and what they did not raise stays as it is."""

from __future__ import annotations

import pytest

from vit_deploy.core.engine_errors import Reason, explained
from vit_deploy.errors import ConfigError, EngineError

FULL = Reason("out of memory", "take a smaller batch")
LOADING = explained("Engine 1.0 cannot load a.onnx", ValueError, "export it again")


def test_the_message_has_the_first_line_of_the_engines_and_the_fix():
    with pytest.raises(EngineError) as raised, LOADING:
        raise ValueError("\nno such operator\nat graph.cc:12")
    assert (raised.value.message, raised.value.fix) == (
        "Engine 1.0 cannot load a.onnx: no such operator",
        "export it again",
    )
    assert isinstance(raised.value.__cause__, ValueError)


def test_an_engine_that_says_nothing_is_quoted_as_such():
    with pytest.raises(EngineError, match=r"cannot load a\.onnx: it does not say why"), LOADING:
        raise ValueError


@pytest.mark.parametrize(("text", "message", "fix"), [("full", "out of memory", FULL.fix), ("else", "ELSE", "usual")])
def test_a_known_reason_has_its_own_words_and_fix(text, message, fix):
    block = explained(
        "It cannot",
        ValueError,
        "usual",
        words=lambda e: str(e).upper(),
        reason=lambda e: FULL if str(e) == "full" else None,
    )
    for _ in range(2):  # it can be entered again
        with pytest.raises(EngineError) as raised, block:
            raise ValueError(text)
        assert (raised.value.message, raised.value.fix) == (f"It cannot: {message}", fix)


@pytest.mark.parametrize("error", [KeyError("a bug"), ConfigError("ours, and a ValueError", fix="this")])
def test_bugs_and_our_own_errors_stay_as_they_are(error):
    with pytest.raises(type(error)) as raised, LOADING:
        raise error
    assert raised.value is error
