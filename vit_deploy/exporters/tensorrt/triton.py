"""Models of NVIDIA Triton's repository, each an artifact's model with its configuration, warm-up and labels.

`REPOSITORY/<model>/config.pbtxt` is the text form of Triton's `ModelConfig`; beside it lie the version `1/` with the
model file, `warmup/` with the golden images it is warmed up with, and `labels.txt`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format import Target
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.options.tensorrt import FULL
from vit_deploy.core.outputs import Kind
from vit_deploy.core.staging import staged_folder
from vit_deploy.errors import ConfigError
from vit_deploy.formats.tensorrt_plan import PlanRecord
from vit_deploy.runtimes.values import as_stored
from vit_deploy.verification.golden import read_golden

CPU, CUDA, TENSORRT = PROVIDERS = ("cpu", "cuda", "tensorrt")
LARGEST_BATCH = 32  # that requests are gathered to, where the file takes any
VERSION, CONFIG, LABELS, WARMUP = "1", "config.pbtxt", "labels.txt", "warmup"

# CUDA has no int8 kernels for these; a CPU has.
FOR_CPUS = frozenset(("int8", "int8-static"))
# What TensorRT can be asked to compute ONNX files in, by their precision.
TENSORRT_MODES = {"fp32": "FP32", "fp16": "FP16", "int8-static": "INT8"}
TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "uint8": "TYPE_UINT8", "int8": "TYPE_INT8"}


@dataclass(frozen=True)
class Backend:
    """What of Triton runs a format.

    Args:
        name: the name of the backend.
        platform: what the backend calls the format.
        file: what the model is called in a version's folder.
        providers: what can execute it.
        refuse: raises on an artifact that the backend cannot serve.
        largest_batch: that requests are gathered to, where the file's own batch is open.
    """

    name: str
    platform: str
    file: str
    providers: tuple[str, ...]
    refuse: Callable[[Artifact], None] = lambda artifact: None
    largest_batch: Callable[[Artifact], int] = lambda artifact: LARGEST_BATCH


class Symbol(str):
    """A name of an enumeration, which stands in the text without quotes."""


Message = Mapping[str, Any]
"""Fields of a protobuf message: numbers, symbols, texts, messages, or lists of them where a field repeats."""


def check(kinds: Iterable[tuple[str, str]], provider: str | None, target: str = Target.CPU) -> None:
    """Refuse, before any work, what Triton cannot serve.

    Args:
        kinds: format and precision of each artifact to be.
        provider: that is going to execute them; None chooses by what the file is made for and its precision.
        target: what ONNX files are made for.

    Raises:
        ConfigError: a format that Triton has no backend for, or a provider that does not execute it.
    """
    if provider is not None and provider not in PROVIDERS:
        raise ConfigError(
            f"Triton has no provider {provider!r} for these files", fix=f"choose one of {', '.join(PROVIDERS)}"
        )
    for format, precision in kinds:
        if FORMATS[format].triton is None:
            served = (format.name for format in FORMATS.values() if format.triton is not None)
            raise ConfigError(f"Triton has no backend for {format} files", fix=f"export --format {' or '.join(served)}")
        providers = _backend(format).providers
        if provider is not None and provider not in providers:
            raise ConfigError(
                f"Triton does not execute {format} files with {provider}",
                fix=f"choose {' or '.join(providers)}",
            )
        if provider == TENSORRT and precision not in TENSORRT_MODES:
            raise ConfigError(
                f"TensorRT does not read {format} files in {precision}",
                fix=f"choose one of {', '.join(TENSORRT_MODES)}, or another provider",
            )
        if provider == TENSORRT and target == Target.CUDA:
            raise ConfigError(
                "TensorRT does not know the operators of ONNX files that are made for CUDA",
                fix="export --for tensorrt, or leave --triton-provider out",
            )


def model_names(name: str, kinds: Sequence[tuple[str, str]]) -> list[str]:
    """What the models are called in a repository: the name alone where there is one, else with format and precision."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)
    return [plain] if len(kinds) == 1 else [f"{plain}-{format}-{precision}" for format, precision in kinds]


def write_model(artifact: Artifact, target: Path, provider: str | None = None, *, force: bool = False) -> None:
    """Put one artifact's model into a repository, whole or not at all.

    Args:
        artifact: an artifact that `check` has nothing against; its files are copied.
        target: `REPOSITORY/<model>`.
        provider: that is going to execute it: "cpu", "cuda" or "tensorrt"; None chooses as `usual_provider`.
        force: replace a model that is there.

    Raises:
        OutputError: the target exists and `force` is not set, cannot be written, or the disk is full.
        ArtifactError: golden data that are missing or damaged.
        ConfigError: a plan that Triton cannot load, or for which its requests are too small.
    """
    backend = _backend(artifact.format)
    backend.refuse(artifact)
    images = as_stored(_warming(artifact), artifact.input)
    with staged_folder(target, force=force) as stage:
        version = stage.folder / VERSION
        version.mkdir()
        source = artifact.model_path
        if source.is_dir():
            shutil.copytree(source, version / backend.file)
        else:
            # An ONNX file names the one beside it that holds its weights.
            for name in FORMATS[artifact.format].model_files:
                if (path := artifact.directory / name).is_file():
                    shutil.copy2(path, version / path.name)
        (stage.folder / WARMUP).mkdir()
        little_endian = images.astype(images.dtype.newbyteorder("<"))
        (stage.folder / WARMUP / artifact.input.name).write_bytes(little_endian.tobytes())
        if _labelled(artifact):
            lines = "".join(f"{' '.join(label.split())}\n" for label in artifact.labels)
            (stage.folder / LABELS).write_text(lines, encoding="utf-8")
        (stage.folder / CONFIG).write_text(config(artifact, target.name, provider), encoding="utf-8")


def _backend(format: str) -> Backend:
    plugin = FORMATS[format].triton
    if plugin is None:
        raise ConfigError(f"Triton has no backend for {format} files", fix="export another format")
    backend: Backend = plugin.load()
    return backend


def _refuse_plan(artifact: Artifact) -> None:
    record = PlanRecord.of(artifact)
    if record.flavour != FULL:
        raise ConfigError(
            f"Triton loads plans of TensorRT, and {artifact.model_path} was built by {record.title}",
            fix="export it with --tensorrt full",
        )
    if artifact.input.batch is None and record.batches.least > 1:
        raise ConfigError(
            f"Triton's requests may have one image, and {artifact.model_path} takes at least {record.batches.least}",
            fix=f"export it with --batch-range 1,{record.batches.best},{record.batches.most}",
        )


def config(artifact: Artifact, name: str, provider: str | None = None) -> str:
    """The text of `config.pbtxt`.

    Args:
        artifact: the artifact.
        name: the name of the model, as its folder is called.
        provider: see `write_model`.
    """
    backend, spec = _backend(artifact.format), artifact.input
    executor = provider or usual_provider(artifact)
    # With an open batch the first side is Triton's own; else it is a side like any other.
    sides = spec.shape[1:] if spec.batch is None else spec.shape
    tensor = {"data_type": Symbol(TYPES[spec.dtype]), "dims": _dims(sides)}
    outputs = [_output(artifact, output) for output in _outputs(artifact)]
    fields: dict[str, Any] = {
        "name": name,
        "backend": backend.name,
        "platform": backend.platform,
        "max_batch_size": _largest_batch(artifact),
        "input": {"name": spec.name, **tensor},
        "output": outputs[0] if len(outputs) == 1 else outputs,
        "instance_group": {"count": 1, "kind": Symbol("KIND_CPU" if executor == CPU else "KIND_GPU")},
    }
    if spec.batch is None:
        fields["dynamic_batching"] = {}
    if executor == TENSORRT:
        mode = {"key": "precision_mode", "value": TENSORRT_MODES[artifact.precision]}
        accelerator = {"gpu_execution_accelerator": {"name": TENSORRT, "parameters": mode}}
        fields["optimization"] = {"execution_accelerators": accelerator}
    # A GPU takes memory and chooses kernels by the batch, so it is shown the largest as well.
    batches = (1, _largest_batch(artifact)) if spec.batch is None and executor != CPU else (1,)
    fields["model_warmup"] = [
        {
            "name": f"golden images, batch {batch}",
            "batch_size": batch,
            "inputs": {"key": spec.name, "value": {**tensor, "input_data_file": spec.name}},
        }
        for batch in batches
    ]
    return "\n".join(_written(fields)) + "\n"


@dataclass(frozen=True)
class _Answer:
    name: str
    shape: tuple[int, ...]
    dtype: str
    has_labels: bool


def _outputs(artifact: Artifact) -> list[_Answer]:
    if not artifact.outputs:
        name, shape = artifact.config.output_name, artifact.config.output_shape
        return [_Answer(name, shape, artifact.output.dtype, _labelled(artifact))]
    return [
        _Answer(
            output.name,
            output.shape(artifact.config),
            artifact.outputs[output.name].dtype,
            bool(artifact.labels) and output.kind in (Kind.LOGITS, Kind.PROBABILITIES),
        )
        for output in artifact.named_outputs
    ]


def _output(artifact: Artifact, answer: _Answer) -> dict[str, Any]:
    batch = () if artifact.input.batch is None else (artifact.input.batch,)
    labels = {"label_filename": LABELS} if answer.has_labels else {}
    return {
        "name": answer.name,
        "data_type": Symbol(TYPES[answer.dtype]),
        "dims": _dims((*batch, *answer.shape)),
        **labels,
    }


def usual_provider(artifact: Artifact) -> str:
    """What an ONNX file is made for, else what has kernels for its precision."""
    providers = _backend(artifact.format).providers
    made_for = artifact.options.get("for")
    if made_for in (CUDA, TENSORRT) and made_for in providers:
        return str(made_for)
    return CPU if artifact.precision in FOR_CPUS and CPU in providers else CUDA


def _largest_batch(artifact: Artifact) -> int:
    """Zero is Triton's word for a file whose batch is not Triton's to choose."""
    if artifact.input.batch is not None:
        return 0
    return _backend(artifact.format).largest_batch(artifact)


def _labelled(artifact: Artifact) -> bool:
    return bool(artifact.labels) and artifact.config.include_top


def _warming(artifact: Artifact) -> NDArray[Any]:
    """Golden images for one call, repeated where the file asks for more; Triton repeats the one of an open batch."""
    images = read_golden(artifact).images
    chosen: NDArray[Any] = images[np.arange(artifact.input.batch or 1) % len(images)]
    return chosen


def _dims(shape: Sequence[int | None]) -> tuple[int, ...]:
    return tuple(-1 if side is None else side for side in shape)


def _written(message: Message, indent: str = "") -> Iterator[str]:
    """Lines of protobuf's text form."""
    for key, values in message.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, Mapping):
                yield f"{indent}{key} {{"
                yield from _written(value, indent + "  ")
                yield f"{indent}}}"
            elif isinstance(value, tuple):
                yield f"{indent}{key}: {list(value)}"
            elif isinstance(value, Symbol | int):
                yield f"{indent}{key}: {value}"
            else:
                yield f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}"


ONNX = Backend("onnxruntime", "onnxruntime_onnx", "model.onnx", PROVIDERS)
PLANS = Backend(
    "tensorrt",
    "tensorrt_plan",
    "model.plan",
    (CUDA,),
    _refuse_plan,
    lambda artifact: PlanRecord.of(artifact).batches.most,
)
SAVEDMODEL = Backend("tensorflow", "tensorflow_savedmodel", "model.savedmodel", (CPU, CUDA))
