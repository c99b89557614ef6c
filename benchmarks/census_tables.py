"""Targets and tables of the census of timm's names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.markdown import table
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

SHOWN = "timm"
LIMIT = 1e-5  # of the largest logit
MODULES = ("vision_transformer", "deit", "eva", "beit", "vision_transformer_relpos", "naflexvit")
"""The modules of plain ViTs, by timm's names of them."""
OUTCOMES = ("exact", "refused", "wrong", "crashed")

Row = Mapping[str, Any]


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """Nothing wrong, nothing that crashes, and nearly all of the plain ones exact."""
    rows = results[SHOWN]["rows"] if SHOWN in results else None
    plain = None if rows is None else plain_rows(rows)
    share = None if plain is None else Counter(map(outcome, plain))["exact"] / len(plain)
    yield Target("names of the modules of plain ViTs that are exact, a share", 0.98, share, at_least=True, digits=3)
    for kind, what in (("wrong", "that answer something else"), ("crashed", "that end in a traceback")):
        count = None if rows is None else float(Counter(map(outcome, rows))[kind])
        yield Target(f"names of any module {what}", 0, count, digits=0)
    unexplained = None if rows is None else float(sum(outcome(row) == "refused" and not row["fix"] for row in rows))
    yield Target("refusals that say no way out", 0, unexplained, digits=0)


def outcome(row: Row) -> str:
    """What became of a name."""
    if "error" in row:
        return "exact" if row["error"] < LIMIT else "wrong"
    return "refused" if "refused" in row else "crashed"


def plain_rows(rows: Sequence[Row]) -> list[Row]:
    """Those of the names that timm registers in its modules of plain ViTs."""
    return [row for row in rows if row["module"] in MODULES]


def render(results: Mapping[str, Result]) -> str:
    """A row a module, and what is not exact."""
    return "\n\n".join(_section(result) for result in results.values())


def _section(result: Result) -> str:
    by_module: dict[str, list[Row]] = {}
    for row in result["rows"]:
        by_module.setdefault(row["module"], []).append(row)
    ordered = sorted(by_module.items(), key=lambda module: (module[0] not in MODULES, module[0] == ""))
    rows = [(f"`{module}`" if module else "names that timm has forgotten", *_cells(of)) for module, of in ordered]
    others = [(f"`{row['name']}`", outcome(row), _words(row)) for row in result["rows"] if outcome(row) != "exact"]
    head = ("module", "names", *OUTCOMES, "largest distance")
    parts = [facts_line(result), table(head, rows)]
    if others:
        parts.append(table(("not exact", "", "in the words of the message"), others))
    return "\n\n".join(parts)


def _cells(rows: Sequence[Row]) -> Iterator[str]:
    counted = Counter(map(outcome, rows))
    yield str(len(rows))
    yield from (str(counted[kind]) for kind in OUTCOMES)
    errors = [row["error"] for row in rows if "error" in row]
    yield f"{max(errors):.1e}" if errors else "-"


def _words(row: Row) -> str:
    if "error" in row:
        return f"{row['error']:.1e} of the largest logit"
    words: str = row.get("refused") or row["crashed"]
    return words.removeprefix("model.safetensors: ")
