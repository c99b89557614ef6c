"""The words of `verify --locate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import VitDeployError

if TYPE_CHECKING:
    from vit_deploy.cli.output import Cell, Output
    from vit_deploy.verification.golden import Golden
    from vit_deploy.verification.locate.divergence import Located
    from vit_deploy.verification.parity import Verification

COLUMNS = ("tap", "error", "noise floor", "tolerance", "error/floor", "growth", "")


def locate_failure(out: Output, result: Verification, goldens: Sequence[Golden]) -> dict[str, Any] | None:
    """Look into an artifact that failed, print what was found, and give its record; None for one that did not fail.

    Args:
        out: the output of the command.
        result: the result of verifying it.
        goldens: the first one with activations is compared with.
    """
    from vit_deploy.verification import records
    from vit_deploy.verification.locate.divergence import locate

    if result.ok:
        return None
    golden = next((each for each in goldens if each.taps is not None), goldens[0])
    if golden is not goldens[0]:
        out.note(f"{result.artifact.model_path}: an artifact has no activations to compare with, so its own are taken")
    try:
        found = locate(result.artifact, golden=golden)
    except VitDeployError as error:
        # The artifact has failed all the same: that is the answer, and this is a remark on it.
        out.finding(f"{result.artifact.model_path} cannot be looked into: {error}")
        return records.not_located(error)
    _print(out, found)
    return records.located(found)


def _print(out: Output, found: Located) -> None:
    path = found.artifact.model_path
    if found.tap is not None:
        out.finding(f"{path}: leaves the reference at {found.tap}, by {found.operator}")
    for note in found.notes:
        out.note(f"{path}: {note}")
    if not out.as_json:
        rows = [_row(found, index) for index in range(len(found.taps))]
        out.table(f"{path}, tap by tap", COLUMNS, rows)


def _row(found: Located, index: int) -> tuple[Cell, ...]:
    each, growth = found.taps[index], found.growth()[index]
    times = each.times_floor
    return (
        each.name,
        "-" if each.error is None else f"{each.error:.1e}",
        f"{each.noise_floor:.1e}",
        f"{each.tolerance:.1e}",
        "-" if times is None else f"{times:.1f}",
        "-" if growth is None else f"{growth:.1f}",
        "unknown" if each.error is None else "" if each.ok else "HERE" if each.name == found.tap else "different",
    )
