"""The name of timm's that the user gives to weights, as one more document beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vit_deploy.checkpoints.source import Source, TensorFile, TensorView
from vit_deploy.checkpoints.timm.config import ARCHITECTURE
from vit_deploy.errors import CheckpointError


def named(file: TensorFile, architecture: object) -> TensorFile:
    """The file with the architecture that the user names; itself where none is named.

    Raises:
        CheckpointError: something else than a name.
    """
    if architecture is None:
        return file
    if not isinstance(architecture, str) or not architecture:
        raise CheckpointError(
            f"architecture is {architecture!r}; expected a name of timm's", fix="give it as vit_base_patch16_224"
        )
    return Named(file, architecture)


def check_named(file: TensorFile, source: Source, timm: type[Source]) -> None:
    """Refuse a name for a file of another dialect.

    Raises:
        CheckpointError: the file is none of timm's.
    """
    if isinstance(file, Named) and not isinstance(source, timm):
        raise CheckpointError(
            f"an architecture of timm is given, and it is of {type(source).__name__.removesuffix('Source')}",
            fix="leave --architecture out",
        )


@dataclass(frozen=True)
class Named(TensorView):
    """A `TensorFile` whose architecture the user names.

    Args:
        file: that is read.
        architecture: timm's name.
    """

    architecture: str

    @property
    def documents(self) -> Mapping[str, Any]:
        """Of the file, and the name."""
        return Documents(self.file.documents, ARCHITECTURE, self.architecture)


class Documents(Mapping[str, Any]):
    """Documents, and one more, such as the name of an architecture."""

    def __init__(self, documents: Mapping[str, Any], more: str, content: Any) -> None:
        self._documents = documents
        self._more = more
        self._content = content

    def __getitem__(self, name: str) -> Any:
        return self._content if name == self._more else self._documents[name]

    def __iter__(self) -> Iterator[str]:
        yield from (name for name in self._documents if name != self._more)
        yield self._more

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name == self._more or name in self._documents
