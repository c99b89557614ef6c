"""The format of a model file, by its content or its name."""

from __future__ import annotations

from pathlib import Path

from vit_deploy.core.format import Format
from vit_deploy.core.format_table import FORMATS
from vit_deploy.errors import ArtifactError


def format_of(path: Path) -> Format | None:
    """The format by the content, or by name where the content cannot decide; None of what is no model file.

    Args:
        path: a file, or a folder.

    Raises:
        ArtifactError: the file cannot be read.
    """
    formats = FORMATS.of_artifacts().values()
    if path.is_dir():
        return next(
            (record for record in formats if record.folder_file and (path / record.folder_file).is_file()), None
        )
    if not path.is_file():
        return None
    longest = max((place + len(known) for record in formats for place, known in record.magic), default=0)
    try:
        with path.open("rb") as file:
            start = file.read(longest)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}", fix="check its permissions") from error
    by_content = (record for record in formats if any(start[place:].startswith(known) for place, known in record.magic))
    return next(by_content, None) or next((record for record in formats if path.suffix in record.suffixes), None)
