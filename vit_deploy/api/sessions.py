"""Artifacts loaded in an engine, and image files as their input."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import ConfigError
from vit_deploy.runtimes import RuntimeOptions, Session, open_session, runtime_for


def session(
    bundle: str | Path | Artifact,
    *,
    runtime: str | None = None,
    threads: int | None = None,
    provider: str | None = None,
    device: int = 0,
    cuda_graph: bool = False,
    runtime_files: str | Path | None = None,
    browser: str | None = None,
) -> AbstractContextManager[Session]:
    """Load an artifact in an engine: `with session(path) as model: logits = model.infer(images)`.

    Threads may share it: each call is whole, and its answer a copy that is the caller's own.

    Args:
        bundle: the folder of an artifact, or one of those that `export` returned.
        runtime: None takes the format's usual one.
        threads: for the work inside one call; None leaves the engine's own choice.
        provider: what executes the graph; None takes the engine's usual one.
        device: which GPU of those that are visible, from 0.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.
        runtime_files: the folder `node_modules` with the JavaScript of engines in browsers; None for the environment's.
        browser: the program of a browser, where one runs it; None takes the first that is installed.

    Raises:
        ArtifactError: no artifact, or one that was changed.
        ConfigError: a runtime that does not run this format, or options of a GPU where none executes the graph.
        MissingEngineError, EngineError: the engine is not installed, or refuses the file.
    """
    artifact = as_artifact(bundle)
    files = None if runtime_files is None else str(runtime_files)
    options = RuntimeOptions(
        threads, provider, device=device, cuda_graph=cuda_graph, runtime_files=files, browser=browser
    )
    return open_session(artifact, runtime_for(artifact, runtime, options), options)


def read_images(bundle: str | Path | Artifact, files: str | Path | Sequence[str | Path]) -> NDArray[Any]:
    """Image files as the input of a session: `model.infer(read_images(bundle, ["a.jpg", "b.jpg"]))`.

    Each is resized, cropped and normalised as the artifact has recorded it.

    Args:
        artifact: its folder, or one of those that `export` returned.
        files: image files; of a folder the images in it, by name.

    Returns:
        `(files, height, width, channels)`: normalised float32, or uint8 pixels where preprocessing is in the model.

    Raises:
        ArtifactError: no artifact, or one that was changed.
        ConfigError: something that is no path, or no file at all.
        DataError: a file that is missing or broken, or a folder without images.
        MissingEngineError: Pillow is not installed.
    """
    from vit_deploy.core.images import load_image, load_pixels
    from vit_deploy.runtimes.classify import image_files

    artifact = as_artifact(bundle)
    given = [files] if isinstance(files, str | Path) else list(files) if isinstance(files, Sequence) else files
    if not isinstance(given, list) or not given or not all(isinstance(image, str | Path) for image in given):
        raise ConfigError(f"files is {files!r}; expected the path of an image or several", fix="give paths of images")
    load = load_pixels if artifact.input.preprocessing_inside else load_image
    found = image_files([Path(path) for path in given])
    return np.stack([load(path, artifact.preprocess, artifact.config.image_size) for path in found])


def as_artifact(bundle: str | Path | Artifact) -> Artifact:
    """The artifact in a folder, or the artifact itself.

    Raises:
        ArtifactError: no artifact, or one that was changed.
        ConfigError: it is neither.
    """
    if isinstance(bundle, Artifact):
        return bundle
    given: object = bundle
    if isinstance(given, str | Path):
        return read_artifact(Path(given))
    said, fix = (
        f"{type(given).__name__} is no artifact",
        "give an artifact's folder, or an artifact that export returned",
    )
    if isinstance(given, list | tuple) and all(isinstance(artifact, Artifact) for artifact in given):
        said, fix = f"{said}, but holds {len(given)} of them", "give one of them"
    raise ConfigError(said, fix=fix)
