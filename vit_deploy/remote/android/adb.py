"""An Android device, reached by the user's own `adb`."""

from __future__ import annotations

import re
import secrets
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vit_deploy.errors import ConfigError, MissingEngineError, RemoteError

SCHEME = "adb"
URL = re.compile(rf"{SCHEME}://(?P<serial>[\w\[][\w.:\[\]-]*)/?", re.ASCII)  # none begins with a dash, as options do
PROGRAM = "adb"
ASK_S = 20  # for what a device answers at once
SLICE_S = 0.5  # how soon a command that is to stop does
ENDED = "vit-deploy ended with"  # what the shell there says last, as old devices do not pass an exit code on
NUMBER = "running"  # the file with the number of the process that runs in a folder
FOLDER = "/data/local/tmp"  # where a program may be put and run on any device
FACTS = {"model": "ro.product.model", "android": "ro.build.version.release", "abi": "ro.product.cpu.abi"}
FIXES = {
    "unauthorized": "unlock the device, and allow this computer when it asks",
    "no permissions": "give your user access to the USB device: install android-sdk-platform-tools-common",
    "offline": "connect the device again, and wake it up",
    "not found": "`adb devices` lists those that are there; connect one of the network with `adb connect HOST:PORT`",
}


@dataclass(frozen=True)
class Device:
    """A device.

    Args:
        serial: as `adb devices` lists it.
        deadline: the end of the time for everything, by `time.monotonic`.
        stop: is set when nobody waits for it any more.
    """

    serial: str
    deadline: float
    stop: threading.Event = field(default_factory=threading.Event, compare=False)

    def check(self) -> None:
        """Refuse a device that takes no commands.

        Raises:
            MissingEngineError: there is no adb.
            RemoteError: the device is unknown, or not ready; says in what state it is.
        """
        _start_server(self._left(ASK_S))
        code, said = self._adb(["get-state"], ASK_S)
        if code or said.strip() != "device":
            state = " ".join(said.split()) or "no answer"
            fix = next((fix for name, fix in FIXES.items() if name in state), FIXES["not found"])
            raise RemoteError(f"{self} takes no commands: {state.removeprefix('error: ')}", fix=fix)

    def facts(self) -> dict[str, str]:
        """Model, version of Android, and the processor's interface, as the device says."""
        _, said = self.shell("; ".join(f"getprop {name}" for name in FACTS.values()), ASK_S)
        return dict(zip(FACTS, [line.strip() for line in said.splitlines()] + [""] * len(FACTS), strict=False))

    def shell(self, script: str, limit_s: float) -> tuple[int, str]:
        """The exit code and the output of a script, with what it says beside it.

        Raises:
            RemoteError: the device is gone, or the time is over.
        """
        code, said = self._adb(["shell", f"{{ {script}; }} 2>&1; ended=$?; echo; echo {ENDED} $ended"], limit_s)
        found = re.search(rf"\n?{ENDED} (\d+)\s*\Z", said.replace("\r\n", "\n"))
        if found is None:
            raise RemoteError(
                f"{self} was lost: {' '.join(said.split())[-200:] or f'exit {code}'}", fix=FIXES["offline"]
            )
        return int(found[1]), said.replace("\r\n", "\n")[: found.start()]

    def run(self, folder: str, words: Sequence[str], limit_s: float) -> tuple[int, str]:
        """The exit code and the output of a program in a folder of ours, which `remove` ends where it still runs.

        Raises:
            RemoteError: the device is gone, the time is over, or nobody waits any more.
        """
        number = f"{folder}/{NUMBER}"
        # A folder that was taken away meanwhile has no room for the number, and then nothing starts.
        started = shlex.join(["sh", "-c", f'echo $$ > {number} && exec "$@"', "sh", *words])
        return self.shell(f"{started}; code=$?; rm -f {number}; (exit $code)", limit_s)

    def push(self, path: Path, there: str) -> str:
        """Put a file there; why it could not be, or nothing.

        Raises:
            RemoteError: the time is over, or nobody waits any more.
        """
        code, said = self._adb(["push", str(path), there], self._left())
        return " ".join(said.split())[-200:] or f"exit {code}" if code else ""

    def remove(self, folder: str) -> str:
        """End what runs in a folder, and take it away; why it could not be, or nothing."""
        late = Device(self.serial, max(self.deadline, time.monotonic() + ASK_S))
        # Of a number that another program has by now, the command line names no such folder.
        words = "tr '\\0' ' ' < /proc/$number/cmdline 2> /dev/null"
        end = f'case "$({words})" in *{folder}*) kill -9 $number;; esac'
        script = f"number=$(cat {folder}/{NUMBER} 2> /dev/null) && {{ {end}; }}; rm -rf {shlex.quote(folder)}"
        try:
            code, said = late.shell(script, ASK_S)
        except RemoteError as error:
            return error.message
        return said.strip() if code else ""

    def new_folder(self) -> str:
        """A folder of ours, which nobody else has.

        Raises:
            RemoteError: it cannot be made.
        """
        folder = f"{FOLDER}/vit-deploy-{secrets.token_hex(8)}"
        code, said = self.shell(f"mkdir {folder} && chmod 700 {folder}", ASK_S)
        if code:
            raise RemoteError(f"{self} lets nobody write into {FOLDER}: {said.strip()}", fix="check the device")
        return folder

    def _left(self, limit_s: float | None = None) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise self._late()
        return left if limit_s is None else min(left, limit_s)

    def _late(self) -> RemoteError:
        return RemoteError(f"{self} gave no answer in time", fix="allow more with --timeout, or check it")

    def _adb(self, arguments: Sequence[str], limit_s: float) -> tuple[int, str]:
        end = time.monotonic() + self._left(limit_s)
        with subprocess.Popen(
            [PROGRAM, "-s", self.serial, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as client:
            try:
                said = self._said(client, end)
            except BaseException:  # an interrupt too
                client.kill()
                raise
        return client.returncode, said.decode(errors="replace")

    def _said(self, client: subprocess.Popen[bytes], end: float) -> bytes:
        while True:
            try:
                return client.communicate(timeout=max(0.0, min(SLICE_S, end - time.monotonic())))[0]
            except subprocess.TimeoutExpired as error:
                if self.stop.is_set():
                    raise RemoteError(f"{self}: stopped") from error
                if time.monotonic() >= end:
                    raise self._late() from error

    def __str__(self) -> str:
        return f"{SCHEME}://{self.serial}"


def device_at(url: str, timeout_s: float, stop: threading.Event | None = None) -> Device:
    """The device behind `adb://SERIAL`.

    Args:
        url: its address.
        timeout_s: for everything.
        stop: is set when nobody waits for it any more.

    Raises:
        ConfigError: another kind of address.
    """
    match = URL.fullmatch(url)
    if match is None:
        raise ConfigError(
            f"{url!r} is no address of an Android device", fix="give adb://SERIAL, as `adb devices` lists them"
        )
    return Device(match["serial"], time.monotonic() + timeout_s, stop or threading.Event())


def is_android(address: str) -> bool:
    """Whether an address is that of an Android device."""
    return address.startswith(f"{SCHEME}:")


def _start_server(limit_s: float) -> None:
    """Start adb's server, which lives on: it would keep the pipes of the command that starts it open."""
    with tempfile.TemporaryFile() as log:
        try:
            done = subprocess.run(
                [PROGRAM, "start-server"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=limit_s,
                check=False,
            )
        except FileNotFoundError as error:
            raise MissingEngineError(
                "there is no adb on this machine", fix="install it: apt-get install adb, or Android's platform tools"
            ) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RemoteError(f"adb does not start: {error}", fix="try `adb devices`") from error
        log.seek(0)
        said = log.read().decode(errors="replace").strip()
    if done.returncode:
        raise RemoteError(f"adb does not start: {' '.join(said.split())[-200:]}", fix="try `adb devices`")
