"""Documents to make reports of."""

from __future__ import annotations

import json

import pytest
from records import ARTIFACTS, evaluated, measured, verified

from vit_deploy.core.documents import document
from vit_deploy.performance.report.documents import gather


@pytest.fixture
def write(tmp_path):
    """Writes a document of a command, and gives its path."""

    def make(command, records, name=None):
        path = tmp_path / (name or f"{command}.json")
        path.write_text(json.dumps(document(command, records, ok=True)), encoding="utf-8")
        return path

    return make


@pytest.fixture
def files(write):
    """Of all commands whose results a report joins."""
    exported = {"path": "arts/onnx-fp32", "precision": "fp32", "bytes": 5_000_000, "parity": verified("x")}
    return [
        write("bench", measured()),
        write("evaluate", [evaluated(name, top1=0.9 - 0.01 * number) for number, name in enumerate(ARTIFACTS)]),
        write("verify", [verified(name) for name in list(ARTIFACTS)[1:]]),
        write("export", [exported]),
    ]


@pytest.fixture
def gathered(files):
    return gather(files)
