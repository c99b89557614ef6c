"""Verifications of other machines, read back from the records in which they came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.image_sizes import ImageSize
from vit_deploy.verification.parity import Parity
from vit_deploy.verification.records import METRICS, MORE_METRICS
from vit_deploy.verification.tolerances import Tolerance
from vit_deploy.verification.verifying import Check, SizeParity, Verification


def verification_in(record: Mapping[str, Any], artifact: Artifact) -> Verification:
    """The verification that a record of `verify` tells of; figures that were not finite are None.

    Args:
        record: as `records.verification` makes it, with `on`.
        artifact: the artifact as it is on this machine.
    """
    failed = (f"{check['name']}: {check['message']}" for check in record["checks"] if not check["ok"])
    sizes = tuple(_of_size(found) for found in record.get("sizes", []))
    of_sizes = (f"at {one.size}: {failure}" for one in sizes for failure in one.parity.failures)
    own = {*record["golden_failures"], *failed, *of_sizes}
    return Verification(
        artifact,
        runtime=record["runtime"],
        provider=record["provider"],
        parity=Parity(
            **_figures(record),
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
        outputs={name: _of_output(found) for name, found in record.get("outputs", {}).items()},
        sizes=sizes,
    )


def _figures(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record["metrics"].get(name) for name in (*METRICS, *MORE_METRICS)}


def _of_size(record: Mapping[str, Any]) -> SizeParity:
    size = ImageSize(tuple(record["image_size"]), record.get("signature", ""))
    return SizeParity(
        size, _of_output(record), {name: _of_output(one) for name, one in record.get("outputs", {}).items()}
    )


def _of_output(record: Mapping[str, Any]) -> Parity:
    words = tuple(record["failures"])
    notes = words if record["ok"] else tuple(record.get("notes", ()))
    failures = tuple(word for word in words if word not in notes)
    held = Tolerance(**record["tolerance"])
    compared = record.get("compared", {})
    return Parity(**_figures(record), tolerance=held, failures=failures, notes=notes, compared=compared)
