"""What goes to a hub, told before it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vit_deploy.checkpoints.hub.names import parse
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.errors import HubError

PUBLISHERS = Registry(
    "model hub",
    {"huggingface": Plugin("vit_deploy.checkpoints.hub.upload:Target", extra="hub", needs=("huggingface_hub",))},
)


@dataclass(frozen=True)
class Upload:
    """Files for a repository.

    Args:
        repository: "owner/name".
        page: its address.
        exists: whether it is there already; else it is made.
        private: whether it is made private.
        files: content, or the file that has it, by the name in the repository.
        replaced: names that are there already, whose content is replaced.
    """

    repository: str
    page: str
    exists: bool
    private: bool
    files: Mapping[str, Path | bytes]
    replaced: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.files.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        files = [{"name": name, "bytes": size, "replaces": name in self.replaced} for name, size in self.sizes.items()]
        return {"repository": self.repository, "page": self.page, "created": not self.exists, "files": files}


class Publisher(Protocol):
    """A repository of a hub that files go to."""

    def look(self, files: Mapping[str, Path | bytes], *, private: bool) -> Upload:
        """What would go there; nothing is sent.

        Raises:
            HubError: the hub cannot be reached, or does not know the token.
        """

    def send(self, upload: Upload, message: str) -> str:
        """Make the repository where it is not there, and upload all in one commit, whose address is given.

        Raises:
            HubError: the hub refuses, or cannot be reached.
        """


def publisher(repository: str) -> Publisher:
    """A repository by its name.

    Raises:
        HubError: no name of a repository.
        MissingEngineError: names need huggingface_hub.
    """
    name = parse(repository if repository.startswith("hf:") else f"hf:{repository}")
    if name is None or name.file or "@" in repository:
        raise HubError(f"{repository} is no repository", fix="give it as owner/name")
    made: Publisher = PUBLISHERS.load("huggingface")(name)
    return made
