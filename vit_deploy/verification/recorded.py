"""Verifications of other machines, read back from the records in which they came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vit_deploy.core.artifact import Artifact
from vit_deploy.verification.parity import Check, Parity, Verification
from vit_deploy.verification.records import METRICS, MORE_METRICS
from vit_deploy.verification.tolerances import Tolerance


def verification_in(record: Mapping[str, Any], artifact: Artifact) -> Verification:
    """The verification that a record of `verify` tells of; figures that were not finite are None.

    Args:
        record: as `records.verification` makes it, with `on`.
        artifact: the artifact as it is on this machine.
    """
    metrics = record["metrics"]
    failed = (f"{check['name']}: {check['message']}" for check in record["checks"] if not check["ok"])
    own = {*record["golden_failures"], *failed}
    return Verification(
        artifact,
        runtime=record["runtime"],
        provider=record["provider"],
        parity=Parity(
            **{name: metrics.get(name) for name in (*METRICS, *MORE_METRICS)},
            worst=tuple(record["worst_index"]),
            notes=tuple(note for note in record["failures"] if note not in own),
            tolerance=Tolerance(**record["tolerance"]),
            failures=tuple(record["golden_failures"]),
            inconclusive=record["verdict"] == "inconclusive",
            unproven=record["verdict"] == "unproven",
        ),
        checks=tuple(Check(check["name"], check["ok"], check["message"]) for check in record["checks"]),
        seconds=record["seconds"],
        on=record["on"],
    )
