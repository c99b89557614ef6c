"""The connection to a machine that shell scripts are run on, over ssh or in an emulator here.

What the shell there prints by itself, as a `.bashrc` may, is told from the script's output by a mark in front of the
latter.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from typing import IO, Protocol

from vit_deploy.errors import RemoteError

DROPPED = 255  # what ssh itself exits with when it cannot connect or loses the connection
PAUSE_S = 2.0  # before a dropped connection is taken up again
SLICE_S = 0.5  # how soon a command that is to stop does
SENDING_S = 5.0  # between two reports of how much is sent
MARK = "vit-deploy says:"
REFUSALS = ("permission denied", "host key verification failed", "could not resolve hostname", "no such identity")

Progress = Callable[[str], object]


class Machine(Protocol):
    """A machine to run on; its name in messages is its `str`."""

    @property
    def python(self) -> str:
        """The command of the Python there, in the words of a shell."""

    @property
    def timeout_s(self) -> float:
        """The limit in seconds for everything together."""

    @property
    def by_hand(self) -> str:
        """What a user would type to get there."""

    def command(self, script: str) -> list[str]:
        """The command here that runs a shell script in the home folder there, and prints `MARK` before its output."""


class Link:
    """The connection to one host, which is made again for each script and may drop at any time.

    Args:
        host: the machine to send to.
        deadline: the end of the time for everything, by `time.monotonic`.
        stop: is set when nobody waits for it any more.
    """

    def __init__(self, host: Machine, deadline: float, stop: threading.Event | None = None) -> None:
        self.host = host
        self.deadline = deadline
        self.stop = stop or threading.Event()

    def run(
        self,
        script: str,
        *,
        stdin: IO[bytes] | None = None,
        retry: bool = True,
        watch: Callable[[], None] = lambda: None,
    ) -> str:
        """The output of a script; a dropped connection is taken up again until the time is over.

        Args:
            script: a script for `sh`, in the home folder there.
            stdin: a file to send, from where it stands; None for nothing.
            retry: whether to go on after the connection dropped.
            watch: called now and then while it runs.

        Raises:
            RemoteError: no connection, or the script failed.
            ConnectionError: it dropped and `retry` is not set.
        """
        dropped = ""
        while True:
            code, out, said = self._once(script, stdin, watch, dropped)
            if code == 0:
                before, mark, answer = out.partition(f"{MARK}\n")
                if mark:
                    return answer
                raise RemoteError(
                    f"{self.host} does not run what it is sent, and answers {before.strip()[:200] or 'nothing'}",
                    fix=f"make `{self.host.by_hand} echo hello` work, with a login shell that takes commands",
                )
            if code != DROPPED:
                raise RemoteError(
                    f"{self.host}: {said or 'a command failed'} (exit {code})",
                    fix="check that the home folder there can be written and has room",
                )
            if any(refusal in said.lower() for refusal in REFUSALS):
                raise RemoteError(
                    f"{self.host} cannot be reached: {said}",
                    fix=f"make `{self.host.by_hand}` work without a password, with a key or an agent",
                )
            if not retry:
                raise ConnectionError(said or "the connection dropped")
            dropped = said
            self.pause()

    def pause(self) -> None:
        """Wait a little before the connection is made again."""
        self.stop.wait(min(PAUSE_S, max(self.deadline - time.monotonic(), 0)))

    def late(self, dropped: str = "") -> RemoteError:
        """The error of a time that is over."""
        last = f"; the last that ssh said: {dropped}" if dropped else ""
        return RemoteError(
            f"{self.host} gave no answer in {self.host.timeout_s:g} s{last}",
            fix="allow more with --timeout, or check it",
        )

    def _once(
        self, script: str, stdin: IO[bytes] | None, watch: Callable[[], None], dropped: str
    ) -> tuple[int, str, str]:
        """Exit code, output and what was said beside it, of one run of ssh, which is killed when it is late."""
        try:
            process = subprocess.Popen(
                self.host.command(script),
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the caller, who then cleans up there
            )
        except FileNotFoundError as error:
            raise RemoteError(
                f"there is no {error.filename} on this machine", fix="install OpenSSH's client"
            ) from error
        try:
            while True:
                left = self.deadline - time.monotonic()
                if self.stop.is_set():
                    raise RemoteError(f"{self.host}: stopped")
                if left <= 0:
                    raise self.late(dropped)
                try:
                    out, said = process.communicate(timeout=min(left, SLICE_S))
                except subprocess.TimeoutExpired:
                    watch()
                    continue
                return process.returncode, out.decode(errors="replace"), said.decode(errors="replace").strip()
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


def told_how_much(file: IO[bytes], total: int, tell: Progress) -> Callable[[], None]:
    """A function that says now and then how much of a file was read by the process that it is the input of.

    The place in the file is shared with that process.
    """
    last = time.monotonic()

    def watch() -> None:
        nonlocal last
        if time.monotonic() - last >= SENDING_S:
            last = time.monotonic()
            tell(f"{os.lseek(file.fileno(), 0, os.SEEK_CUR) / total:.0%} of {total / 1e6:.1f} MB")

    return watch
