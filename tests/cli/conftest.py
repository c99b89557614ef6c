"""Fixtures of the command line: a command runs in this process and says what it printed."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.hub_server import Hub, serving
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


ROOT = Path(__file__).parents[2]
Run = Callable[..., Said]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs `vit-deploy` with arguments, in this process."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def call(*arguments: object) -> Said:
        capfd.readouterr()
        code = cli.run([str(argument) for argument in arguments])
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


@pytest.fixture
def timm_files() -> dict[str, bytes]:
    """Files of a small ViT as timm writes them for its hub, with a card."""
    folder = ROOT / "tests" / "peers" / "golden" / "timm" / "plain"
    card = b"---\ntags:\n- image-classification\nlibrary_name: timm\nlicense: apache-2.0\n---\n# Model card\n"
    return {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")} | {"README.md": card}


@pytest.fixture(scope="session")
def served() -> Iterator[Hub]:
    """A hub on loopback, with whatever the last test left there."""
    with serving() as hub:
        yield hub


@pytest.fixture
def hub(served: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    """An empty hub, which this process and those that it starts take for the only one, with an empty cache."""
    constants = pytest.importorskip("huggingface_hub.constants")
    home = tmp_path / "hf-home"
    served.empty()
    settings = {"HF_ENDPOINT": served.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path / "vit-deploy-cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    # The client reads them when it is imported, which another test may have done.
    monkeypatch.setattr(constants, "ENDPOINT", served.endpoint)
    template = f"{served.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # which needs a server of its own
    return served


@pytest.fixture
def command(hub: Hub) -> Run:
    """Runs `vit-deploy` with arguments in a process of its own, with the environment as it is."""

    def call(*arguments: object, **environment: str) -> Said:
        words = [sys.executable, "-m", "vit_deploy", *map(str, arguments)]
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **environment})
        return Said(done.returncode, done.stdout, done.stderr)

    return call
