"""Whose way a checkpoint is resampled in is told where the program that it comes from has none of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vit_deploy.core.resize import Convention
from vit_deploy.verification.targets import load_source

GOLDEN = Path(__file__).parents[1] / "peers" / "golden"
KERAS_HUB = GOLDEN / "keras_hub" / "vit_classifier.keras"
ASSUMED = "assumed: a keras-hub checkpoint is resampled as timm does it (say otherwise with --like)"


def test_the_command_tells_it_unless_it_is_said(run: Any, tmp_path: Path) -> None:
    words = ("resize", KERAS_HUB, "--image-size", "64x32", "-o", tmp_path / "large.safetensors", "--force")
    assert ASSUMED in run(*words).err.splitlines()
    assert "resampled as" not in run(*words, "--like", "google").err
    timm = run("resize", GOLDEN / "timm" / "plain", *words[2:])
    assert timm.code == 0 and "resampled" not in timm.err


@pytest.mark.parametrize(("like", "told"), [(None, True), (Convention.TIMM, False)])
def test_an_export_tells_it_too(like: str | None, told: bool) -> None:
    source = load_source(str(KERAS_HUB), {"image_size": (64, 32)}, None, like)
    assert (ASSUMED in source.note) is told
    assert "resized like timm" in source.note
    assert ASSUMED not in load_source(str(KERAS_HUB), {}, None).note
