"""Fixtures of the tests of many images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.photos import BROKEN, COUNT, Killed
from tests.linear_bundle import write_bundle
from vit_deploy.data import embedding


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "onnx-fp32")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for place in range(COUNT):
        Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8)).save(folder / f"{place:03}.png")
    for place in BROKEN:
        (folder / f"{place:03}.png").write_bytes(b"broken")
    return folder


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch):
    """Names of the images that were computed; the run is ended when as many as `counted.most` were."""
    monkeypatch.setattr(embedding, "PART_S", 0.0)  # a part for each group
    infer = embedding.Model._batch

    class Counted(list):
        most = 1000

    found = Counted()

    def counting(self, session, names, images):
        if len(found) >= found.most:
            raise Killed
        found.extend(names)
        return infer(self, session, names, images)

    monkeypatch.setattr(embedding.Model, "_batch", counting)
    return found
