"""An emulated computer as another machine: what it proves counts, what it times does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.remote.mirror import Mirror, archive, prepare, served


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    prepare(monkeypatch, tmp_path / "cache")
    with served(archive()) as mirror:
        yield mirror


@pytest.mark.slow
def test_artifacts_are_proven_and_timed_there_and_times_are_compared_with_nothing(
    mirror: Mirror, run: Any, bundles: dict[str, Path], tmp_path: Path
) -> None:
    done = run("emulator", "setup", "--mirror", mirror.url, "--json")
    assert done.code == 0, done.err
    assert done.document["results"][0]["cpus"] == ["cortex-a53", "cortex-a76"]
    on = ["--on", "qemu://cortex-a76"]
    proven = run("verify", bundles["onnx"], *on, "--quick", "--json")
    assert proven.code == 0, proven.err
    [record] = proven.document["results"]
    assert (record["verdict"], record["on"], record["emulated"]) == ("same", "qemu://cortex-a76", True)
    saved = tmp_path / "emulated.json"
    words = ("--runtime", "onnxruntime", "--threads", "1,2", "--runs", 3)
    timed = run("bench", bundles["onnx"], *on, *words, "--save", saved)
    assert timed.code == 0, timed.err
    assert "times of an emulator, which say nothing about a real machine" in timed.err
    assert [line.split()[-1] for line in timed.out.splitlines() if "qemu://" in line] == ["emulated"] * 2
    assert "*" not in timed.out
    assert all(record["emulated"] for record in json.loads(saved.read_text())["results"])
    for words in (
        ("bench", bundles["onnx"], "--runs", 3, "--baseline", saved),
        ("report", saved, "-o", tmp_path / "report.md"),
    ):
        refused = run(*words)
        assert refused.code == 2 and "times of an emulator" in refused.err
    refused = run("bench", bundles["onnx"], *on, "--baseline", saved)
    assert refused.code == 2 and "times of an emulator are compared with nothing" in refused.err
    assert run("emulator", "remove").code == 0
    assert run("emulator", "show").code == 2
    assert run("verify", bundles["onnx"], *on).code == 2
    assert run("emulator", "fetch").code == 2
