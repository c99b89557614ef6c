"""Parts of the standard library of Python 3.11 for devices that have 3.10, as JetPack 6 and Ubuntu 22.04 do."""

from __future__ import annotations

import hashlib
import sys
from typing import IO

__all__ = ["StrEnum", "sha256_of"]

if sys.version_info >= (3, 11):  # noqa: UP036
    from enum import StrEnum
else:
    from enum import Enum

    class StrEnum(str, Enum):  # noqa: UP042
        """Members are strings, and print as such."""

        __str__ = str.__str__
        __format__ = str.__format__


def sha256_of(file: IO[bytes]) -> str:
    """The SHA-256 of a file from where it stands, in hexadecimal; in pieces, as it may be larger than the memory."""
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()
