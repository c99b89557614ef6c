"""Results of `verify` as a Markdown summary for a pull request."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vit_deploy.core.documents import Record
from vit_deploy.core.markdown import escaped, table
from vit_deploy.verification.records import shown
from vit_deploy.verification.tolerances import LIMITS

COLUMNS = ("", "artifact", "runtime", "figure", "tolerance", "top-1", "checks")
SIGNS = {"same": "✅", "inconclusive": "⚠️", "different": "❌"}


def markdown(results: Sequence[Record]) -> str:
    """A verdict, a table, what is wrong in words, and all metrics folded away; GitHub's and GitLab's dialect."""
    good = sum(bool(result["ok"]) for result in results)
    lines = [f"### vit-deploy verify: {good} of {len(results)} compute the same function", ""]
    lines += table(COLUMNS, [_row(result) for result in results])
    said = [(result, failure) for result in results if not result["ok"] for failure in result["failures"]]
    if said:
        lines += ["", *(f"- `{_code(str(result['artifact']))}`: {escaped(failure)}" for result, failure in said)]
    lines += ["", "<details><summary>all metrics</summary>", ""]
    names = [name for name in LIMITS if any(result["metrics"].get(name) is not None for result in results)]
    rows = [[_cell(str(result["artifact"])), *(_held(result, name) for name in names)] for result in results]
    lines += [*table(["artifact", *names], rows), "", "</details>", ""]
    return "\n".join(lines)


def _row(result: Record) -> list[str]:
    name = next(iter(result["tolerance"]), "max_abs")
    asked = [*result["checks"], *result.get("sizes", [])]
    passed = sum(one["ok"] for one in asked)
    return [
        SIGNS[result["verdict"]],
        _cell(str(result["artifact"])),
        escaped(f"{result['runtime']} ({result['provider']})"),
        f"{name} {shown(name, result['metrics'].get(name))}",
        shown(name, result["tolerance"].get(name)),
        shown("top1_agreement", result["metrics"]["top1_agreement"]),
        f"{passed} of {len(asked)}",
    ]


def _held(result: Record, name: str) -> str:
    """A figure, and beside it the limit it was held to."""
    figure, limit = result["metrics"].get(name), result["tolerance"].get(name)
    sign = "≤" if LIMITS[name].at_most else "≥"
    return shown(name, figure) + (f" ({sign} {shown(name, limit)})" if limit is not None else "")


def _cell(path: str) -> str:
    return f"`{_code(path).replace('|', chr(92) + '|')}`"


def _code(text: str) -> str:
    return re.sub(r"\s", " ", text).replace("`", "'")
