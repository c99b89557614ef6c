"""Arguments of the API's functions as what the packages take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.artifact_folders import each_bundle
from vit_deploy.core.config import in_words
from vit_deploy.core.config_checks import as_pair
from vit_deploy.core.options.parsing import size_in_words
from vit_deploy.errors import ConfigError

ArtifactLike = str | Path | Artifact
"""An artifact's folder, a `.keras` file or a bare model file, or an artifact that `export` has returned."""
Artifacts = ArtifactLike | Sequence[ArtifactLike]
"""One of them or several; a folder of artifacts stands for those inside it."""
PathLike = str | Path
Tell = Callable[[str], object]
"""Called with a text: what is being done, or what has to be known."""

Item = TypeVar("Item")
Value = TypeVar("Value", int, str)


def silent(text: str) -> None:
    """Let a text go nowhere."""


def artifact_paths(artifacts: Artifacts) -> list[Path]:
    """Paths of artifacts, each once; those inside a folder of artifacts stand for it.

    Raises:
        ConfigError: something that is none.
    """
    several = [artifacts] if isinstance(artifacts, str | Path | Artifact) else as_list(artifacts)
    return each_bundle([artifact_path(entry) for entry in several])


def artifact_path(artifact: ArtifactLike) -> Path:
    """Path of one artifact.

    Raises:
        ConfigError: something that is none.
    """
    if isinstance(artifact, Artifact):
        return artifact.path
    given: object = artifact
    if isinstance(given, str | Path):
        return Path(given)
    raise ConfigError(
        f"{type(given).__name__} is no artifact", fix="give an artifact's folder, or an artifact that export returned"
    )


def size_text(image_size: int | tuple[int, int] | str | None) -> str | None:
    """Pixels of a side, (height, width), or either as a text, as "384x512"; None where none are given.

    Raises:
        ConfigError: no size of an image.
    """
    if image_size is None:
        return None
    if not isinstance(image_size, str):
        return in_words(as_pair(image_size, "image_size"))
    try:
        return size_in_words(image_size)
    except ValueError as error:
        raise ConfigError(f"image_size is {image_size!r}; expected {error}", fix="give pixels") from error


def paths(given: PathLike | Sequence[PathLike], field: str) -> list[Path]:
    """Paths of files.

    Args:
        given: one or several.
        field: name of the argument, for the error.

    Raises:
        ConfigError: something that is no path, or nothing.
    """
    return [Path(text) for text in as_texts(given, field)]


def as_texts(given: PathLike | Sequence[PathLike], field: str) -> list[str]:
    """Paths, patterns and addresses of images; not as paths, for these would change what `s3://` says.

    Args:
        given: one or several.
        field: name of the argument, for the error.

    Raises:
        ConfigError: something that is no path, or nothing.
    """
    several = [given] if isinstance(given, str | Path) else as_list(given)
    if not several or not all(isinstance(entry, str | Path) for entry in several):
        raise ConfigError(f"{field} is {given!r}; expected a path or several", fix="give texts or pathlib.Paths")
    return [str(entry) for entry in several]


def path(given: PathLike | None) -> Path | None:
    """A path, where there is one."""
    return None if given is None else Path(given)


def as_text(given: PathLike | None) -> str | None:
    """A path as a text, where there is one."""
    return None if given is None else str(given)


def as_tuple(given: Value | Sequence[Value] | None) -> tuple[Value, ...]:
    """One value or several as a tuple; empty for None."""
    if given is None:
        return ()
    if isinstance(given, int | str):
        return (given,)
    return tuple(dict.fromkeys(given))


def as_list(given: Sequence[Item]) -> list[Item]:
    """The items of a sequence; what is none, which a type checker would have refused, is its only item."""
    found: Any = given
    return list(found) if isinstance(found, Sequence) else [found]


def names(given: str | Sequence[str], field: str) -> tuple[str, ...]:
    """Names of formats, precisions or outputs.

    Args:
        given: one or several.
        field: name of the argument, for the error.

    Raises:
        ConfigError: something that is no name, or nothing.
    """
    several: object = (given,) if isinstance(given, str) else given
    if not isinstance(several, Sequence) or not several or not all(isinstance(entry, str) for entry in several):
        example = {"formats": "onnx", "precisions": "int8", "outputs": "class_token"}[field]
        raise ConfigError(f"{field} is {given!r}; expected a name, or several", fix=f'write {field}=["{example}"]')
    return tuple(several)


def folder_path(given: PathLike, field: str) -> Path:
    """Path of a folder or a file.

    Args:
        given: as a text or as a path.
        field: name of the argument, for the error.

    Raises:
        ConfigError: it is neither.
    """
    said: object = given
    if not isinstance(said, str | Path):
        raise ConfigError(f"{field} is {given!r}; expected a path", fix="give a text or a pathlib.Path")
    return Path(said)
