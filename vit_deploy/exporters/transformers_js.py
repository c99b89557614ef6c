"""Artifacts of an export in the folder that transformers.js expects of a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Probabilities
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.format import Target
from vit_deploy.core.preprocess import Interpolation, Preprocess
from vit_deploy.core.staging import check_targets, staged_folder
from vit_deploy.errors import ConfigError
from vit_deploy.exporters.plan import Job
from vit_deploy.exporters.publish import Exported, telling_what_is_there
from vit_deploy.exporters.quantization import QuantizeOptions

FOLDER = "transformers.js"
MODEL = "onnx/model{suffix}.onnx"
# What the library calls a precision when it loads a model, and the end of the file's name.
NAMES: Mapping[str, tuple[str, str]] = {
    "fp32": ("fp32", ""),
    "fp16": ("fp16", "_fp16"),
    "int8": ("q8", "_quantized"),
    "int8-static": ("int8", "_int8"),
    "int4": ("q4", "_q4"),
}
USUAL = ("fp32", "int8")  # what it takes by itself: in Node and on WebGPU, and in WebAssembly
RESAMPLE = {
    Interpolation.NEAREST: 0,
    Interpolation.LANCZOS: 1,
    Interpolation.BILINEAR: 2,
    Interpolation.BICUBIC: 3,
}
CHANNELS = 3


def folder_for(directory: Path, jobs: Sequence[Job], options: QuantizeOptions, *, force: bool) -> Path | None:
    """The folder that is to be written beside the artifacts; None where they are made for something else.

    Args:
        directory: in which the artifacts are written.
        jobs: artifacts to be.
        options: how they are quantized.
        force: whether a folder that is there is replaced.

    Raises:
        ConfigError: half-precision input, which the library does not give.
        OutputError: it is there, and `force` is not set.
    """
    if not any(job.options.target is Target.TRANSFORMERS_JS for job in jobs):
        return None
    if options.half_io:
        raise ConfigError("transformers.js gives float32, and --half-io takes float16", fix="leave --half-io out")
    folder = directory / FOLDER
    check_targets([folder], force=force)
    return folder


def check_model(checkpoint: Checkpoint) -> None:
    """Refuse a model that the library's image classification cannot run.

    Raises:
        ConfigError: no head, or other channels than three.
    """
    config = checkpoint.config
    if not config.include_top:
        raise ConfigError("transformers.js classifies images, and the model has no head", fix="give one with a head")
    if config.channels != CHANNELS:
        raise ConfigError(f"transformers.js gives images of 3 channels, and the model takes {config.channels}")


def write_folder(results: Iterable[Exported], folder: Path, *, force: bool) -> dict[str, Path]:
    """Write what passed its proof in the library's form; gives the model of each artifact there, by its name.

    Raises:
        OutputError: it is there and `force` is not set, or the disk is full.
    """
    found = list(results)
    proven = [result.artifact for result in found if result.published and result.parity.ok and _is_for(result.artifact)]
    if not proven:
        return {}
    written: dict[str, Path] = {}
    outside: dict[str, int] = {}
    with telling_what_is_there(found), staged_folder(folder, force=force) as stage:
        for artifact in proven:
            name = MODEL.format(suffix=NAMES[artifact.precision][1])
            if _copy_model(artifact, stage.folder / name):
                outside[Path(name).name] = 1
            written[artifact.name] = folder / name
        _write_json(stage.folder / "config.json", model_config(proven, outside))
        _write_json(stage.folder / "preprocessor_config.json", processor_config(proven[0]))
    return written


def _is_for(artifact: Artifact) -> bool:
    return artifact.options.get("for") == Target.TRANSFORMERS_JS


def _copy_model(artifact: Artifact, target: Path) -> bool:
    """Copy a model; whether its weights lie in a second file, which has the name that the library asks for."""
    target.parent.mkdir(parents=True, exist_ok=True)
    data = artifact.directory / f"{artifact.model_path.name}.data"
    if not data.is_file():
        shutil.copyfile(artifact.model_path, target)
        return False
    import onnx  # here alone: most models are one file

    name = f"{target.name}_data"
    model = onnx.load(artifact.model_path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = name
    onnx.save(model, target)
    shutil.copyfile(data, target.with_name(name))
    return True


def model_config(artifacts: Sequence[Artifact], outside: Mapping[str, int]) -> dict[str, Any]:
    """The contents of `config.json`.

    Args:
        artifacts: the models of the folder, all of the same network.
        outside: how many files of weights lie beside a model, by the name of its file.
    """
    config, labels = artifacts[0].config, artifacts[0].labels
    own: dict[str, Any] = {}
    precisions = [artifact.precision for artifact in artifacts]
    if not set(USUAL) <= set(precisions):
        own["dtype"] = NAMES[precisions[0]][0]  # or the library would ask for a file that is not there
    if outside:
        own["use_external_data_format"] = dict(outside)
    names = {str(index): label for index, label in enumerate(labels)}
    return {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification"],
        **_network(config),
        "num_labels": config.num_classes,
        **({"id2label": names} if names else {}),
        **({"label2id": {label: int(index) for index, label in names.items()}} if names else {}),
        **({"transformers.js_config": own} if own else {}),
    }


def _network(config: ViTConfig) -> dict[str, Any]:
    height, width = config.image_size
    rows, columns = config.patch_size
    return {
        "image_size": height if height == width else [height, width],
        "patch_size": rows if rows == columns else [rows, columns],
        "num_channels": config.channels,
        "hidden_size": config.embed_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_dim,
    }


def processor_config(artifact: Artifact) -> dict[str, Any]:
    """The contents of `preprocessor_config.json`."""
    preprocess, (height, width) = artifact.preprocess, artifact.config.image_size
    size: dict[str, int]
    if isinstance(preprocess.resize, int):
        size = {"shortest_edge": preprocess.resize}
    elif preprocess.resize is None:
        size = {"height": height, "width": width}
    elif preprocess.keep_aspect and preprocess.resize[0] == preprocess.resize[1]:
        size = {"shortest_edge": preprocess.resize[0]}
    else:
        size = {"height": preprocess.resize[0], "width": preprocess.resize[1]}
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": size,
        "resample": RESAMPLE[preprocess.interpolation],
        "do_center_crop": preprocess.crop,
        **({"crop_size": {"height": height, "width": width}} if preprocess.crop else {}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def differences(preprocess: Preprocess, config: ViTConfig) -> tuple[str, ...]:
    """In what the library's own steps around the model differ from what is recorded, in words."""
    found = [
        "transformers.js resizes images in its own way (in browsers with the canvas, in Node without averaging), so "
        "that its answers to images of other sizes can differ from those of predict; vit_deploy/web/preprocess.mjs "
        "makes the same pixels"
    ]
    sides = preprocess.resize if isinstance(preprocess.resize, tuple) else None
    if preprocess.keep_aspect and sides is not None and sides[0] != sides[1]:
        found.append("it cannot keep the aspect in a resize to two sides, and distorts images there")
    if preprocess.input_size is not None and preprocess.input_size != config.image_size:
        found.append("it cuts out the middle, where the model was made for the top left of a larger image")
    if config.probabilities is Probabilities.SIGMOID:
        found.append("its scores are a softmax, and the model was trained with a sigmoid of each class")
    return tuple(found)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
