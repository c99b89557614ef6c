"""The options of quantization, and the table of size, speed and accuracy beside fp32."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.cli.columns import Column, paths, ranked

if TYPE_CHECKING:  # at run time they would bring NumPy into every `--help`
    from vit_deploy.api.artifacts import ArtifactsOutcome
    from vit_deploy.cli.output import Output
    from vit_deploy.exporters.publish import Exported
    from vit_deploy.exporters.quantization.made import Made
    from vit_deploy.exporters.quantization.tradeoffs import Facts

SHOWN = 10  # layers of a sensitivity table on a terminal


def show_artifacts(out: Output, done: ArtifactsOutcome) -> int:
    """Print what became of each artifact, and the facts to choose by; gives the exit code.

    Args:
        out: where to.
        done: what `export` or `quantize` has done.
    """
    from vit_deploy.exporters.quantization.tradeoffs import verdicts
    from vit_deploy.verification import records

    made = done.made
    for note in (*done.notes, *made.notes):
        out.note(note)
    for name, place in done.served.items():
        out.note(f"{name} is the Triton model {place}")
    for result in made.results:
        for reason in result.parity.failures:
            where = f"published as {result.artifact.directory}" if result.published else "not published"
            what = "is not proven" if result.parity.unproven else "failed its proof"
            out.finding(f"{result.artifact.name} {what} and is {where}: {reason}")
    for gap in made.skipped:
        out.finding(f"skipped {gap}")
    for failure in made.failed:
        out.finding(f"{failure.name} could not be made: {failure.error}")
    if not out.as_json:
        _show_sensitivities(out, made)
    figure = records.figure_heading([result.parity for result in made.results])
    rows = [_row(result) for result in made.results]
    columns = ranked(
        (paths("artifact"), "size", "made in s", "proven in s", figure, "tolerance", "verdict"),
        ["size", figure, "tolerance", "proven in s", "made in s"],
    )
    if made.facts and not out.as_json:
        out.table("", columns, rows)
        columns, rows = _facts_table(made.facts)
    code = out.show(done, columns=columns, rows=rows, skipped=False)
    for gap in () if out.as_json else done.skipped:
        if gap not in made.skipped:
            out.note(f"skipped {gap}")
    for verdict in verdicts(made.facts):
        out.note(verdict)
    return code


def _row(result: Exported) -> tuple[str, ...]:
    from vit_deploy.core.quantities import megabytes
    from vit_deploy.verification import records

    return (
        str(result.artifact.directory) if result.published else result.artifact.name,
        megabytes(result.bytes),
        f"{result.seconds:.1f}",
        f"{result.verify_seconds:.1f}",
        *records.figure_and_limit(result.parity),
        result.parity.verdict if result.parity.ok else result.parity.verdict.upper(),
    )


def _facts_table(facts: dict[str, Facts]) -> tuple[tuple[Column, ...], list[tuple[str, ...]]]:
    """Size, speed and accuracy, each against fp32."""
    from vit_deploy.core.quantities import milliseconds

    labelled = any(fact.top1 is not None for fact in facts.values())
    timed = any(fact.latency_ms is not None for fact in facts.values())
    images = max(fact.images for fact in facts.values())
    agreement = f"top-1 as fp32 ({images} images)"
    columns = (
        "precision",
        "size",
        "of fp32",
        "ms a call",
        "of fp32",
        "cosine",
        *(("steady",) if timed else ()),
        agreement,
        *(("top-1", "points lost") if labelled else ()),
    )
    rows = []
    for name, fact in facts.items():
        cells = [
            name,
            _megabytes(fact.bytes),
            f"{fact.size_ratio:.2f}",
            "-" if fact.latency_ms is None else milliseconds(fact.latency_ms),
            "-" if fact.latency_ratio is None else f"{fact.latency_ratio:.2f}",
            f"{fact.cosine:.5f}",
            *((("NO" if fact.unsteady else "yes") if fact.latency_ms is not None else "-",) if timed else ()),
            "-" if fact.agreement is None else f"{fact.agreement:.1%}",
        ]
        if labelled and fact.top1 is not None and fact.fp32_top1 is not None:
            cells += [f"{fact.top1:.1%}", f"{100 * (fact.fp32_top1 - fact.top1):.2f}"]
        rows.append(tuple(cells))
    spare = ["points lost", agreement, "size", "steady", "ms a call", "top-1", "of fp32", "cosine"]
    return ranked(columns, spare), rows


def _megabytes(count: int) -> str:
    from vit_deploy.core.quantities import megabytes

    return megabytes(count)


def _show_sensitivities(out: Output, made: Made) -> None:
    for name, table in made.sensitivities.items():
        kept = next(result for result in made.results if result.artifact.name == name).artifact.options["recipe"]
        in_float = set(kept.get("keep_float", []))
        rows = [
            (
                row.layer,
                f"1 - {max(1 - row.cosine, 0):.1e}",
                "-" if row.agreement is None else f"{row.agreement:.1%}",
                "float" if row.layer in in_float else "quantized",
            )
            for row in table[: max(SHOWN, len(in_float))]
        ]
        title = f"{name}: quantizing one alone, {len(rows)} of {len(table)} layers"
        columns = ("layer", "smallest cosine", "top-1 as fp32", "is now")
        out.table(title, ranked(columns, ["smallest cosine", "top-1 as fp32"]), rows)
