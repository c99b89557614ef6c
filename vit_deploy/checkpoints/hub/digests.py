"""Digests of fetched files: what a hub states, and whether a file has it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from vit_deploy.core.cache import cache_folder, read_cached, write_cached
from vit_deploy.core.manifest import sha256

SHA256, GIT = "SHA-256", "git blob"
HEX = {64: SHA256, 40: GIT}
VERIFIED = "verified"  # the folder of this program's cache that says which files were digested
CHUNK = 1 << 20


@dataclass(frozen=True)
class Digest:
    """What a file's content has to be.

    Args:
        kind: "SHA-256" of large files, or "git blob" of those that git itself keeps.
        value: in hexadecimal.
    """

    kind: str
    value: str

    def of(self, path: Path) -> str:
        """The digest of the same kind of a file."""
        if self.kind == SHA256:
            return sha256(path)
        found = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                found.update(chunk)
        return found.hexdigest()


def digest_in_cache(pointer: Path) -> Digest | None:
    """What the cache of a hub says of a file: its content lies under its digest, to which a link leads.

    None where there are no links, as on many Windows machines.
    """
    if not pointer.is_symlink():
        return None
    name = pointer.readlink().name
    return Digest(HEX[len(name)], name) if len(name) in HEX and re.fullmatch(r"[0-9a-f]+", name) else None


def is_genuine(path: Path, expected: Digest) -> bool:
    """Whether a file has its digest. It is computed once: what was found is kept until the file changes."""
    mark = cache_folder() / VERIFIED / expected.value
    status = path.stat()
    said = f"{status.st_size} {status.st_mtime_ns}".encode()
    if read_cached(mark) == said:
        return True
    if expected.of(path) != expected.value:
        return False
    write_cached(mark, said)
    return True
