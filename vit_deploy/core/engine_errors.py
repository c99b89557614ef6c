"""The translation of what engines raise into `EngineError`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vit_deploy.errors import EngineError, VitDeployError


@dataclass(frozen=True)
class Reason:
    """Why something failed: words for a message, and what to do."""

    words: str
    fix: str


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something."""
    return next((line for line in str(error).strip().splitlines() if line.strip()), "it does not say why")


class explained:  # noqa: N801 - it is used as a function; a class is entered in a fraction of a generator's time
    """A block in which an engine's errors become `EngineError`; one can be entered again and again, by any thread.

    What is a `VitDeployError` already is raised as it is.

    Args:
        what: the beginning of the message: "OpenVINO 2026.1 cannot load model.onnx".
        errors: the types that the engine raises; others are bugs and stay as they are.
        fix: what to do about an error of no known reason.
        words: what the message says of an error of no known reason.
        reason: finds the known reason of an error, or None.
    """

    def __init__(
        self,
        what: str,
        errors: type[Exception] | tuple[type[Exception], ...],
        fix: str,
        *,
        words: Callable[[Exception], str] = first_line,
        reason: Callable[[Exception], Reason | None] = lambda error: None,
    ) -> None:
        self._what, self._errors, self._fix = what, errors, fix
        self._words, self._reason = words, reason

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, self._errors) and not isinstance(error, VitDeployError):
            reason = self._reason(error) or Reason(self._words(error), self._fix)
            raise EngineError(f"{self._what}: {reason.words}", fix=reason.fix) from error
