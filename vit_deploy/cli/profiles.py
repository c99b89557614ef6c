"""The tables of `vit-deploy bench --profile`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vit_deploy.cli.columns import prose, ranked

if TYPE_CHECKING:
    from vit_deploy.cli.output import Output

COLUMNS = ranked((prose("case"), "operator", "calls", "ms", "share"), ["share", "calls"])


def show_profiles(out: Output, records: Sequence[Mapping[str, Any]]) -> None:
    """A table of all operators, and a line for each reason why there is no profile; nothing beside a document."""
    if out.as_json:
        return
    rows: list[tuple[str, ...]] = []
    reasons: dict[str, None] = {}
    for record in records:
        if record.get("profile"):
            rows += [
                (
                    _case(record) if number == 0 else "",
                    operator["operator"],
                    f"{operator['calls']:g}",
                    f"{operator['ms']:.3f}",
                    f"{operator['share']:.1%}",
                )
                for number, operator in enumerate(record["profile"])
            ]
        elif "profile" in record:
            reasons[record["notes"][-1]] = None
    if rows:
        out.table("", COLUMNS, rows)
    for reason in reasons:
        out.note(reason)


def _case(record: Mapping[str, Any]) -> str:
    threads = f", {record['threads']} thread{'s' * (record['threads'] > 1)}" if record["threads"] else ""
    machine = f" on {record['on']}" if "on" in record else ""
    return f"{record['artifact']} in {record['runtime']} (batch {record['batch']}{threads}){machine}"
