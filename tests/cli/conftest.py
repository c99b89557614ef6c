"""Fixtures of the command line: a command runs in this process and says what it printed."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vit_deploy import checkpoints, cli


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout; anything beside it fails."""
        values = json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert isinstance(values, dict)
        return values


Run = Callable[..., Said]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs `vit-deploy` with arguments, in this process."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def call(*arguments: object) -> Said:
        capfd.readouterr()
        code = cli.run([str(each) for each in arguments])
        return Said(code, *capfd.readouterr())

    with warnings.catch_warnings():
        yield call
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def keras_file(make_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `.keras` file of the tiny checkpoint, not to be changed."""
    path = tmp_path_factory.mktemp("checkpoint") / "small.keras"
    checkpoints.save(make_checkpoint(), path)
    return path
