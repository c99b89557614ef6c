"""`vit-deploy verify`: parity of artifacts with their checkpoint."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vit_deploy.cli.columns import Column, paths, prose, ranked
from vit_deploy.cli.options import Artifacts, Force, OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options import CheckpointOptions, Option
from vit_deploy.core.options.commands import ProofOptions
from vit_deploy.remote.options import HostOptions
from vit_deploy.verification.options import ReferenceOptions, ReportFiles, ToleranceOptions

if TYPE_CHECKING:  # at run time they would bring NumPy into every `--help`
    from vit_deploy.api.results import VerifyOutcome
    from vit_deploy.cli.output import Cell, Output
    from vit_deploy.core.documents import Record
    from vit_deploy.verification.locate.divergence import Located
    from vit_deploy.verification.proving import Proven
    from vit_deploy.verification.verifying import Verification

SPARE = ("figure", "max abs", "runtime", "tolerance", "checks", "top-1", "cosine")  # the most important first
MORE_COLUMNS = ("cosine", "top-1", "checks", "verdict")
LOCATED_COLUMNS = ranked(
    ("tap", "error", "noise floor", "tolerance", "error/floor", "growth", ""),
    ("error", "error/floor", "tolerance", "growth", "noise floor"),
)


@command
def verify(
    artifacts: Artifacts,
    github: Annotated[bool, Option(help="Annotate in GitHub Actions, and write the summary of the job.")] = False,
    force: Force = False,
    *,
    proof: ProofOptions,
    reference: ReferenceOptions,
    limits: ToleranceOptions,
    reports: ReportFiles,
    reading: CheckpointOptions,
    hosts: HostOptions,
    printing: OutputOptions,
) -> int:
    """Run artifacts on their golden images, and in other ways, and compare with the float64 reference.

    Limits in place of the defaults are read from [tool.vit-deploy.verify] of the nearest pyproject.toml as well.
    """
    from vit_deploy.api import proof as api
    from vit_deploy.cli.output import Output

    out = Output("verify", printing)
    with out.watching(hosts.elsewhere) as (progress, watch):
        found = api.verify(
            artifacts,
            **vars(proof),
            **vars(reference),
            **vars(limits),
            **vars(reports),
            **vars(hosts),
            reading=reading,
            force=force,
            progress=progress,
            note=out.note,
            watch=watch,
        )
    out.tell_assumed(found, named=True)
    _tell(out, found)
    if github:
        _annotate(found.reported)
    return out.show(found, columns=_columns(found), rows=_rows(found), skipped=False)


def _tell(out: Output, found: VerifyOutcome) -> None:
    """What the table has no room for: all figures that are held, what is wrong, and where."""
    for error in found.unanswered.values():
        out.finding(str(error))
    for result, record in zip(found, found.records, strict=True):
        if result.on is None:
            _note(out, result)
        for reason in () if result.ok or result.on is None else record["failures"]:
            out.finding(f"{result.on}: {record['artifact']}: {reason}")
    for gap in found.failed:
        out.finding(f"{gap.name} was not proven: {gap.error}")
    for proven in found.proven:
        _locate(out, proven)


def _note(out: Output, result: Verification) -> None:
    from vit_deploy.core import saturation
    from vit_deploy.core.narrow_floats import NARROW
    from vit_deploy.verification import arm_half, narrow_reference
    from vit_deploy.verification.records import held
    from vit_deploy.verification.verifying import SIMULATED

    path, figures = result.artifact.model_path, held(result.parity)
    if figures and len(result.parity.tolerance.held()) > 1:
        out.note(f"{path}: {figures}")
    for check in result.checks:
        if check.ok and check.words and check.name.startswith(("batch ", arm_half.NAME)):
            out.note(f"{path}: {check.name}: {check.words}")
    for reason in result.failures:
        out.finding(f"{path}: {reason}")
    if result.runtime == SIMULATED and result.failures:
        fixes = {arm_half.NAME: arm_half.FIX, **dict.fromkeys(NARROW, narrow_reference.FIX)}
        out.finding(f"{path}: {fixes.get(result.provider, saturation.FIX)}")


def _locate(out: Output, proven: Proven) -> None:
    """Where an artifact that failed leaves the reference, activation by activation."""
    finding, path = proven.finding, proven.subject.artifact.model_path
    if finding is None:
        return
    if finding.own_golden:
        out.note(f"{path}: an artifact has no activations to compare with, so its own are taken")
    if finding.located is None:
        out.finding(f"{path} cannot be looked into: {finding.error}")
        return
    located = finding.located
    if located.activation is not None:
        out.finding(f"{path}: leaves the reference at {located.activation}, by {located.operator}")
    for note in located.notes:
        out.note(f"{path}: {note}")
    if not out.as_json:
        out.table(
            f"{path}, tap by tap",
            LOCATED_COLUMNS,
            [_located_row(located, index) for index in range(len(located.activations))],
        )


def _located_row(located: Located, index: int) -> tuple[Cell, ...]:
    activation, growth = located.activations[index], located.growth()[index]
    times = activation.times_floor
    return (
        activation.name,
        "-" if activation.error is None else f"{activation.error:.1e}",
        f"{activation.noise_floor:.1e}",
        f"{activation.tolerance:.1e}",
        "-" if times is None else f"{times:.1f}",
        "-" if growth is None else f"{growth:.1f}",
        "unknown"
        if activation.error is None
        else ""
        if activation.ok
        else "HERE"
        if activation.name == located.activation
        else "different",
    )


def _annotate(results: Sequence[Record]) -> None:
    """Annotations on stderr, and the summary of the job where GitHub Actions names a file for it."""
    from vit_deploy.verification.reports.github import JOB_SUMMARY, annotated, append_summary

    for line in annotated(results):
        print(line, file=sys.stderr)
    if summary := os.environ.get(JOB_SUMMARY):
        append_summary(results, Path(summary))


def _columns(found: VerifyOutcome) -> tuple[Column, ...]:
    from vit_deploy.verification.records import figure_heading

    if _is_elsewhere(found):
        return ranked(("machine", paths("model"), prose("runtime"), "figure", "tolerance", *MORE_COLUMNS), SPARE)
    figure = figure_heading([result.parity for result in found])
    return ranked((paths("model"), prose("runtime"), figure, "tolerance", *MORE_COLUMNS), SPARE)


def _rows(found: VerifyOutcome) -> list[tuple[str, ...]]:
    absent = ["-"] * len(MORE_COLUMNS)
    rows = [_row(result) for result in found]
    rows += [(gap.name, *["-"] * (1 + len(absent)), "-", "NOT RUN") for gap in found.failed]
    return rows + [(host, "no answer", "-", "-", "-", *absent) for host in found.unanswered]


def _is_elsewhere(found: VerifyOutcome) -> bool:
    return bool(found.unanswered) or any(result.on is not None for result in found)


def _row(result: Verification) -> tuple[str, ...]:
    from vit_deploy.verification.records import figure_and_limit, shown

    asked = [*(check.ok for check in result.checks), *(one.parity.ok for one in result.sizes)]
    named = (str(result.artifact.model_path),) if result.on is None else (result.on, str(result.artifact.path))
    return (
        *named,
        f"{result.runtime} ({result.provider})",
        *figure_and_limit(result.parity),
        shown("cosine", result.parity.cosine),
        shown("top1_agreement", result.parity.top1_agreement),
        f"{sum(asked)} of {len(asked)}",
        result.verdict if result.ok else result.verdict.upper(),
    )
