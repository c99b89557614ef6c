"""The place where an artifact that failed leaves the reference, or the reason why it cannot be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vit_deploy.errors import VitDeployError
from vit_deploy.verification import records
from vit_deploy.verification.golden import Golden
from vit_deploy.verification.locate.divergence import Located, locate
from vit_deploy.verification.verifying import Verification


@dataclass(frozen=True)
class Finding:
    """What was found inside an artifact that failed.

    Args:
        located: the place; None where the artifact cannot be looked into.
        error: why it cannot be looked into; None where it can.
        own_golden: whether its own activations were taken, because what it was compared with has none.
    """

    located: Located | None = None
    error: VitDeployError | None = None
    own_golden: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        if self.located is not None:
            return records.located(self.located)
        assert self.error is not None
        return records.not_located(self.error)


def look_into(result: Verification, goldens: Sequence[Golden], provider: str | None = None) -> Finding | None:
    """Look into an artifact that failed; None for one that did not fail.

    Args:
        result: its verification.
        goldens: what it was compared with, and its own golden data; the first one with activations is taken.
        provider: that it was requested to run with.
    """
    if result.ok:
        return None
    golden = next((golden for golden in goldens if golden.activations is not None), goldens[0])
    own = golden is not goldens[0]
    try:
        found = locate(result.artifact, golden=golden, runtime=result.runtime, provider=provider)
        return Finding(found, own_golden=own)
    except VitDeployError as error:
        # The artifact has failed all the same: that is the answer, and this is a remark on it.
        return Finding(error=error, own_golden=own)
