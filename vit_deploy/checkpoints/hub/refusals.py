"""What a hub, the network or the disk refuses, each as one error with its fix."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from vit_deploy.checkpoints.hub.names import MAIN, Name
from vit_deploy.errors import HubError

# The client's HTTP library, whose name depends on its version, has one base of all that a connection fails with.
HTTP_ERROR: type[Exception] = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TOKEN = "set HF_TOKEN, or log in with: hf auth login"


@dataclass(frozen=True)
class HubRequest:
    """What was being done.

    Args:
        name: the model.
        endpoint: address of the hub.
        file: that was fetched; empty where there was none yet.
    """

    name: Name
    endpoint: str
    file: str = ""

    @property
    def page(self) -> str:
        """Address of the repository's page."""
        return f"{self.endpoint}/{self.name.repository}"

    @property
    def what(self) -> str:
        """The file, or the repository."""
        return f"{self.file} of {self.name.repository}" if self.file else self.name.repository


@contextlib.contextmanager
def explained(request: HubRequest) -> Iterator[None]:
    """Turn what the client raises in the block into a `HubError`.

    Raises:
        HubError: whatever the hub, the network or the disk refused.
    """
    try:
        yield
    except LocalEntryNotFoundError as error:  # what the client could not look up stands behind it
        cause = error.__cause__
        raise (_of_hub(cause, request) if isinstance(cause, Exception) else _unreachable(error, request)) from error
    except (HTTP_ERROR, OfflineModeIsEnabled, FileMetadataError) as error:
        raise _of_hub(error, request) from error
    except RuntimeError as error:  # what hf_xet raises, and what the client raises of an upload that failed
        cause = error.__cause__
        if isinstance(cause, HTTP_ERROR):
            raise _of_hub(cause, request) from cause
        raise HubError(
            f"{request.what} cannot be transferred: {_first_line(error)}", fix="try again, or with HF_HUB_DISABLE_XET=1"
        ) from error
    except OSError as error:
        raise _of_disk(error, request) from error


def _of_hub(error: Exception, request: HubRequest) -> HubError:
    name, page = request.name, request.page
    if isinstance(error, OfflineModeIsEnabled):
        return offline(request)
    if isinstance(error, GatedRepoError):
        have = "with the account of your token" if get_token() else f"and then {TOKEN}"
        return HubError(
            f"{name.repository} is gated: whoever asks for it there gets access", fix=f"ask for access at {page} {have}"
        )
    if isinstance(error, RevisionNotFoundError):
        return HubError(
            f"{name.repository} has no revision {name.revision}",
            fix=f"give a branch, a tag or a commit, as hf:{name.repository}@{MAIN}; they are listed at {page}/commits",
        )
    if isinstance(error, EntryNotFoundError):
        return HubError(f"{name.repository} has no file {request.file}", fix=f"see which there are at {page}/tree/main")
    if isinstance(error, RepositoryNotFoundError):
        tag = name.repository.startswith("timm/") and "." not in name.model
        hint = "timm's repositories end in a tag, as timm:vit_tiny_patch16_224.augreg_in21k; " if tag else ""
        return HubError(
            f"there is no repository {name.repository} at {request.endpoint}, or it is private",
            fix=f"{hint}check the name; for a private one {TOKEN}",
        )
    if isinstance(error, HfHubHTTPError):
        return _of_status(error, request)
    if isinstance(error, FileMetadataError):
        return no_hub(request, _first_line(error))
    return _unreachable(error, request)


def _of_status(error: HfHubHTTPError, request: HubRequest) -> HubError:
    status = error.response.status_code
    if status == 401:
        return HubError(f"{request.endpoint} does not accept the token that is set", fix=f"get another one and {TOKEN}")
    if status == 403:
        return HubError(
            f"{request.endpoint} does not let you read {request.what}",
            fix=f"ask for access at {request.page}, with a token that may read it: {TOKEN}",
        )
    if status == 429:
        more = "" if get_token() else f"; more is allowed with a token: {TOKEN}"
        return HubError(f"{request.endpoint} was asked too often (429)", fix=f"try again {_later(error)}{more}")
    reason = "has a failure" if status >= 500 else "refuses"
    return HubError(
        f"{request.endpoint} {reason}: it answers {status} for {request.what}", fix=f"try again {_later(error)}"
    )


def offline(request: HubRequest) -> HubError:
    """What is not in the cache cannot be had without a network that may be used."""
    cache = constants.HF_HUB_CACHE
    return HubError(
        f"{request.name.text} at {request.name.revision} is not in the cache {cache}, and HF_HUB_OFFLINE is set",
        fix="run it once without HF_HUB_OFFLINE, or copy the cache of a machine that has it",
    )


def no_hub(request: HubRequest, detail: str) -> HubError:
    """What answers is something else."""
    return HubError(
        f"{request.endpoint} does not answer as a hub does: {detail}",
        fix="check HF_ENDPOINT, and whether a proxy or a login page of the network answers in its place",
    )


def incomplete(request: HubRequest) -> HubError:
    """A file that came with another content."""
    return HubError(
        f"{request.what} came with another content than the hub states, and was removed from the cache",
        fix="run it again; if that does not help, something between here and the hub changes or caches files",
    )


def _unreachable(error: Exception, request: HubRequest) -> HubError:
    detail = _first_line(error) or type(error).__name__
    return HubError(
        f"{request.endpoint} cannot be reached: {detail}",
        fix="check the network, proxies and HF_ENDPOINT, and run it again; what was fetched before needs no network",
    )


def _of_disk(error: OSError, request: HubRequest) -> HubError:
    cache = constants.HF_HUB_CACHE
    if error.errno in FULL:
        return HubError(
            f"there is no space for {request.what} in {cache}", fix="free some, or let HF_HOME name a folder with space"
        )
    if error.errno is None:  # the client's own: another number of bytes than the hub has announced
        return incomplete(request)
    return HubError(
        f"{request.what} cannot be kept in {cache}: {error.strerror}",
        fix="let HF_HOME name a folder that you can write to",
    )


def _later(error: HfHubHTTPError) -> str:
    after = str(error.response.headers.get("Retry-After", ""))
    return f"in {after} seconds" if after.isdigit() else "later"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
