"""Files uploaded to a repository of a hub, through its client."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from vit_deploy.checkpoints.hub.client import CLIENT, patiently
from vit_deploy.checkpoints.hub.names import Name
from vit_deploy.checkpoints.hub.progress import tell
from vit_deploy.checkpoints.hub.publishing import Upload
from vit_deploy.checkpoints.hub.refusals import HubRequest, explained
from vit_deploy.errors import HubError

REFUSED = (401, 403)


class Target:
    """A repository that files go to.

    Args:
        name: of it.
    """

    def __init__(self, name: Name) -> None:
        self._request = HubRequest(name, (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/"))
        self._api = HfApi(endpoint=self._request.endpoint, **CLIENT)

    def look(self, files: Mapping[str, Path | bytes], *, private: bool) -> Upload:
        """What would go there."""
        repository = self._request.name.repository
        tell(f"looking for {repository}")
        there: set[str] | None = None
        with self._explained(), contextlib.suppress(RepositoryNotFoundError):
            found = patiently(lambda: self._api.model_info(repository))
            there = {str(file.rfilename) for file in found.siblings or ()}
        replaced = tuple(name for name in files if name in (there or ()))
        return Upload(repository, self._request.page, there is not None, private, files, replaced)

    def send(self, upload: Upload, message: str) -> str:
        """Upload in one commit, and give its address."""
        size = sum(upload.sizes.values())
        tell(f"uploading {len(upload.files)} files, {size / 1e6:.1f} MB, to {upload.repository}")
        operations = [CommitOperationAdd(name, content) for name, content in upload.files.items()]
        with self._explained(), _without_bars():
            if not upload.exists:
                self._api.create_repo(upload.repository, private=upload.private, exist_ok=True)
            made = self._api.create_commit(upload.repository, operations, commit_message=message)
        return str(made.commit_url)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the client raises into a `HubError`."""
        repository = self._request.name.repository
        try:
            with explained(self._request):
                yield
        except HubError as error:
            cause = error.__cause__
            if isinstance(cause, OfflineModeIsEnabled):
                raise HubError("HF_HUB_OFFLINE is set, so nothing goes to a hub", fix="unset it") from error
            status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
            if status in REFUSED:
                raise HubError(
                    f"{self._request.endpoint} does not let you write to {repository}",
                    fix=f"set HF_TOKEN to a token that may write: {self._request.endpoint}/settings/tokens makes them",
                ) from error
            raise
        except ValueError as error:  # the client's own, for what the storage or the card's check refuses
            raise HubError(f"{repository} does not take the files: {error}", fix="see what the hub says") from error


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """The client's own bars of what it uploads would be drawn over ours."""
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
