"""TensorRT's Python module, of either flavour, and a log that keeps its complaints."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from typing import Any

from vit_deploy.core import engine_errors
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.errors import EngineError, MissingEngineError
from vit_deploy.formats.tensorrt_plan import EXTRAS, TITLES

logger = logging.getLogger(__name__)

KEPT = 8  # complaints; the first ones have the cause


def is_installed(flavour: str) -> bool:
    """Whether the module can be found; it is not imported."""
    return importlib.util.find_spec(flavour) is not None


def load_engine(flavour: str) -> Any:
    """The module `tensorrt` or `tensorrt_rtx`.

    Raises:
        MissingEngineError: it is not installed.
        EngineError: its libraries cannot be loaded.
    """
    if not is_installed(flavour):
        raise MissingEngineError(
            f"{TITLES[flavour]} is not installed: there is no module {flavour}",
            fix=f'pip install "vit-deploy[{EXTRAS[flavour]}]"',
        )
    try:
        with quiet_stderr():
            return importlib.import_module(flavour)
    except (ImportError, OSError) as error:
        raise EngineError(
            f"{TITLES[flavour]} cannot be loaded: {error}",
            fix=f'pip install --force-reinstall "vit-deploy[{EXTRAS[flavour]}]", or check with vit-deploy doctor',
        ) from error


class Complaints:
    """What TensorRT logged as an error, the first first."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Remember one more, unless there are enough."""
        if len(self._lines) < KEPT and line not in self._lines:
            self._lines.append(line)

    def clear(self) -> None:
        """Forget them."""
        self._lines = []

    @property
    def text(self) -> str:
        """All in one line; a stopgap where it said nothing."""
        return "; ".join(self._lines) or "it does not say why"


def make_log(engine: Any, complaints: Complaints) -> Any:
    """A logger as TensorRT takes it: errors are kept, and shown with warnings where logging is on (with -v)."""

    class Log(engine.ILogger):  # type: ignore[misc]  # known only at run time
        """TensorRT's lines in Python's logging."""

        def __init__(self) -> None:
            engine.ILogger.__init__(self)  # pybind11 asks for its own

        def log(self, severity: Any, message: str) -> None:
            """One line."""
            levels = engine.ILogger.Severity
            line = " ".join(str(message).split())
            if severity in (levels.INTERNAL_ERROR, levels.ERROR):
                complaints.add(line)
                logger.warning("%s: %s", engine.__name__, line)
            elif severity == levels.WARNING:
                logger.warning("%s: %s", engine.__name__, line)
            else:
                logger.debug("%s: %s", engine.__name__, line)

    return Log()


def explained(doing: str, flavour: str, complaints: Complaints, fix: str) -> engine_errors.explained:
    """A block in which what its bindings raise becomes ours, with what was logged."""
    return engine_errors.explained(
        f"{TITLES[flavour]} cannot {doing}",
        (RuntimeError, TypeError, ValueError),  # pybind11's, where an object could not be made
        fix,
        words=lambda error: f"{complaints.text} ({error})",
    )
