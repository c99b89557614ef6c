"""Fixtures shared by all tests: a tiny ViT that is square in nothing."""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import shutil
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# The tests' processes share the cores; threads of NumPy and torch spin while they wait for one that is taken.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Hundreds of processes import the package, which is compiled for the first of them alone.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from collections.abc import Generator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.weights import draw_weights


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests and the engines that they import stay to the end: garbage is not looked for among them."""
    sys.dont_write_bytecode = False  # where the environment had it otherwise
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Undo what is set for the whole process.

    The switch to Keras 2, where tensorflow-model-optimization is imported, and the silence of libraries, by a command.
    """
    before, silence = os.environ.get("TF_USE_LEGACY_KERAS"), logging.root.manager.disable
    try:
        return (yield)
    finally:
        logging.disable(silence)
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before


@pytest.fixture
def config() -> ViTConfig:
    return ViTConfig(
        image_size=(24, 32),
        patch_size=(8, 4),
        channels=3,
        embed_dim=12,
        num_heads=3,
        num_layers=2,
        mlp_dim=20,
        num_classes=5,
    )


@pytest.fixture
def checkpoint(config: ViTConfig) -> Checkpoint:
    return Checkpoint.random(config, seed=7)


@pytest.fixture
def images(config: ViTConfig) -> NDArray[np.float32]:
    shape = (3, *config.image_size, config.channels)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


class MakeCheckpoint(Protocol):
    """A checkpoint of the tiny config with some options changed and no weight left at its first value."""

    def __call__(self, **changes: Any) -> Checkpoint: ...


@pytest.fixture(scope="session")
def make_checkpoint() -> MakeCheckpoint:
    base = ViTConfig(
        image_size=(24, 32),
        patch_size=(8, 4),
        channels=3,
        embed_dim=12,
        num_heads=3,
        num_layers=2,
        mlp_dim=20,
        num_classes=5,
    )

    def make(**changes: Any) -> Checkpoint:
        config = base.replace(**changes)
        rng = np.random.default_rng(11)
        weights = {}
        for name, value in draw_weights(config, 3):
            # Biases that stay zero and scales that stay one would hide a part that is left out.
            spread = 0.25 if value.ndim > 1 else 0.2
            weights[name] = (value + spread * rng.standard_normal(value.shape)).astype(np.float32)
        return Checkpoint(config, weights, Preprocess.for_channels(config.channels))

    return make


@pytest.fixture(scope="session")
def bundles(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A proven artifact of each format that needs no GPU, not to be changed; copy one to damage it."""
    from vit_deploy.exporters import EXPORTERS
    from vit_deploy.exporters.plan import plan
    from vit_deploy.exporters.publish import export

    jobs, _ = plan(list(EXPORTERS), ["fp32"])
    results = export(make_checkpoint(), tmp_path_factory.mktemp("bundles"), jobs)
    assert all(result.published for result in results)
    return {result.artifact.format: result.artifact.directory for result in results}


@pytest.fixture(scope="session")
def timm() -> Any:
    """The timm library, with a stand-in where torchvision is not installed; skips where timm is not."""
    if importlib.util.find_spec("timm") is None or importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch and timm")
    import torchvision_stand_in

    torchvision_stand_in.install()
    import timm.models.vision_transformer

    return timm


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium; skips where there is none."""
    from browser import CHROMIUM

    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    return CHROMIUM


@pytest.fixture(scope="session")
def firefox() -> str:
    """The path of a Firefox; skips where there is none."""
    from browser import FIREFOX

    if FIREFOX is None:
        pytest.skip("needs Firefox")
    return FIREFOX


@pytest.fixture(scope="session")
def npm_files() -> Path:
    """The folder `node_modules` with onnxruntime-web, @litertjs/core and @huggingface/transformers; skips without."""
    from vit_deploy.runtimes.web.packages import VARIABLE

    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"needs {VARIABLE}, a node_modules with onnxruntime-web, @litertjs/core, @huggingface/transformers")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def node() -> str:
    """The path of Node; skips where there is none."""
    path = shutil.which("node")
    if path is None:
        pytest.skip("needs Node")
    return path
