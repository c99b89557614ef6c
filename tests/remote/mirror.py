"""A Debian archive on this machine, whose QEMU runs this Python, for tests of the emulator without one."""

from __future__ import annotations

import hashlib
import io
import lzma
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vit_deploy.remote.emulation import download, setup
from vit_deploy.remote.emulation.setup import PROGRAM, SUITE

# Takes what the wrapper gives it, up to the program for Arm, and runs this Python with the rest.
QEMU = f"""#!/bin/sh
[ "$2" = help ] && {{ printf 'Available CPUs:\\n  cortex-a53\\n  cortex-a76\\n'; exit 1; }}
while [ "${{1##*/}}" != python3.13 ]; do shift; done
shift
unset PYTHONPATH
case "$2" in *platform.machine*) echo aarch64; exit;; esac
exec {sys.executable} "$@"
"""


def deb(files: dict[str, bytes], packed: str = "data.tar.xz") -> bytes:
    """A package that holds files, all of which can be run."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    found = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (packed, data.getvalue())):
        found += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        found += b"\n" * (len(content) % 2)
    return found


@dataclass
class Mirror:
    """What it serves, and how.

    Args:
        files: by path.
        cut: bytes after which the connection breaks, by path, the next times that it is asked for.
        asked: paths with the ranges that were asked for.
    """

    files: dict[str, bytes]
    cut: dict[str, list[int]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


def archive() -> dict[str, bytes]:
    """The paths and files of an archive with what the emulator is made of."""
    packages = {
        "amd64": {"qemu-user": ({PROGRAM: QEMU.encode(), "usr/bin/qemu-sparc": b"unwanted"}, "")},
        "arm64": {
            "python3-minimal": ({"usr/bin/python3": b""}, "python3.13-minimal (= 3.13), dpkg (>= 1)"),
            "python3.13-minimal": ({"usr/bin/python3.13": b"Arm"}, "libc6 (>= 2) | other"),
            "libpython3-stdlib": ({"usr/lib/stdlib": b""}, ""),
            "libstdc++6": ({"usr/lib/libstdc++": b""}, "libc6, libgcc-s1:any"),
            "libc6": ({"usr/lib/libc.so": b"C"}, ""),
            "libgcc-s1": ({"usr/lib/libgcc": b""}, ""),
            "dpkg": ({"usr/bin/dpkg": b"unwanted"}, "nothing-that-there-is"),
        },
    }
    found = {}
    digests = []
    for architecture, named in packages.items():
        paragraphs = []
        for name, (files, needs) in named.items():
            path = f"pool/{name}_1_{architecture}.deb"
            found[path] = deb(files)
            paragraphs.append(
                f"Package: {name}\nVersion: 1:{len(name)}\nDepends: {needs}\nDescription: is\n longer: than a line\n"
                f"Filename: {path}\nSize: {len(found[path])}\nSHA256: {hashlib.sha256(found[path]).hexdigest()}\n"
            )
        index = f"main/binary-{architecture}/Packages.xz"
        content = found[f"dists/{SUITE}/{index}"] = lzma.compress("\n".join(paragraphs).encode())
        digests.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} {index}")
    release = ["Suite: stable", "MD5Sum:", f" 0 1 {index}", "SHA256:", *digests, "-----BEGIN PGP SIGNATURE-----"]
    found[f"dists/{SUITE}/InRelease"] = "\n".join(release).encode()
    return found


@contextmanager
def served(files: dict[str, bytes]) -> Iterator[Mirror]:
    """The archive, on loopback."""
    mirror = Mirror(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, ranged = self.path.lstrip("/"), self.headers.get("Range")
            mirror.asked.append((path, ranged))
            content = mirror.files.get(path)
            if content is None:
                self.send_error(404)
                return
            start = int(ranged.removeprefix("bytes=").rstrip("-")) if ranged else 0
            if ranged and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if ranged else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            rest = content[start:]
            if cuts := mirror.cut.get(path):
                rest = rest[: cuts.pop(0)]
            self.wfile.write(rest)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        mirror.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield mirror
        server.shutdown()
        thread.join()


def prepare(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """A cache of its own on an x86-64 Linux, without pauses, and with wheels that no index is asked for."""
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(cache))
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    monkeypatch.setattr(setup.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(setup.sys, "platform", "linux")

    def wheels(target: Path) -> None:
        (target / "numpy-2.0.dist-info").mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(setup, "_install_wheels", wheels)
    return cache
