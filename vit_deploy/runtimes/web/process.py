"""A browser's processes: started together, looked at together, and ended together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from vit_deploy.core.child_processes import ending, of_children, python

KEEPER = Path(__file__).with_name("keeper.py")
END_S = 5.0
LINES = 5
PROC = Path("/proc")
IGNORED = ("dbus", "DBus", "vaapi", "GLib", "Gtk", "gpu_memory_buffer")  # of headless browsers everywhere


class BrowserProcess:
    """A browser with all that it starts, which ends with its context, or with this process.

    Args:
        command: of the browser.
        profile: its folder, which is taken away where this process does not live to do so.
    """

    def __init__(self, command: Sequence[str], profile: Path) -> None:
        self._command, self._profile = command, profile

    def __enter__(self) -> BrowserProcess:
        self._said = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            python(str(KEEPER), str(self._profile), *self._command),
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._said,
            env=of_children(),
            start_new_session=True,  # so that Ctrl-C is not for the browser, and all of it can be ended at once
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(os, "killpg"):
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
            self._signal(signal.SIGKILL)
        assert self._process.stdin is not None
        self._process.stdin.close()  # its keeper ends the browser where there are no groups
        self._process.wait()
        self._said.close()

    def _signal(self, number: signal.Signals) -> None:
        # A browser's child may outlive it: the group is there until the last one of it is gone.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    @property
    def group(self) -> int:
        """The number of its group of processes."""
        return self._process.pid

    def ended(self) -> str | None:
        """How it ended, in words; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        return ending(code if code < 128 else 128 - code)

    def said(self) -> list[str]:
        """The last lines that it has printed."""
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read().decode(errors="replace").splitlines()]
        return [line for line in lines if line and not any(word in line for word in IGNORED)][-LINES:]

    def memory_mb(self) -> float | None:
        """The memory that its processes hold, what they share counted once, in 10^6 bytes; None where it is unknown."""
        found = [shared for process in self._members() if (shared := _pss_bytes(process)) is not None]
        return sum(found) / 1e6 if found else None

    def cpu_s(self) -> float | None:
        """Seconds of processors that its processes have taken so far; None where it is unknown."""
        found = [seconds for process in self._members() if (seconds := _cpu_s(process)) is not None]
        return sum(found) if found else None

    def _members(self) -> Iterator[Path]:
        """The processes of its group in `/proc`, without the keeper."""
        for process in PROC.iterdir() if PROC.is_dir() else ():
            if not process.name.isdigit() or int(process.name) == self.group:
                continue
            with contextlib.suppress(OSError, IndexError, ValueError):
                if int(_fields(process)[2]) == self.group:
                    yield process


def _fields(process: Path) -> list[str]:
    """What `/proc/PID/stat` says, from the state on: the name before may hold anything."""
    return (process / "stat").read_text(errors="replace").rpartition(")")[2].split()


def _cpu_s(process: Path) -> float | None:
    with contextlib.suppress(OSError, IndexError, ValueError):
        user, system = _fields(process)[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return None


def _pss_bytes(process: Path) -> int | None:
    with contextlib.suppress(OSError):
        for line in (process / "smaps_rollup").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return None
