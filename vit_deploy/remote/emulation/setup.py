"""The parts of the emulator in the user's cache: QEMU, an Arm system with Python, and wheels of the engines."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vit_deploy.core.cache import cache_folder
from vit_deploy.core.child_processes import ISOLATION, python
from vit_deploy.errors import MissingEngineError, OutputError, RemoteError
from vit_deploy.remote.emulation.debian import Package, closure, index, unpack
from vit_deploy.remote.emulation.download import fetch

MIRROR = "https://deb.debian.org/debian"
SUITE = "trixie"
PYTHON = "3.13"  # of that suite
HOSTS = {"x86_64": "amd64", "aarch64": "arm64"}  # whose QEMU the suite has, as Debian calls them
QEMU = ("qemu-user",)  # static programs, one for each architecture
PROGRAM = "usr/bin/qemu-aarch64"
SYSTEM = ("python3-minimal", "libpython3-stdlib", "libstdc++6")
# What a system has to have that is installed, and one that only runs Python has not.
NOT_RUN = ("dpkg", "debconf", "media-types", "netbase", "tzdata", "perl-base", "libpam-runtime", "adduser")
WHEELS = ("numpy", "onnxruntime", "ai-edge-litert", "pillow")
GLIBC = (17, 26, 27, 28, 31, 34, 38, 39)  # 2.x, up to that of the suite
WHEELS_BYTES = 80_000_000  # about

Progress = Callable[[str], object]

# `sys.executable` is this file, so that processes which Python starts are emulated as well.
WRAPPER = """\
#!/bin/sh
here={folder}
exec "$here/qemu/usr/bin/qemu-aarch64" -cpu "${{{variable}:-max}}" -L "$here/system" -0 "$0" \\
  -E PYTHONHOME=/usr -E PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}$here/wheels" \\
  "$here/system/usr/bin/python{python}" "$@"
"""
CPU_VARIABLE = "VIT_DEPLOY_EMULATED_CPU"


@dataclass(frozen=True)
class Emulator:
    """An emulator that is set up.

    Args:
        folder: where its parts are.
        bytes: of all parts, in the cache.
        versions: of the packages and wheels that it was made of, by name.
    """

    folder: Path
    bytes: int
    versions: dict[str, str]

    @property
    def python(self) -> Path:
        """The program that runs Python for Arm, on the CPU that `CPU_VARIABLE` names."""
        return self.folder / "python"

    @property
    def qemu(self) -> Path:
        """The program that emulates."""
        return self.folder / "qemu" / PROGRAM

    @property
    def main_versions(self) -> dict[str, str]:
        """The versions that a user asks for: of QEMU, of Python, and of the wheels."""
        named = {"QEMU": QEMU[0], "Python": f"python{PYTHON}-minimal", **{name: name for name in WHEELS}}
        known = {name.replace("_", "-"): version for name, version in self.versions.items()}  # wheels have underscores
        return {words: known[name] for words, name in named.items() if name in known}

    @property
    def home(self) -> Path:
        """The folder that work is done in."""
        return self.folder / "home"


def folder() -> Path:
    """Where this user's emulator is, or would be."""
    return cache_folder() / "emulator"


def installed() -> Emulator:
    """The emulator of this user.

    Raises:
        MissingEngineError: it was not set up.
    """
    place = folder()
    try:
        listed = json.loads((place / "about.json").read_text(encoding="utf-8"))
        return Emulator(place, int(listed["bytes"]), dict(listed["versions"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MissingEngineError(f"there is no emulator in {place}", fix="vit-deploy emulator setup") from error


def plan(mirror: str = MIRROR) -> tuple[list[Package], list[Package]]:
    """The packages with QEMU for this machine, and those of the Arm system.

    Raises:
        RemoteError: a machine that QEMU is not had for, or a mirror without them.
    """
    here = HOSTS.get(platform.machine()) if sys.platform == "linux" else None
    if here is None:
        raise RemoteError(
            f"the emulator runs on Linux, on {' and '.join(HOSTS)}; this is {platform.system()} {platform.machine()}",
            fix="set it up there, or prove the files on a real device with --on ssh://",
        )
    # The program is static: it needs nothing of what its package would have installed beside it.
    program = [package for package in closure(index(mirror, SUITE, here), QEMU) if package.name in QEMU]
    return program, closure(index(mirror, SUITE, "arm64"), SYSTEM, NOT_RUN)


def set_up(*, mirror: str = MIRROR, progress: Progress = lambda doing: None, note: Progress = print) -> Emulator:
    """Fetch all parts, unless they are there as they are in the archive now; a run that was broken off is continued.

    Args:
        mirror: address of a Debian archive.
        progress: called with what is being done.
        note: called with how much is going to be fetched.

    Returns:
        The emulator, which has run its Python once.

    Raises:
        RemoteError: something cannot be had, or what was fetched does not run.
        OutputError: it cannot be written.
    """
    place = folder()
    mirror = mirror.rstrip("/")
    progress("reading the index of the packages")
    program, system = plan(mirror)
    if (there := _already({package.name: package.version for package in (*program, *system)})) is not None:
        return there
    total = sum(package.size for package in (*program, *system))
    note(f"fetching about {(total + WHEELS_BYTES) / 1e6:.0f} MB to {place}")
    done = 0

    def received(size: int) -> None:
        nonlocal done
        done += size
        progress(f"fetching packages: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    downloads = place / "packages"
    for package in (*program, *system):
        fetch(f"{mirror}/{package.path}", downloads / Path(package.path).name, package.sha256, received)
    progress("unpacking the packages")
    _unpack_all(program, downloads, place / "qemu", PROGRAM)
    _unpack_all(system, downloads, place / "system")
    progress("fetching wheels of the engines")
    _install_wheels(place / "wheels")
    (place / "home").mkdir(exist_ok=True)
    _write_wrapper(place)
    versions = {package.name: package.version for package in (*program, *system)}
    versions |= _wheel_versions(place / "wheels")
    emulator = Emulator(place, sum(file.lstat().st_size for file in place.rglob("*") if file.is_file()), versions)
    progress("running its Python")
    _try(emulator)
    shutil.rmtree(downloads)
    partial = place / "about.json.part"
    partial.write_text(json.dumps({"bytes": emulator.bytes, "versions": versions}, indent=1), encoding="utf-8")
    partial.replace(place / "about.json")
    return emulator


def _already(versions: dict[str, str]) -> Emulator | None:
    """The emulator that is there, if it is made of these packages."""
    try:
        there = installed()
    except MissingEngineError:
        return None
    return there if versions.items() <= there.versions.items() else None


def _unpack_all(packages: list[Package], downloads: Path, target: Path, only: str | None = None) -> None:
    """Into another folder first, which then takes the place of the old one."""
    fresh = target.with_name(f"{target.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for package in packages:
        unpack(downloads / Path(package.path).name, fresh, only)
    if not (fresh / "lib").exists() and (fresh / "usr/lib").exists():
        (fresh / "lib").symlink_to("usr/lib")  # which a package makes when it is installed
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def _install_wheels(target: Path) -> None:
    fresh = target.with_name(f"{target.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    platforms = [f"--platform=manylinux_2_{glibc}_aarch64" for glibc in GLIBC]
    pip = python("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
    pip += ["--target", str(fresh), "--only-binary=:all:", *platforms, "--platform=manylinux2014_aarch64"]
    pip += ["--implementation=cp", f"--python-version={PYTHON}", *WHEELS]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise RemoteError(
            f"pip cannot fetch the engines: {(reasons or done.stderr.splitlines() or ['it says nothing'])[-1]}",
            fix="check the connection to the package index, and that this Python has pip",
        )
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


def _wheel_versions(wheels: Path) -> dict[str, str]:
    named = (path.name.removesuffix(".dist-info").rpartition("-") for path in wheels.glob("*.dist-info"))
    return {name: version for name, _, version in named}


def _write_wrapper(place: Path) -> None:
    wrapper = place / "python"
    quoted = "'" + str(place).replace("'", "'\\''") + "'"
    wrapper.write_text(WRAPPER.format(folder=quoted, variable=CPU_VARIABLE, python=PYTHON), encoding="utf-8")
    wrapper.chmod(0o755)


def _try(emulator: Emulator) -> None:
    code = f"{ISOLATION}; import platform, numpy, onnxruntime, ai_edge_litert; print(platform.machine())"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([emulator.python, "-c", code], capture_output=True, text=True, env=clean, check=False)
    if done.stdout.strip() != "aarch64":
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        raise RemoteError(f"the emulated Python does not run: {last}", fix=f"remove {emulator.folder}, and try again")


def remove() -> Emulator:
    """Take the emulator of this user away.

    Returns:
        What it was.

    Raises:
        MissingEngineError: it was not set up.
        OutputError: it cannot be removed.
    """
    emulator = installed()
    try:
        shutil.rmtree(emulator.folder)
    except OSError as error:
        raise OutputError(f"{emulator.folder} cannot be removed: {error}", fix="check who owns it") from error
    return emulator
