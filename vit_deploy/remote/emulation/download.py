"""Files fetched over HTTP, each known by its digest, and taken up again where a connection broke."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from vit_deploy.core.older_python import sha256_of
from vit_deploy.errors import OutputError, RemoteError

TIMEOUT_S = 60.0
TRIES = 4
PAUSE_S = 1.0
PIECE = 1 << 18
RANGE_IGNORED = 200
RANGE_BEYOND = 416

Result = TypeVar("Result")
Received = Callable[[int], object]


def fetch(url: str, target: Path, sha256: str, received: Received = lambda size: None) -> None:
    """Fetch a file, whole and with the right digest or not at all; one that is there already is kept.

    What a broken connection leaves in `<target>.part` is continued, by this run or a later one.

    Args:
        url: address of the file.
        target: where it belongs.
        sha256: digest that it has, in hexadecimal.
        received: called with the number of each further bytes, those that were there already included.

    Raises:
        RemoteError: it cannot be had, or is another file.
        OutputError: it cannot be written.
    """
    if target.exists():
        with target.open("rb") as file:
            if sha256_of(file) == sha256:
                received(target.stat().st_size)
                return
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for again in (True, False):
            _complete(url, part, received)
            with part.open("rb") as file:
                digest = sha256_of(file)
            if digest == sha256:
                part.replace(target)
                return
            received(-part.stat().st_size)
            part.unlink()
            if not again:
                raise RemoteError(
                    f"{url} has the digest {digest[:16]}…; expected {sha256[:16]}…",
                    fix="try again later: the mirror may be in the middle of an update",
                )
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}", fix="check the disk") from error


def read(url: str, sha256: str | None = None) -> bytes:
    """A small file.

    Raises:
        RemoteError: it cannot be had, or has another digest.
    """

    def whole() -> bytes:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            content: bytes = answer.read()
        return content

    content = _with_retries(url, whole)
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise RemoteError(
            f"{url} has the digest {found[:16]}…; expected {sha256[:16]}…",
            fix="try again later: the mirror may be in the middle of an update",
        )
    return content


def _complete(url: str, part: Path, received: Received) -> None:
    """Append to a file what is missing of it."""
    counted = False

    def rest() -> None:
        nonlocal counted
        there = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
        try:
            answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if error.code != RANGE_BEYOND:
                raise
            error.close()
            return  # there is nothing after it: whole, or not its beginning, as its digest will tell
        with answer, part.open("ab") as file:
            if answer.status == RANGE_IGNORED and there:
                file.truncate(0)
                received(-there if counted else 0)
            elif not counted:
                received(there)
            counted = True
            left = answer.headers.get("Content-Length")
            while piece := answer.read(PIECE):
                file.write(piece)
                received(len(piece))
                left = None if left is None else int(left) - len(piece)
        if left is not None and int(left) > 0:
            raise ConnectionError(f"the connection broke {left} bytes before the end")

    _with_retries(url, rest)


def _with_retries(url: str, work: Callable[[], Result]) -> Result:
    for left in reversed(range(TRIES)):
        try:
            return work()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 or not left:
                raise RemoteError(f"{url} answers {error.code} {error.reason}", fix="name another mirror") from error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            if not left:
                reason = getattr(error, "reason", None) or error
                raise RemoteError(
                    f"{url} cannot be had: {reason}", fix="check the connection, or name another mirror"
                ) from error
        time.sleep(PAUSE_S)
    raise AssertionError("unreachable")
