"""An emulated Arm computer as a machine to run on, in place of one that ssh reaches."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass

from vit_deploy.errors import ConfigError, did_you_mean
from vit_deploy.remote.emulation.setup import CPU_VARIABLE, Emulator, installed
from vit_deploy.remote.link import MARK

SCHEME = "qemu"
URL = re.compile(rf"{SCHEME}://(?P<cpu>[a-z0-9][a-z0-9.-]*)/?", re.ASCII)


@dataclass(frozen=True)
class EmulatedMachine:
    """An Arm computer that is emulated here.

    Args:
        cpu: model of its processor, as QEMU calls it.
        emulator: the emulator.
        timeout_s: the limit in seconds for everything together.
    """

    cpu: str
    emulator: Emulator
    timeout_s: float = 600.0

    @property
    def python(self) -> str:
        """The command of its Python, in the words of a shell."""
        return shlex.quote(str(self.emulator.python))

    def command(self, script: str) -> list[str]:
        """The command that runs a shell script in its home folder."""
        home = shlex.quote(str(self.emulator.home))
        # What the caller's Python is told is not meant for that one.
        clean = " ".join(name for name in os.environ if name.startswith("PYTHON"))
        unset = f"unset {clean}; " if clean else ""
        start = f"cd {home} && export {CPU_VARIABLE}={self.cpu}; {unset}umask 077; echo {shlex.quote(MARK)}; "
        return ["sh", "-c", f"{start}{script}"]

    @property
    def by_hand(self) -> str:
        """What a user would type to get there."""
        return f"{CPU_VARIABLE}={self.cpu} {self.python}"

    def __str__(self) -> str:
        return f"{SCHEME}://{self.cpu}"


def is_emulated(address: str | None) -> bool:
    """Whether an address is that of an emulated machine, whose times say nothing about a real one."""
    return address is not None and address.startswith(f"{SCHEME}://")


def emulated_machine(url: str, *, timeout_s: float = 600.0) -> EmulatedMachine:
    """The machine behind `qemu://cpu`.

    Args:
        url: names a CPU model of QEMU, such as `qemu://cortex-a76`.
        timeout_s: the limit in seconds for everything together.

    Raises:
        ConfigError: another kind of address, or a CPU that QEMU does not know.
        MissingEngineError: there is no emulator yet.
    """
    match = URL.fullmatch(url)
    if match is None:
        raise ConfigError(f"{url!r} is no address of an emulated machine", fix="give qemu://cortex-a76 or the like")
    emulator = installed()
    known = cpu_models(emulator)
    if match["cpu"] not in known:
        raise ConfigError(
            f"QEMU knows no CPU {match['cpu']!r}; expected one of {', '.join(known)}",
            fix=did_you_mean(match["cpu"], known),
        )
    return EmulatedMachine(match["cpu"], emulator, timeout_s)


def cpu_models(emulator: Emulator) -> list[str]:
    """CPU models with 64 bits that QEMU knows.

    Raises:
        ConfigError: it does not run.
    """
    try:
        # It lists them, and exits with 1.
        done = subprocess.run([emulator.qemu, "-cpu", "help"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise ConfigError(f"{emulator.qemu} does not run: {error}", fix="vit-deploy emulator setup") from error
    names = [line.strip() for line in done.stdout.splitlines() if line.startswith(" ")]
    return sorted(name for name in names if name and " " not in name)
