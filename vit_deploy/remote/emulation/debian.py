"""Packages of a Debian archive: their index, what they depend on, and their files.

The index is trusted as far as the connection is (https); every package is held to the digest in it. Formats:
https://wiki.debian.org/DebianRepository/Format and deb(5).
"""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vit_deploy.errors import RemoteError
from vit_deploy.remote.emulation.download import read

MEMBER_HEADER = 60  # bytes in an ar archive, with the name in the first 16 and the size in 10 at 48
MAGIC = b"!<arch>\n"


@dataclass(frozen=True)
class Package:
    """A package of an index.

    Args:
        name: its name.
        version: its version.
        path: of its file, from the mirror's address.
        size: of its file, in bytes.
        sha256: digest of its file, in hexadecimal.
        needs: names of packages that it depends on, of alternatives the first.
    """

    name: str
    version: str
    path: str
    size: int
    sha256: str
    needs: tuple[str, ...]


def index(mirror: str, suite: str, architecture: str) -> dict[str, Package]:
    """The packages of a suite for an architecture, by name.

    Args:
        mirror: address of the archive, without a slash at its end.
        suite: "trixie" and the like.
        architecture: as Debian calls it: "amd64", "arm64".

    Raises:
        RemoteError: it cannot be had, or what it lists is not what it has.
    """
    release = read(f"{mirror}/dists/{suite}/InRelease").decode(errors="replace")
    path = f"main/binary-{architecture}/Packages.xz"
    digest = _digests(release).get(path)
    if digest is None:
        raise RemoteError(f"{mirror} has no {path} in {suite}", fix="name another mirror")
    compressed = read(f"{mirror}/dists/{suite}/{path}", digest)
    packages = (_package(fields) for fields in _paragraphs(lzma.decompress(compressed).decode()))
    return {package.name: package for package in packages}


def closure(packages: Mapping[str, Package], wanted: Sequence[str], without: Collection[str] = ()) -> list[Package]:
    """Packages and all that they depend on, each once and by name.

    Args:
        packages: from `index`.
        wanted: names of packages.
        without: names that are left out, with what they alone need.

    Raises:
        RemoteError: one that the index lacks.
    """
    found: dict[str, Package] = {}
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name in found or name in without:
            continue
        if name not in packages:
            raise RemoteError(f"the archive has no package {name}", fix="name another mirror")
        found[name] = packages[name]
        waiting += packages[name].needs
    return [found[name] for name in sorted(found)]


def unpack(package: Path, target: Path, only: str | None = None) -> None:
    """Put the files of a package below a folder.

    Args:
        package: its file.
        target: the folder.
        only: path of the one file that is wanted; None for all.

    Raises:
        RemoteError: it is no package, or one that is packed in another way than with xz.
    """
    for name, content in _members(package.read_bytes()):
        if name == "data.tar.xz":
            with tarfile.open(fileobj=io.BytesIO(content), mode="r:xz") as archive:
                members = [member for member in archive if only in (None, member.name.removeprefix("./"))]
                archive.extractall(target, members, filter="tar")  # packages link to absolute paths
            return
    raise RemoteError(f"{package} has no data.tar.xz", fix="remove it, and fetch it again")


def _members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    if not archive.startswith(MAGIC):
        return
    place = len(MAGIC)
    while place + MEMBER_HEADER <= len(archive):
        header = archive[place : place + MEMBER_HEADER]
        size = int(header[48:58])
        place += MEMBER_HEADER
        yield header[:16].decode(errors="replace").strip().rstrip("/"), archive[place : place + size]
        place += size + size % 2


def _digests(release: str) -> dict[str, str]:
    """SHA-256 by path, of the files that a release lists."""
    _, _, listed = release.partition("\nSHA256:")
    found = {}
    for line in listed.splitlines()[1:]:
        words = line.split()
        if not line.startswith(" ") or len(words) != 3:
            break
        found[words[2]] = words[0]
    return found


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    for paragraph in text.split("\n\n"):
        lines = [line.partition(":") for line in paragraph.splitlines() if not line.startswith((" ", "\t"))]
        fields = {name: value.strip() for name, _, value in lines}
        if "Package" in fields:
            yield fields


def _package(fields: Mapping[str, str]) -> Package:
    needs = ",".join(filter(None, (fields.get("Pre-Depends"), fields.get("Depends"))))
    first = (alternatives.partition("|")[0].strip() for alternatives in needs.split(","))
    return Package(
        name=fields["Package"],
        version=fields["Version"],
        path=fields["Filename"],
        size=int(fields["Size"]),
        sha256=fields["SHA256"],
        needs=tuple(name.partition(" ")[0].partition(":")[0] for name in first if name),
    )
