"""Addresses of files on other file systems: what they name, and what names the files below them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from vit_deploy.errors import DataError

REMOTE = "://"  # in the addresses of other file systems than the computer's own
PARTS = re.compile(r"([\w+.-]+)://([^/?]*)/?(.*?)(\?[\w.-]+=[^?/]*)?")  # `img-?.jpg` is a pattern and has no options


@dataclass(frozen=True)
class Address:
    """`scheme://bucket/path?options`, as pyarrow reads it.

    Args:
        scheme: the kind of file system.
        place: bucket or host, with user and password where they are given.
        path: below it, as it is called there: nothing is escaped.
        options: of the connection, with the question mark.
    """

    scheme: str
    place: str
    path: str
    options: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}{REMOTE}{self.place}/{quote(self.path)}{self.options}"

    @property
    def shown(self) -> str:
        """The address for people and for files that are kept: without a password, options and escapes."""
        return f"{self.scheme}{REMOTE}{self.bucket}/{self.path}"

    @property
    def bucket(self) -> str:
        """The bucket or host alone."""
        return self.place.rpartition("@")[2]

    @property
    def name(self) -> str:
        """The last part of the path, or the bucket."""
        return self.path.rstrip("/").rpartition("/")[2] or self.bucket

    def at(self, path: str) -> Address:
        """Another path there."""
        return Address(self.scheme, self.place, path, self.options)

    def below(self, inside: str) -> Address:
        """A path below this one."""
        return self.at(f"{self.path.rstrip('/')}/{inside}".lstrip("/")) if inside else self

    def beside(self, name: str) -> Address:
        """Another file in the folder of this one."""
        return self.at(f"{self.path.rpartition('/')[0]}/{name}".lstrip("/"))


def parsed(text: str) -> Address:
    """The address that a text is.

    Raises:
        DataError: a user or password with a slash, which would end them there and be shown as a path.
    """
    found = PARTS.fullmatch(text)
    assert found is not None  # every text with "://" behind a scheme is one
    if "@" in found[3] and "@" not in found[2] and re.search(r":(?!\d+$)", found[2]):
        raise DataError(
            f"an address of {found[1]}{REMOTE} has a slash in its user or password", fix="write it as %2F there"
        )
    return Address(found[1], found[2], unquote(found[3]), found[4] or "")


def is_address(text: str) -> bool:
    """Whether a text names another file system than the computer's own."""
    return REMOTE in text and PARTS.fullmatch(text) is not None


def shown(path: str) -> str:
    """A path or an address for people and for files that are kept."""
    return parsed(path).shown if is_address(path) else path


def name_of(path: str) -> str:
    """The name of a file by its path or address."""
    return parsed(path).name if is_address(path) else re.split(r"[/\\]" if "\\" in path else "/", path)[-1]


def is_written_like_address(path: str) -> bool:
    """The same of what has been a path meanwhile, as `s3:/bucket/file`."""
    return re.match(r"[\w+.-]{2,}:/", path) is not None
