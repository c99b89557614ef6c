"""Processes of this Python, none of which imports from the working directory, and the environment that they get."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

# Without it a file of the working directory that is called as a library would be imported in its place.
ISOLATED = "-P"
ISOLATING = "PYTHONSAFEPATH"  # the same for processes whose command others write
# For programs that an older Python on another machine is to run: the same, as their first statement.
ISOLATION = "import sys; sys.path[:] = filter(None, sys.path)"
KNOWS_ISOLATION = hasattr(sys.flags, "safe_path")  # Python 3.10, as a device may have, knows neither

_before: dict[str, str | None] = {}  # the user's values of variables that `set_for_libraries` has set


def python(*program: str) -> list[str]:
    """The command that runs a program.

    Args:
        program: arguments of Python: `-m` and a module, `-c` and a text, or a file, and what it is given.
    """
    if KNOWS_ISOLATION:
        return [sys.executable, ISOLATED, *program]
    return [sys.executable, *_isolated_by_hand(*program)]


def _isolated_by_hand(kind: str, *rest: str) -> list[str]:
    """The same program without the option."""
    if kind == "-c":
        return [kind, f"{ISOLATION}\n{rest[0]}", *rest[1:]]
    runner, name, given = ("run_module", rest[0], rest[1:]) if kind == "-m" else ("run_path", kind, rest)
    options = ", alter_sys=True" if kind == "-m" else ""
    return ["-c", f"{ISOLATION}; import runpy; runpy.{runner}({name!r}, run_name='__main__'{options})", *given]


def ending(code: int) -> str:
    """How a process ended, by its exit code; of one that a signal killed, Python gives the signal's number below 0."""
    if code < 0:
        names = {int(Signal): Signal.name for Signal in signal.Signals}  # not the same ones on all systems
        return f"killed by {names.get(-code, f'signal {-code}')}"
    return f"exit {code}" if code < 0x80000000 else f"exit 0x{code:X}"  # as Windows tells of a crash


def was_killed(code: int) -> bool:
    """Whether the system killed it, as one that is out of memory does."""
    return -code == getattr(signal, "SIGKILL", None)


@contextlib.contextmanager
def isolated_spawning() -> Iterator[None]:
    """What `multiprocessing` spawns within is kept from the working directory too."""
    before = os.environ.get(ISOLATING)
    os.environ[ISOLATING] = "1"
    folder = None if KNOWS_ISOLATION else Path.cwd()
    if folder is not None:
        os.chdir(Path(__file__).parents[2])
    try:
        yield
    finally:
        if folder is not None:
            os.chdir(folder)
        if before is None:
            del os.environ[ISOLATING]
        else:
            os.environ[ISOLATING] = before


def set_for_libraries(name: str, value: str) -> None:
    """Set a variable that a library of this process is going to read, and that is nobody else's business.

    Args:
        name: the name of the variable.
        value: that it gets.
    """
    _before.setdefault(name, os.environ.get(name))
    os.environ[name] = value


def of_children() -> dict[str, str]:
    """The environment that this process would have had without `set_for_libraries`."""
    users = {name: value for name, value in _before.items() if value is not None}
    return {name: value for name, value in os.environ.items() if name not in _before} | users
