"""The exceptions for what a user can fix.

VitDeployError
├── UsageError             options that exclude or need each other, or values that an option does not take
├── ConfigError            an option or a config that no ViT can have
├── CheckpointError        a weight file that is broken, foreign or does not fit its config
├── HubError               a model of a hub that is not there, not for this user, or cannot be fetched
├── LicenceError           a model whose licence is none of those required (the exit code is 1)
├── ArtifactError          an artifact that is missing, changed or not an artifact
├── DataError              images or labels that cannot be used
├── MissingEngineError     a library that is not installed (names the pip extra)
├── EngineError            a library that is installed and failed
├── ExportError            a graph that came out other than it has to be
├── RemoteError            a machine that cannot be reached, or does not do its work
└── OutputError            a target that exists, cannot be written, or a disk that is full

Every one of them says what was wrong, and `fix` what to do about it; the command line prints both and
exits with 2. Anything else that is raised is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class VitDeployError(Exception):
    """A failure with a remedy.

    Args:
        message: what was wrong, what was found and what was expected.
        fix: what the user can do, as an instruction; may be empty.
    """

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message


class UsageError(VitDeployError, ValueError):
    """Options that exclude or need each other, or a value that an option does not take."""


class ConfigError(VitDeployError, ValueError):
    """An option or a combination of options that no ViT can have."""


class CheckpointError(VitDeployError):
    """A weight file that is broken, of no known dialect, or does not fit its config."""


class HubError(VitDeployError):
    """A model of a hub that is not there, is not for this user, or cannot be fetched."""


class LicenceError(VitDeployError):
    """A model whose licence is none of those required: a check that says no."""


class ArtifactError(VitDeployError):
    """An artifact that is missing, incomplete, or was changed after it was written."""


class DataError(VitDeployError):
    """Images or labels that cannot be used."""


class MissingEngineError(VitDeployError):
    """A library that is needed and not installed."""


class EngineError(VitDeployError):
    """A library that is installed and refused the work."""


class ExportError(VitDeployError):
    """A conversion whose result is not what it has to be."""


class RemoteError(VitDeployError):
    """Another machine that cannot be reached, lacks what it takes, or did not end in time."""


class OutputError(VitDeployError):
    """A target that exists already, cannot be written, or does not fit on the disk."""


@dataclass(frozen=True)
class Failed:
    """One artifact that came to nothing, while others went on.

    Args:
        name: the name of the artifact that it would have been.
        format: the format of that artifact.
        precision: the precision of that artifact.
        error: why.
    """

    name: str
    format: str
    precision: str
    error: VitDeployError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A fix for the unknown `name`: the one it resembles, or all there are."""
    choices = list(known)
    meant = closest(name, choices)
    return meant or f"choose one of {', '.join(choices)}"


def closest(name: str, known: Iterable[str]) -> str:
    """A question after the known name that the unknown `name` resembles; empty if it resembles none."""
    import difflib  # only where something went wrong

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""
