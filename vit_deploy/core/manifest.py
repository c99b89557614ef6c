"""The manifest of an artifact, and what a model file says of itself: written, read and checked, or missed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.core.artifact import ESSENTIAL, GOLDEN, SCHEMA, Artifact
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.config_checks import is_count
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.input_output import InputSpec, OutputSpec
from vit_deploy.core.older_python import sha256_of
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.provenance import Step
from vit_deploy.errors import ArtifactError

if TYPE_CHECKING:
    from vit_deploy.core.image_sizes import ImageSize

MANIFEST = "artifact.json"
UNPROVEN = ".failed"  # how the folders end that were kept although their proof failed
SHOWN = 5  # entries of a folder that is no artifact
OF_CHECKPOINTS = (".keras", ".h5", ".safetensors", ".pth", ".pth.tar", ".pt", ".ckpt", "pytorch_model.bin")
"""What names end in that nothing but a checkpoint has."""


def write_manifest(artifact: Artifact) -> Artifact:
    """Digest every file in the artifact and write its manifest; returns the artifact with the digests."""
    files = {
        path.relative_to(artifact.directory).as_posix(): (sha256(path), path.stat().st_size)
        for path in sorted(artifact.directory.rglob("*"))
        if path.is_file() and path != artifact.directory / MANIFEST
    }
    complete = Artifact(**{**vars(artifact), "files": files})
    text = json.dumps(complete.to_dict(), indent=2, sort_keys=True)
    (artifact.directory / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return complete


def read_artifact(directory: Path, *, check_digests: bool = True) -> Artifact:
    """The artifact in a folder, with every file checked against its digest.

    Raises:
        ArtifactError: no artifact, a manifest of another schema or with impossible values, or files that are
            missing, changed or lie outside; all of them are named.
    """
    if directory.name == MANIFEST:
        directory = directory.parent
    path = directory / MANIFEST
    opaque = [record for record in FORMATS.values() if record.no_essentials and directory.suffix in record.suffixes]
    if opaque and directory.is_file():
        raise ArtifactError(
            f"{directory} is {opaque[0].noun}, which has no room for what it takes and what it has to answer",
            fix=f"give the artifact's folder, with {MANIFEST} and {GOLDEN} beside the {opaque[0].kind}",
        )
    if not path.is_file():
        raise not_a_bundle(directory)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"it holds a {type(values).__name__}, expected an object")
        if not is_count(values.get("schema")) or values["schema"] != SCHEMA:
            raise ArtifactError(
                f"{path} has schema {values.get('schema')!r}, this version reads {SCHEMA}",
                fix="export the model again, or use the version of vit-deploy that wrote it",
            )
        artifact = _from_dict(directory, values)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}", fix="check the file's permissions") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        detail = f"missing {error}" if isinstance(error, KeyError) else getattr(error, "message", error)
        raise ArtifactError(f"{path} is damaged: {detail}", fix="export the model again") from error
    if check_digests and (problems := _file_problems(artifact)):
        raise ArtifactError(f"{directory} was changed: {'; '.join(problems)}", fix="copy or export the artifact again")
    return artifact


def bundles_in(folder: Path) -> list[Path]:
    """The artifacts that lie in a folder, by name; neither hidden ones nor those that failed their proof."""
    if not folder.is_dir() or (folder / MANIFEST).is_file():
        return []
    inside = (manifest.parent for manifest in folder.glob(f"*/{MANIFEST}") if manifest.is_file())
    return sorted(parent for parent in inside if not parent.name.startswith(".") and not parent.name.endswith(UNPROVEN))


def not_a_bundle(path: Path) -> ArtifactError:
    """What to raise of a path that has no manifest: that it is not there, or what is there instead."""
    if not path.exists():
        return ArtifactError(f"{path} does not exist", fix="check the path; vit-deploy export -o DIR writes artifacts")
    if (path.parent / MANIFEST).is_file():
        return ArtifactError(
            f"{path} is not an artifact, but a part of one", fix=f"give the artifact, {path.parent}, as a whole"
        )
    fix = "give a folder that vit-deploy export has written"
    if inside := bundles_in(path):
        return ArtifactError(
            f"{path} is not an artifact, but a folder of artifacts: {', '.join(artifact.name for artifact in inside)}",
            fix=f"give one of them, as {inside[0]}",
        )
    message = f"{path} is not an artifact: it has no {MANIFEST}"
    names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    if any(name.endswith(OF_CHECKPOINTS) for name in [path.name, *names]):
        message = f"{path} looks like a checkpoint, and is not an artifact: it has no {MANIFEST}"
        fix = f"export it first: vit-deploy export {path}"
    if path.is_dir():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        message += f"; it holds {', '.join(names[:SHOWN])}{more}" if names else "; it is empty"
    return ArtifactError(message, fix=fix)


def from_essentials(model: Path, essentials: Mapping[str, str]) -> Artifact:
    """The inverse of `Artifact.essentials`: what a model file that has left its artifact says of itself.

    Args:
        model: the file, or the folder of a SavedModel.
        essentials: texts from inside it; keys of others are left alone.

    Raises:
        ArtifactError: they are incomplete or have impossible values.
    """
    own = {key: text for key, text in essentials.items() if key.startswith(ESSENTIAL)}
    try:
        values = {key.removeprefix(ESSENTIAL): json.loads(text) for key, text in own.items()}
        known = FORMATS.of_artifacts().get(str(values["format"]))
        usual = known.model_files[0] if known else ""
        outside: dict[str, Any] = {"options": {}, "files": {}, "parent": None, "model": usual}
        return dataclasses.replace(_from_dict(model.parent, values | outside), model=model.name)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        detail = f"missing {error}" if isinstance(error, KeyError) else getattr(error, "message", error)
        raise ArtifactError(
            f"what {model} says of itself is damaged: {detail}", fix="export the model again"
        ) from error


KINDS: Mapping[str, type] = {
    **dict.fromkeys(("format", "precision", "model", "weights_digest"), str),
    **dict.fromkeys(("config", "preprocess", "input", "output", "options", "producer", "files"), dict),
    **dict.fromkeys(("labels", "provenance"), list),
}
"""What the fields of a manifest hold; `parent` is a text or null."""


def _from_dict(directory: Path, values: Mapping[str, Any]) -> Artifact:
    _check_kinds(values)
    artifact = Artifact(
        directory=directory,
        format=values["format"],
        precision=values["precision"],
        config=ViTConfig.from_dict(values["config"]),
        preprocess=Preprocess.from_dict(values["preprocess"]),
        labels=tuple(values["labels"]),
        input=InputSpec.from_dict(values["input"]),
        weights_digest=values["weights_digest"],
        provenance=tuple(map(Step.from_dict, values["provenance"])),
        options=values["options"],
        files={name: (entry["sha256"], entry["bytes"]) for name, entry in values["files"].items()},
        producer=values["producer"],
        parent=values["parent"],
        model=values["model"],
        output=_output_spec(values["output"]),
        outputs={entry["name"]: _output_spec(entry) for entry in values.get("outputs", [])},
        sizes=_sizes(values["sizes"]) if values.get("sizes") else (),
    )
    _check_sizes(artifact)
    names = [entry["name"] for entry in values.get("outputs", [])]
    if "outputs" in values and not names:
        raise ValueError("outputs is empty")
    if len(artifact.named_outputs) < len(names):  # of which some have one name
        raise ValueError(f"outputs are {', '.join(names)}, expected each once")
    if names and values["output"]["name"] != artifact.output_name:
        raise ValueError(f"output is {values['output']['name']!r}, expected {artifact.output_name!r}")
    return artifact


def _output_spec(values: Mapping[str, Any]) -> OutputSpec:
    return OutputSpec(**{name: values.get(name, default) for name, default in vars(OutputSpec()).items()})


def _sizes(entries: Sequence[Mapping[str, Any]]) -> tuple[ImageSize, ...]:
    from vit_deploy.core.image_sizes import ImageSize  # an artifact for one size goes without

    return tuple(map(ImageSize.from_dict, entries))


def _check_sizes(artifact: Artifact) -> None:
    """Raise `ValueError` unless the sizes of the images are those of the config and of the input."""
    channels, shape = artifact.config.channels, artifact.input.shape[1:]
    possible: list[tuple[int | None, int | None]] = [artifact.config.image_size]
    possible += [(None, None)] if artifact.sizes and not any(size.signature for size in artifact.sizes) else []
    images = [(*sides, channels) if artifact.input.layout == "nhwc" else (channels, *sides) for sides in possible]
    if shape not in images:
        raise ValueError(f"input shape is {artifact.input.shape}, the config's images are {images[0]}")
    if artifact.sizes and artifact.sizes[0].pixels != artifact.config.image_size:
        raise ValueError(f"the first size is {artifact.sizes[0]}, the config's images are {artifact.config.image_size}")
    for size in artifact.sizes:
        artifact.config.replace(image_size=size.pixels)
    names = [size.signature for size in artifact.sizes]
    if any(names) and len(set(names)) < len(names) + names.count(""):
        raise ValueError(f"the signatures are {', '.join(map(repr, names))}, expected a name of its own for each size")


def _check_kinds(values: Mapping[str, Any]) -> None:
    problems = [f"{name} is {values[name]!r}" for name, kind in KINDS.items() if not isinstance(values[name], kind)]
    outputs = values.get("outputs", [])
    if not isinstance(outputs, list) or not all(_is_named(entry) for entry in outputs):
        problems.append(f"outputs is {outputs!r}")
    if problems:
        raise ValueError("; ".join(problems))
    formats = FORMATS.of_artifacts()
    if values["format"] not in formats:
        raise ValueError(f"format is {values['format']!r}, expected one of {', '.join(formats)}")
    usual = formats[values["format"]].model_files[0]
    texts = (*values["labels"], *values["producer"].values(), values["parent"] or "")
    if values["model"] != usual:
        problems.append(f"model is {values['model']!r}, expected {usual!r}")
    problems += [f"{text!r} is no text" for text in texts if not isinstance(text, str)]
    problems += [f"provenance has {step!r}" for step in values["provenance"] if not isinstance(step, dict)]
    problems += [f"{name} is recorded as {entry!r}" for name, entry in values["files"].items() if not _is_digest(entry)]
    if problems:
        raise ValueError("; ".join(problems))


def _is_named(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("name"), str)


def _is_digest(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("sha256"), str) and is_count(value.get("bytes"))


def _file_problems(artifact: Artifact) -> list[str]:
    problems = []
    root = artifact.directory.resolve()
    for name, (digest, size) in artifact.files.items():
        path = artifact.directory / name
        if not path.resolve().is_relative_to(root):
            problems.append(f"{name} lies outside the artifact")
        elif not path.is_file():
            problems.append(f"{name} is missing")
        elif path.stat().st_size != size:
            problems.append(f"{name} has {path.stat().st_size} bytes, expected {size}")
        elif sha256(path) != digest:
            problems.append(f"{name} has other content than when it was written")
    return problems + [f"{name} is not in the manifest" for name in _unlisted(artifact)]


def _unlisted(artifact: Artifact) -> list[str]:
    """Model files that an engine would read, or need, and that no digest stands for."""
    format = FORMATS[artifact.format]
    found = {artifact.model_path / format.folder_file}
    for name in format.model_files:
        path = artifact.directory / name
        found.update(file for file in (path, *path.rglob("*")) if file.is_file())
    names = {path.relative_to(artifact.directory).as_posix() for path in found}
    return sorted(names - set(artifact.files))


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return sha256_of(file)
