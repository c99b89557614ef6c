"""Photographs of which two are broken, and their features one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import vit_deploy
from tests.linear_bundle import CLASSES, HEIGHT, WIDTH
from vit_deploy.core.images import load_image
from vit_deploy.core.manifest import read_artifact

COUNT = 30


BROKEN = (4, 17)


def embed(bundle, photos, output, **options):
    return vit_deploy.embed(bundle, photos, output, **{"workers": 0, "batch": 4, **options})


def expected(bundle: Path, photos: Path) -> np.ndarray:
    artifact = read_artifact(bundle)
    rows = []
    with vit_deploy.session(artifact) as session:
        for place in range(COUNT):
            if place in BROKEN:
                rows.append(np.full(CLASSES, np.nan, np.float32))
            else:
                image = load_image(photos / f"{place:03}.png", artifact.preprocess, (HEIGHT, WIDTH))
                rows.append(session.infer(image[None])[0])
    return np.stack(rows)


class Killed(BaseException):
    """What ends a run at once, wherever it is."""
