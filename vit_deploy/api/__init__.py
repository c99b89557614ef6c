"""The Python API: functions that export a model, prove an artifact, and run one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact, read_artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import SCALE_CONFIGS
from vit_deploy.errors import ConfigError, ExportError
from vit_deploy.runtimes import RUNTIMES, RuntimeOptions, Session
from vit_deploy.runtimes.choosing import refuse_idle_options, runtime_for
from vit_deploy.verification.parity import Verification
from vit_deploy.verification.targets import load_source

if TYPE_CHECKING:
    from vit_deploy.exporters.quantization import QuantizeOptions
    from vit_deploy.exporters.quantization.pipeline import Made

FORMATS = ("savedmodel", "onnx", "tflite")


class KerasModel(Protocol):
    """A `ViT`, or a Keras model that is one ViT under a new head."""

    def save(self, filepath: str) -> None:
        """Write a `.keras` file."""


Model = Checkpoint | KerasModel | str | Path


def export(
    model: Model,
    directory: str | Path,
    *,
    formats: str | Sequence[str] = FORMATS,
    precisions: str | Sequence[str] = ("fp32",),
    batch: int | str | None = None,
    opset: int | None = None,
    layout: str = "nhwc",
    include_preprocessing: bool = False,
    target: str = "cpu",
    calibrate: str | Path | None = None,
    force: bool = False,
    stated: Mapping[str, Any] | None = None,
) -> list[Artifact]:
    """Write a model as `directory/<format>-<precision>/`, each proven before it is published.

    Args:
        model: a Keras model, a checkpoint, the path of a checkpoint file, or the name of a scale as "tiny", which has
            random weights.
        directory: the folder in which the artifacts are written.
        formats: one or several of "savedmodel", "onnx", "tflite", and "tensorrt" where a GPU can prove its plans.
        precisions: the precisions of each format, where it has them.
        batch: images a call, or "dynamic"; None is dynamic, and 1 for TFLite.
        opset: the opset of ONNX; None is the default.
        layout: the layout of ONNX's input, "nhwc" or "nchw".
        include_preprocessing: the input is uint8 pixels, normalised inside.
        target: what ONNX files are made for: "cpu" (standard operators alone), "cuda" or "tensorrt".
        calibrate: images to measure the ranges of activations on, a folder or an `.npz`; None for the samples.
        force: replace bundles that are there.
        stated: what a checkpoint file does not say, as `as_checkpoint` takes it.

    Returns:
        The published bundles; what was assumed of the model is `checkpoints.assumed` of their provenance.

    Raises:
        ExportError: an artifact could not be made, or failed its proof and is not published; its siblings are.
        CheckpointError: a model that is not a ViT, or not one under a new head.
        ConfigError, DataError, MissingEngineError, EngineError, OutputError: as `quantization.pipeline.export`.
    """
    from vit_deploy.exporters.plan import plan
    from vit_deploy.exporters.quantization import compiled

    jobs, _ = plan(
        _names(formats, "formats"),
        _names(precisions, "precisions"),
        batch=batch,
        opset=opset,
        layout=layout,
        include_preprocessing=include_preprocessing,
        target=target,
    )
    made = compiled.export(
        as_checkpoint(model, stated), _folder(directory, "directory"), jobs, _options(calibrate), force=force
    )
    return _published(made)


def quantize(
    bundle: str | Path | Artifact,
    directory: str | Path,
    *,
    precisions: str | Sequence[str],
    calibrate: str | Path | None = None,
    force: bool = False,
) -> list[Artifact]:
    """Make `directory/<format>-<precision>/` from an fp32 bundle, each proven before it is published.

    Args:
        bundle: its folder, or one of those that `export` returned.
        directory: the folder in which the artifacts are written.
        precisions: the precisions of those that its format has.
        calibrate: images to measure the ranges of activations on, a folder or an `.npz`; None for the samples.
        force: replace bundles that are there.

    Returns:
        The published bundles.

    Raises:
        ExportError: an artifact could not be made, or failed its proof and is not published; its siblings are.
        ConfigError, DataError, MissingEngineError, EngineError, OutputError: as `quantization.pipeline.quantize`.
    """
    from vit_deploy.exporters.quantization import pipeline

    source, precisions = as_artifact(bundle), _names(precisions, "precisions")
    return _published(
        pipeline.quantize(source, _folder(directory, "directory"), precisions, _options(calibrate), force=force)
    )


def _options(calibrate: str | Path | None) -> QuantizeOptions:
    from vit_deploy.exporters.quantization import QuantizeOptions

    return QuantizeOptions(
        calibrate=None if calibrate is None else _folder(calibrate, "calibrate"), measure_speed=False
    )


def _published(made: Made) -> list[Artifact]:
    from vit_deploy.exporters.publish import telling_what_is_there

    if failed := [each for each in made.results if not each.parity.ok]:
        reasons = "; ".join(f"{each.artifact.name}: {', '.join(each.parity.failures)}" for each in failed)
        raise ExportError(
            f"not published, for it failed its proof: {reasons}",
            fix="look at it with vit-deploy export --keep-failed",
        )
    with telling_what_is_there(made.results):
        for each in made.failed:
            raise each.error
    return [each.artifact for each in made.results]


def as_checkpoint(model: Model, stated: Mapping[str, Any] | None = None) -> Checkpoint:
    """The config and the weights of a model, wherever it is.

    Args:
        model: a Keras model, a checkpoint, or the path of a checkpoint file.
        stated: what a checkpoint file does not say, as `checkpoints.load` takes it: fields of the config, `preprocess`
            with `mean`, `std` and others, `labels`, and `head` False for the features.

    Raises:
        CheckpointError: it is not a ViT, or not one under a new head.
        ConfigError: it is no model at all, or something is stated of one that is no file.
    """
    from vit_deploy import checkpoints

    if isinstance(model, str) and model in SCALE_CONFIGS:
        return load_source(model, {}, None, stated=stated).checkpoint
    if isinstance(model, str | Path):
        return checkpoints.load(model, config=stated)
    if stated:
        raise ConfigError(
            f"{', '.join(stated)} can be stated of a checkpoint file, and this is a {type(model).__name__}",
            fix="change the model itself",
        )
    if isinstance(model, Checkpoint):
        return model
    if not callable(getattr(model, "save", None)):
        raise ConfigError(
            f"a {type(model).__name__} cannot be exported", fix="give a Keras model, a Checkpoint, or a file's path"
        )
    with tempfile.TemporaryDirectory() as folder:  # its file says which layers are around the ViT
        path = Path(folder) / "model.keras"
        model.save(str(path))
        return checkpoints.load(path)


def verify(
    bundle: str | Path | Artifact,
    *,
    runtime: str | None = None,
    provider: str | None = None,
    device: int = 0,
    cuda_graph: bool = False,
    simulate: str | None = None,
) -> Verification:
    """Run a bundle on its golden images and compare with the float64 reference; see `parity.verify`.

    Args:
        bundle: its folder, or one of those that `export` returned.
        runtime: None takes the format's usual one.
        provider: what executes the graph; None takes the engine's usual one.
        device: which GPU of those that are visible, from 0.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.
        simulate: a processor that is not here: "no-vnni", on which ONNX Runtime's 8-bit products may saturate.
    """
    from vit_deploy.verification import parity

    return parity.verify(
        as_artifact(bundle),
        runtime=runtime,
        provider=provider,
        device=device,
        cuda_graph=cuda_graph,
        simulate=simulate,
    )


def session(
    bundle: str | Path | Artifact,
    *,
    runtime: str | None = None,
    threads: int | None = None,
    provider: str | None = None,
    device: int = 0,
    cuda_graph: bool = False,
) -> AbstractContextManager[Session]:
    """Load a bundle in an engine: `with session(path) as model: logits = model.infer(images)`.

    Threads may share it: each call is whole, and its answer a copy that is the caller's own.

    Args:
        bundle: its folder, or one of those that `export` returned.
        runtime: None takes the format's usual one.
        threads: for the work inside one call; None leaves the engine's own choice.
        provider: what executes the graph; None takes the engine's usual one.
        device: which GPU of those that are visible, from 0.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.

    Raises:
        ArtifactError: no bundle, or one that was changed.
        ConfigError: a runtime that does not run this format, or options of a GPU where none executes the graph.
        MissingEngineError, EngineError: the engine is not installed, or refuses the file.
    """
    artifact = as_artifact(bundle)
    options = RuntimeOptions(threads, provider, device=device, cuda_graph=cuda_graph)
    return _opened(artifact, runtime_for(artifact, runtime, options), options)


def read_images(bundle: str | Path | Artifact, files: str | Path | Sequence[str | Path]) -> NDArray[Any]:
    """Image files as the input of a session: `model.infer(read_images(bundle, ["a.jpg", "b.jpg"]))`.

    Each is resized, cropped and normalised as the bundle has recorded it.

    Args:
        bundle: its folder, or one of those that `export` returned.
        files: image files; of a folder the images in it, by name.

    Returns:
        `(files, height, width, channels)`: normalised float32, or uint8 pixels where preprocessing is in the model.

    Raises:
        ArtifactError: no bundle, or one that was changed.
        ConfigError: something that is no path, or no file at all.
        DataError: a file that is missing or broken, or a folder without images.
        MissingEngineError: Pillow is not installed.
    """
    from vit_deploy.core.images import load_image, load_pixels
    from vit_deploy.runtimes.classify import image_files

    artifact = as_artifact(bundle)
    given = [files] if isinstance(files, str | Path) else list(files) if isinstance(files, Sequence) else files
    if not isinstance(given, list) or not given or not all(isinstance(each, str | Path) for each in given):
        raise ConfigError(f"files is {files!r}; expected the path of an image or several", fix="give paths of images")
    load = load_pixels if artifact.input.preprocessing_inside else load_image
    found = image_files([Path(each) for each in given])
    return np.stack([load(each, artifact.preprocess, artifact.config.image_size) for each in found])


def as_artifact(bundle: str | Path | Artifact) -> Artifact:
    """The bundle in a folder, or the artifact itself.

    Raises:
        ArtifactError: no bundle, or one that was changed.
        ConfigError: it is neither.
    """
    if isinstance(bundle, Artifact):
        return bundle
    given: object = bundle
    if isinstance(given, str | Path):
        return read_artifact(Path(given))
    said, fix = f"{type(given).__name__} is no bundle", "give a bundle's folder, or an artifact that export returned"
    if isinstance(given, list | tuple) and all(isinstance(each, Artifact) for each in given):
        said, fix = f"{said}, but holds {len(given)} of them", "give one of them"
    raise ConfigError(said, fix=fix)


def _names(given: str | Sequence[str], field: str) -> tuple[str, ...]:
    names: object = (given,) if isinstance(given, str) else given
    if not isinstance(names, Sequence) or not names or not all(isinstance(each, str) for each in names):
        example = {"formats": "onnx", "precisions": "int8"}[field]
        raise ConfigError(f"{field} is {given!r}; expected a name, or several", fix=f'write {field}=["{example}"]')
    return tuple(names)


def _folder(given: str | Path, field: str) -> Path:
    path: object = given
    if not isinstance(path, str | Path):
        raise ConfigError(f"{field} is {given!r}; expected a path", fix="give a text or a pathlib.Path")
    return Path(path)


@contextmanager
def _opened(artifact: Artifact, runtime: str, options: RuntimeOptions) -> Iterator[Session]:
    with RUNTIMES.load(runtime)().open(artifact, options) as opened:
        refuse_idle_options(artifact, options, opened.provider)
        yield opened
