"""Models of a hub by name, fetched into its cache, and what models say of their licence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vit_deploy.checkpoints.folder import weight_files
from vit_deploy.checkpoints.hub.card import foreign_code, licence_of
from vit_deploy.checkpoints.hub.names import Name, parse
from vit_deploy.core.origin import Origin, check_licence
from vit_deploy.core.registry import Plugin, Registry

__all__ = ["HUBS", "Located", "Name", "locate", "parse"]

HUBS = Registry(
    "model hub",
    {"huggingface": Plugin("vit_deploy.checkpoints.hub.fetch:fetch", extra="hub", needs=("huggingface_hub",))},
)


@dataclass(frozen=True)
class Located:
    """A checkpoint on this machine.

    Args:
        path: the path of a file or a folder.
        origin: what is known of where it comes from.
        weights: files of weights of a model that was fetched.
    """

    path: Path
    origin: Origin
    weights: tuple[Path, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of the files of weights."""
        return sum(file.stat().st_size for file in self.weights or weight_files(self.path))


def locate(path: Path, required: Sequence[str] = (), *, words: bool = False) -> Located:
    """The file of a name, which is fetched where it is not there yet, or `path` itself, with what its card says.

    Args:
        path: a name, as `hf:org/name`, or the path of a file or a folder.
        required: licences of which one has to be the model's; none for any. A model that is fetched is refused before
            its weights are.
        words: whether the files of its tokenizer are needed too.

    Raises:
        HubError: a name that leads to no model, or one that cannot be fetched.
        LicenceError: another licence.
        MissingEngineError: names need huggingface_hub.
    """
    name = None if path.exists() else parse(path.as_posix())
    if name is not None:
        fetched: Located = HUBS.load("huggingface")(name, required, words=words)
        return fetched
    if not path.is_dir():
        return Located(path, Origin())
    licence = licence_of(path)
    origin = Origin(licence=licence.name, licence_link=licence.link, not_run=foreign_code(path))
    if origin.licence:
        check_licence(origin.licence, required, str(path))
    return Located(path, origin)
