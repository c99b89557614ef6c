"""Artifacts around the smallest models there are: `logits = flatten(images) @ WEIGHT`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.preprocess import Preprocess

HEIGHT, WIDTH, CHANNELS, CLASSES = 6, 5, 3, 4

MakeArtifact = Callable[..., Artifact]


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder for caches that is not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIT_DEPLOY_CACHE", str(tmp_path_factory.mktemp("caches")))
        yield


@pytest.fixture(scope="session")
def weight() -> np.ndarray[Any, Any]:
    size = HEIGHT * WIDTH * CHANNELS
    return np.random.default_rng(3).standard_normal((size, CLASSES)).astype(np.float32)


@pytest.fixture(scope="session")
def seven_images() -> np.ndarray[Any, Any]:
    return np.random.default_rng(4).standard_normal((7, HEIGHT, WIDTH, CHANNELS)).astype(np.float32)


@pytest.fixture
def make_artifact(tmp_path: Path) -> MakeArtifact:
    """What an artifact in `tmp_path` says of a model file there; the file is the test's own."""

    def make(format: str, batch: int | None = None, **spec: Any) -> Artifact:
        image = (HEIGHT, WIDTH, CHANNELS) if spec.get("layout") != "nchw" else (CHANNELS, HEIGHT, WIDTH)
        config = ViTConfig((HEIGHT, WIDTH), (3, 5), CHANNELS, 4, 1, 1, 8, CLASSES)
        return Artifact(
            directory=tmp_path,
            format=format,
            precision="fp32",
            config=config,
            preprocess=Preprocess.for_channels(CHANNELS),
            labels=(),
            input=InputSpec((batch, *image), **spec),
            weights_digest="",
        )

    return make
