"""Models fetched from a hub into its own cache, through its client."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from vit_deploy.checkpoints.folder import INDEX_SUFFIX, WEIGHT_FILES
from vit_deploy.checkpoints.hub import Located
from vit_deploy.checkpoints.hub.card import CARD, Licence, foreign_code, licence_of
from vit_deploy.checkpoints.hub.client import BUSY, CLIENT, TRIES, patiently
from vit_deploy.checkpoints.hub.digests import GIT, SHA256, Digest, digest_in_cache, is_genuine
from vit_deploy.checkpoints.hub.files import DOCUMENTS, in_folder, needed, shards
from vit_deploy.checkpoints.hub.names import Name
from vit_deploy.checkpoints.hub.parts import receive
from vit_deploy.checkpoints.hub.progress import tell
from vit_deploy.checkpoints.hub.refusals import HTTP_ERROR, HubRequest, explained, incomplete, no_hub, offline
from vit_deploy.core.manifest import sha256
from vit_deploy.core.origin import Origin, check_licence
from vit_deploy.errors import HubError

TIMEOUT_S = 20.0
ENTIRE = 100


@dataclass(frozen=True)
class Listing:
    """What a repository has at one commit.

    Args:
        commit: of the revision.
        digests: of every file, by name; None where the hub does not say it.
    """

    commit: str
    digests: Mapping[str, Digest | None]


def fetch(name: Name, required: Sequence[str] = (), *, words: bool = False) -> Located:
    """The checkpoint of a name, from the cache where it is there, with its origin. Nothing of it is run.

    Where the hub cannot be reached, what was fetched before is taken, and the origin says so.

    Args:
        name: the model.
        required: licences, of which its own has to be one; it is refused before the weights are fetched.
        words: whether the files of its tokenizer are fetched too.

    Raises:
        HubError: the model is not there, not for this user, or cannot be fetched or kept.
        LicenceError: another licence.
    """
    request = HubRequest(name, (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/"))
    try:
        with explained(request):
            listing = _listing(request)
    except HubError as error:
        cause = error.__cause__
        away = isinstance(cause, HTTP_ERROR) and not isinstance(cause, HfHubHTTPError)
        if not (away or isinstance(cause, OfflineModeIsEnabled) or _status(cause) in BUSY):
            raise
        return _from_cache(request, required, error)
    wanted = needed(name, listing.digests, words=words)
    paths: dict[str, Path] = {}
    folder = None
    for file in wanted.small:
        paths[file], folder = _fetched(request, file, listing)
    origin = _origin(request, listing.commit, folder, listing.digests)
    check_licence(origin.licence, required, name.text)
    weights = wanted.weights
    if wanted.path.endswith(INDEX_SUFFIX):
        parts = shards(name, paths[wanted.path], wanted.path)
        weights = (*weights, *(part for part in parts if part in listing.digests))  # its reader tells what is missing
    for file in weights:
        paths[file], _ = _fetched(request, file, listing)
    return _located(origin, paths, wanted.path, {weight: listing.digests[weight] for weight in weights})


def _listing(request: HubRequest) -> Listing:
    """What the repository has, asked with patience where the hub is busy."""
    api = HfApi(endpoint=request.endpoint, **CLIENT)
    tell(f"looking for {request.name.repository}")

    def info() -> Any:
        return api.model_info(
            request.name.repository, revision=request.name.revision, files_metadata=True, timeout=TIMEOUT_S
        )

    try:
        found = patiently(info)
        files = {str(file.rfilename): _digest(file) for file in found.siblings or ()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise no_hub(request, f"its answer is no description of a model ({error})") from error
    if not found.sha:
        raise no_hub(request, "it names no commit")
    return Listing(str(found.sha), files)


def _digest(file: Any) -> Digest | None:
    if file.lfs is not None:
        return Digest(SHA256, str(file.lfs.sha256))
    return Digest(GIT, str(file.blob_id)) if file.blob_id else None


def _fetched(request: HubRequest, file: str, listing: Listing) -> tuple[Path, Path]:
    """A file with its digest checked, and the folder of the commit in the cache."""
    name, commit = request.name, listing.commit
    request = HubRequest(name, request.endpoint, file)
    by_commit, by_revision = (_cached(name, file, revision) for revision in (commit, name.revision))
    path = by_commit if by_commit == by_revision else None
    if path is None:
        with explained(request):
            path = _downloaded(request, listing.digests[file])
    folder = path.parents[file.count("/")]
    if folder.name != commit:
        raise HubError(f"{name.repository} was changed while it was fetched", fix="run it again")
    expected = listing.digests[file]
    if expected is not None:
        _check(path, expected, request)
    return path, folder


def _downloaded(request: HubRequest, expected: Digest | None) -> Path:
    """A file, in the hub's cache. A connection that is cut is made again as long as that brings more of the file."""
    doing = f"fetching {request.file} of {request.name.repository}"
    tell(doing)
    for attempt in range(1, TRIES + 1):
        reporter = _reporter(doing)
        try:
            receive(request, expected, reporter)
            path = hf_hub_download(
                request.name.repository,
                request.file,
                revision=request.name.revision,  # not its commit, so that the cache knows what the revision stands for
                endpoint=request.endpoint,
                tqdm_class=reporter,
                **CLIENT,
            )
        except HTTP_ERROR as error:
            if isinstance(error, HfHubHTTPError) or not reporter.arrived or attempt == TRIES:
                raise
            tell(f"{doing}, again from where the connection was cut")
        else:
            return Path(path)
    raise AssertionError("the last attempt returns or raises")


def _cached(name: Name, file: str, revision: str) -> Path | None:
    found = try_to_load_from_cache(name.repository, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _check(path: Path, expected: Digest, request: HubRequest) -> None:
    """Remove a file that has another content from the cache.

    Raises:
        HubError: it has.
    """
    if is_genuine(path, expected):
        return
    blob = path.parent / path.readlink() if path.is_symlink() else path
    with contextlib.suppress(OSError):
        blob.unlink()
        path.unlink(missing_ok=True)
    raise incomplete(request)


def _from_cache(request: HubRequest, required: Sequence[str], why: HubError) -> Located:
    """What was fetched before.

    Raises:
        HubError: `why`, where it is not there, or not whole.
        LicenceError: another licence.
    """
    name = request.name
    known = (name.file,) if name.file else (*WEIGHT_FILES, *DOCUMENTS, CARD)
    found = next(((path, file) for file in known if (path := _cached(name, file, name.revision))), None)
    missing = offline(request) if isinstance(why.__cause__, OfflineModeIsEnabled) else why
    if found is None:
        raise missing
    folder = found[0].parents[found[1].count("/")]
    files = in_folder(folder)
    try:
        wanted = needed(name, files)
    except HubError as error:  # another program has fetched its config alone
        raise missing from error
    weights = wanted.weights
    if wanted.path.endswith(INDEX_SUFFIX):
        weights = (*weights, *shards(name, files[wanted.path], wanted.path))
        if not all(weight in files for weight in weights):
            raise missing
    digests = {file: digest_in_cache(files[file]) for file in (*wanted.small, *weights)}
    for file, expected in digests.items():
        if expected is not None:
            _check(files[file], expected, HubRequest(name, request.endpoint, file))
    unreached = "HF_HUB_OFFLINE is set" if isinstance(why.__cause__, OfflineModeIsEnabled) else why.message
    origin = _origin(request, folder.name, folder, files, unreached)
    check_licence(origin.licence, required, name.text)
    return _located(origin, files, wanted.path, {weight: digests[weight] for weight in weights})


def _origin(
    request: HubRequest, commit: str, folder: Path | None, files: Mapping[str, object], unreached: str = ""
) -> Origin:
    name = request.name
    licence = Licence() if folder is None else licence_of(folder)
    return Origin(
        name.text,
        name.repository,
        name.revision,
        commit,
        f"{request.page}/tree/{commit}",
        licence.name,
        licence.link,
        unreached=unreached,
        not_run=() if folder is None else foreign_code(folder, files),
    )


def _located(origin: Origin, paths: Mapping[str, Path], path: str, digests: Mapping[str, Digest | None]) -> Located:
    known = {
        file: digest.value if digest is not None and digest.kind == SHA256 else sha256(paths[file])
        for file, digest in digests.items()
    }
    return Located(paths[path], dataclasses.replace(origin, files=known), tuple(paths[file] for file in digests))


def _status(error: BaseException | None) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


class Reporter(huggingface_hub.utils.tqdm):  # type: ignore[misc]  # its own types are of another distribution
    """A progress bar that draws nothing and tells how far it is, in whole percents."""

    doing = ""
    arrived = 0  # bytes that all bars of a download have seen

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})
        self._at, self._told = int(kwargs.get("initial") or 0), -1

    def update(self, n: float | None = 1) -> None:
        """Count bytes that have come."""
        self._at += int(n or 0)
        type(self).arrived += int(n or 0)
        percent = ENTIRE * self._at // self.total if self.total else -1
        if percent != self._told and 0 <= percent <= ENTIRE:
            self._told = percent
            tell(f"{self.doing}: {percent}%")


def _reporter(doing: str) -> type[Reporter]:
    """The bars of one download, which the client makes by their class."""
    return type("Reporter", (Reporter,), {"doing": doing})
