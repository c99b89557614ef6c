"""Large files of a hub, received into parts that outlast a command that was broken off.

The hub's client begins anew after a break, since its own part files are removed; and it takes the storage that a hub
offers beside plain HTTP, which mirrors announce and do not have.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import WeakFileLock, build_hf_headers

from vit_deploy.checkpoints.hub.client import CLIENT
from vit_deploy.checkpoints.hub.digests import SHA256, Digest, is_genuine
from vit_deploy.checkpoints.hub.progress import tell
from vit_deploy.checkpoints.hub.refusals import HubRequest, incomplete

PART = ".vit-deploy.incomplete"


def receive(request: HubRequest, expected: Digest | None, reporter: type[Any]) -> None:
    """Put a large file into the client's cache, going on where an earlier command stopped.

    What lies there afterwards has its digest. Files that the hub keeps no digest of SHA-256 of are left to the client.

    Args:
        request: for the file.
        expected: what the hub's listing says of it.
        reporter: class of the client's progress bars.

    Raises:
        HubError: the file has another content than the hub states, though it was received from its beginning.
    """
    if expected is None or expected.kind != SHA256 or not re.fullmatch(r"[0-9a-f]{64}", expected.value):
        return
    name = request.name
    url = hf_hub_url(name.repository, request.file, revision=name.revision, endpoint=request.endpoint)
    found = get_hf_file_metadata(url, endpoint=request.endpoint, **CLIENT)
    if found.etag != expected.value or not found.size:
        return
    cache, folder = Path(constants.HF_HUB_CACHE), f"models--{name.repository.replace('/', '--')}"
    blob = cache / folder / "blobs" / expected.value
    lock = cache / ".locks" / folder / f"{expected.value}.lock"  # the client's own
    for place in (blob, lock):
        place.parent.mkdir(parents=True, exist_ok=True)
    headers = build_hf_headers(**CLIENT)
    if urlsplit(found.location)[:2] != urlsplit(url)[:2]:
        headers.pop("authorization", None)  # not for another host
    with WeakFileLock(lock):
        if not blob.exists():
            part = blob.with_name(f"{blob.name}{PART}")
            if not _received(part, found.location, headers, found.size, expected, reporter):
                raise incomplete(request)
            part.replace(blob)


def _received(
    part: Path, address: str, headers: dict[str, str], size: int, expected: Digest, reporter: type[Any]
) -> bool:
    """Whether the part is whole and genuine now; else it is removed. One that was there is tried, then made anew."""
    there = part.stat().st_size if part.exists() else 0
    for start in dict.fromkeys((there if there <= size else 0, 0)):
        try:
            with part.open("r+b" if start else "wb") as file:
                file.seek(start)
                http_get(address, file, resume_size=start, headers=headers, expected_size=size, tqdm_class=reporter)
            if is_genuine(part, expected):
                return True
        except OSError:  # a full disk, or more or less bytes than the hub states
            part.unlink(missing_ok=True)
            raise
        part.unlink(missing_ok=True)
        if start:
            tell("what an earlier command has fetched was damaged: fetching it again")
    return False
