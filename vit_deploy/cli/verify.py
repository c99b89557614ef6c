"""`vit-deploy verify`: parity of artifacts with their checkpoint."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vit_deploy.cli.on_hosts import Answer, On, RemotePython, SshConfig, Timeout, ask_hosts, gaps
from vit_deploy.cli.options import Artifacts, Force, OutputOptions, Runtime, parse_counts, split_at_commas
from vit_deploy.cli.signature import Without, command
from vit_deploy.core.options import CheckpointOptions, RuntimeOptions
from vit_deploy.core.options.running import MOST_THREADS

if TYPE_CHECKING:  # at run time it would bring NumPy into every `--help`
    from vit_deploy.cli.output import Output
    from vit_deploy.core.artifact import Artifact
    from vit_deploy.core.documents import Record
    from vit_deploy.verification.expected import Reference
    from vit_deploy.verification.parity import Verification

MAX_IMAGES = 64
JOB_SUMMARY = "GITHUB_STEP_SUMMARY"  # the file that GitHub Actions shows with the job


@command
def verify(
    artifacts: Artifacts,
    against: Annotated[
        Path | None,
        typer.Option(metavar="CHECKPOINT|ARTIFACT", help="What to compare with.", show_default="the recorded answers"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Image files to compare on; needs --against.", show_default="golden images"),
    ] = None,
    max_images: Annotated[int, typer.Option(min=1, help="How many of them, by name.")] = MAX_IMAGES,
    layout: Annotated[
        str | None,
        typer.Option(metavar="nhwc|nchw", help="Of the input of a bare file.", show_default="by its shape"),
    ] = None,
    values: Annotated[
        str | None,
        typer.Option(
            metavar="normalized|pixels", help="What the input of a bare file takes.", show_default="by its type"
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which output of a bare file counts.", show_default="its only one"),
    ] = None,
    runtime: Runtime = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=LIMIT",
            help="Instead of the default, as max_abs=1e-4 or snr_db=25; repeat, or join by commas.",
            callback=split_at_commas,
            show_default=False,
        ),
    ] = None,
    allow_tf32: Annotated[
        bool, typer.Option("--allow-tf32", help="Let a GPU round fp32 products to 11 bits; has its own tolerance.")
    ] = False,
    threads: Annotated[
        str | None, typer.Option(metavar="N,…", help="Run with these numbers of threads too.", show_default="none")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Golden images alone: no other batches, inputs and repeated runs.")
    ] = False,
    simulate: Annotated[
        str | None,
        typer.Option(
            metavar="no-vnni",
            help="Compute int8 ONNX files as a processor that is not here: x86 without VNNI.",
            show_default=False,
        ),
    ] = None,
    locate: Annotated[
        bool, typer.Option("--locate", help="Name the tap and the operator where a failing artifact goes wrong.")
    ] = False,
    junit: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a JUnit report; replaces an earlier one.", show_default=False),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a summary for a pull request, likewise.", show_default=False),
    ] = None,
    github: Annotated[
        bool, typer.Option("--github", help="Annotate in GitHub Actions, and write the summary of the job.")
    ] = False,
    *,
    running: Annotated[RuntimeOptions, Without("threads")],
    reading: CheckpointOptions,
    on: On = None,
    remote_python: RemotePython = "python3",
    ssh_config: SshConfig = None,
    timeout: Timeout = 600.0,
    force: Force = False,
    printing: OutputOptions,
) -> int:
    """Run artifacts on their golden images, and in other ways, and compare with the float64 reference.

    Limits in place of the defaults are read from [tool.vit-deploy.verify] of the nearest pyproject.toml as well.
    """
    import dataclasses

    from vit_deploy.checkpoints.stated import stated_fields
    from vit_deploy.cli.locating import locate_failure
    from vit_deploy.cli.output import Output
    from vit_deploy.cli.verifying import open_subjects, prove_each
    from vit_deploy.core.artifact_folders import each_bundle
    from vit_deploy.formats.bare import Stated
    from vit_deploy.verification import checks
    from vit_deploy.verification.expected import Reference, image_files
    from vit_deploy.verification.parity import verify as run
    from vit_deploy.verification.records import judged_column, unanswered
    from vit_deploy.verification.user_limits import parse_limits, read_limits

    if images is not None and against is None:
        raise typer.BadParameter("--images needs --against: the recorded answers are to the golden images")
    bare = Stated(layout, values, output)
    elsewhere = {
        "--runtime": runtime,
        "--provider": running.provider,
        "--device": running.device,
        "--cuda-graph": running.cuda_graph,
    }
    _check_simulate(simulate, {**elsewhere, "--threads": threads, "--on": on, "--locate": locate})
    stated = _checked_stated(stated_fields(reading), against)
    counts = parse_counts(threads, "--threads", MOST_THREADS) if threads is not None else []
    limits = read_limits(Path.cwd())
    limits = dataclasses.replace(
        limits, asked=parse_limits(tolerance or ()), allow_tf32=allow_tf32 or limits.allow_tf32
    )
    _check_reports(junit, markdown, force=force)
    usual = () if quick or simulate is not None else checks.ALWAYS
    questions = (*usual, checks.threads(counts)) if counts else usual
    out, artifacts = Output("verify", printing), each_bundle(artifacts)
    if on:
        here: dict[str, object] = {"--against": against, "--images": images, "--locate": locate}
        here |= dict.fromkeys(bare.options, True)
        if given := [name for name, value in here.items() if value]:
            raise typer.BadParameter(f"{', '.join(given)} and --on: another machine has the recorded answers alone")
        words = [
            *(["--runtime", runtime] if runtime else []),
            *(["--provider", running.provider] if running.provider else []),
            *(["--quick"] if quick else []),
            *(["--threads", ",".join(map(str, counts))] if counts else []),
            *(["--device", str(running.device)] if running.device else []),
            *(["--cuda-graph"] if running.cuda_graph else []),
            *("--limits", limits.to_json()),
        ]
        answers = ask_hosts(
            out,
            artifacts,
            ["verify", *words],
            on=on,
            python=remote_python,
            config=ssh_config,
            timeout_s=timeout,
        )
        return _finish_remote(out, answers, junit, markdown, github=github, force=force)
    reference = None
    if against is not None:
        reference = Reference(against, image_files(images, max_images) if images is not None else (), stated)
    with out.progress() as progress:
        progress("reading the bundles")
        subjects = open_subjects(artifacts, reference, bare)
        for each in subjects:
            for assumption in each.assumed:
                out.note(f"{each.artifact.path}: {assumption.field} is {assumption.value}: {assumption.why}")
        proven, failed = prove_each(
            subjects,
            reference,
            lambda artifact, golden, precision: run(
                artifact,
                runtime=runtime,
                provider=running.provider,
                golden=golden,
                limits=limits,
                precision=precision,
                questions=questions,
                device=running.device,
                cuda_graph=running.cuda_graph,
                simulate=simulate,
            ),
            progress,
        )
    _tell_assumed(out, [each.artifact for each in subjects], reference)
    results = [each.result for each in proven]
    for result in results:
        _note(out, result)
    for gap in failed:
        out.finding(f"{gap.name} was not proven: {gap.error}")
    records = [each.record for each in proven]
    if locate:
        for record, done in zip(records, proven, strict=True):
            record["located"] = locate_failure(out, done.result, done.goldens)
    told = [*records, *(unanswered(gap.name, gap.error.message) for gap in failed)]
    _write_reports(told, junit, markdown, github=github, force=force)
    return out.finish(
        records,
        ok=all(result.ok for result in results),
        failed=failed,
        columns=(
            "model",
            "runtime",
            judged_column([each.parity for each in results]),
            "tolerance",
            *MORE_COLUMNS,
        ),
        rows=[*map(_row, results), *((gap.name, *["-"] * (2 + len(MORE_COLUMNS)), "NOT RUN") for gap in failed)],
    )


def _checked_stated(stated: dict[str, Any], against: Path | None) -> dict[str, Any]:
    if stated and against is None:
        raise typer.BadParameter(f"{', '.join(stated)} can be stated of a checkpoint alone: add --against")
    return stated


def _tell_assumed(out: Output, artifacts: Sequence[Artifact], reference: Reference | None) -> None:
    for artifact in artifacts:
        if artifact.is_checkpoint:
            out.assumed(artifact.path, artifact.provenance, named=True)
    if reference is not None and reference.origin is not None:
        out.assumed(reference.path, reference.origin, named=True)


def _check_simulate(simulate: str | None, others: Mapping[str, object]) -> None:
    given = [name for name, value in others.items() if value]
    if simulate is not None and given:
        raise typer.BadParameter(f"{', '.join(given)} and --simulate: what is simulated runs here, in NumPy")


def _check_reports(junit: Path | None, markdown: Path | None, *, force: bool) -> None:
    from vit_deploy.core.staging import check_targets
    from vit_deploy.verification.records import is_of_a_check

    if junit is not None and markdown is not None and junit.resolve() == markdown.resolve():
        raise typer.BadParameter(f"--junit and --markdown both name {junit}")
    check_targets([each for each in (junit, markdown) if each is not None and not is_of_a_check(each)], force=force)


def _note(out: Output, result: Verification) -> None:
    """What the table has no room for: all figures that are held, and what is wrong."""
    from vit_deploy.core import saturation
    from vit_deploy.verification.parity import SIMULATED
    from vit_deploy.verification.records import held

    figures = held(result.parity)
    if figures and len(result.parity.tolerance.held()) > 1:
        out.note(f"{result.artifact.model_path}: {figures}")
    for check in result.checks:
        if check.ok and check.words and check.name.startswith("batch "):
            out.note(f"{result.artifact.model_path}: {check.name}: {check.words}")
    for reason in result.failures:
        out.finding(f"{result.artifact.model_path}: {reason}")
    if result.runtime == SIMULATED and result.failures:
        out.finding(f"{result.artifact.model_path}: {saturation.FIX}")


def _finish_remote(
    out: Output, answers: Sequence[Answer], junit: Path | None, markdown: Path | None, *, github: bool, force: bool
) -> int:
    from vit_deploy.verification.records import unanswered

    records = [record for answer in answers for record in answer.records]
    for record in records:
        for reason in () if record["ok"] else record["failures"]:
            out.finding(f"{record['on']}: {record['artifact']}: {reason}")
    # A report has no column for the machine, and one that gave no answer must not be missed in it.
    told = [{**each, "artifact": f"{each['artifact']} on {each['on']}"} for each in records]
    told += [unanswered(each.host, each.gap) for each in answers if each.error is not None]
    _write_reports(told, junit, markdown, github=github, force=force)
    return out.finish(
        records,
        ok=all(answer.ok for answer in answers),
        skipped=gaps(out, answers),
        columns=("machine", "model", "runtime", "figure", "tolerance", *MORE_COLUMNS),
        rows=[row for answer in answers for row in _rows_of(answer)],
    )


def _rows_of(answer: Answer) -> list[tuple[str, ...]]:
    """What one machine said, in the columns of the table."""
    from vit_deploy.verification.records import shown

    if answer.error is not None:
        return [(*answer.row, *["-"] * (1 + 2 + len(MORE_COLUMNS)))]
    rows: list[tuple[str, ...]] = []
    for record in answer.records:
        metrics, tolerance, checks = record["metrics"], record["tolerance"], record["checks"]
        judged = next(iter(tolerance), "max_abs")
        rows.append(
            (
                answer.host,
                str(record["artifact"]),
                f"{record['runtime']} ({record['provider']})",
                shown(judged, metrics.get(judged)),
                shown(judged, tolerance.get(judged)),
                shown("cosine", metrics["cosine"]),
                shown("top1_agreement", metrics["top1_agreement"]),
                f"{sum(each['ok'] for each in checks)} of {len(checks)}",
                record["verdict"] if record["ok"] else record["verdict"].upper(),
            )
        )
    return rows


MORE_COLUMNS = ("cosine", "top-1", "checks", "verdict")


def _row(result: Verification) -> tuple[str, ...]:
    from vit_deploy.verification.records import judged, shown

    passed = sum(check.ok for check in result.checks)
    return (
        str(result.artifact.model_path),
        f"{result.runtime} ({result.provider})",
        *judged(result.parity),
        shown("cosine", result.parity.cosine),
        shown("top1_agreement", result.parity.top1_agreement),
        f"{passed} of {len(result.checks)}",
        result.verdict if result.ok else result.verdict.upper(),
    )


def _write_reports(
    records: Sequence[Record], junit: Path | None, markdown: Path | None, *, github: bool, force: bool
) -> None:
    from vit_deploy.core.staging import staged_file
    from vit_deploy.errors import OutputError
    from vit_deploy.verification.records import is_of_a_check
    from vit_deploy.verification.reports.github import annotated
    from vit_deploy.verification.reports.junit import junit as as_junit
    from vit_deploy.verification.reports.pull_request import markdown as as_markdown

    for path, render in ((junit, as_junit), (markdown, as_markdown)):
        if path is not None:
            with staged_file(path, force=force or is_of_a_check(path)) as staged:
                staged.write_text(render(records), encoding="utf-8")
    if github:
        for line in annotated(records):
            print(line, file=sys.stderr)
        if summary := os.environ.get(JOB_SUMMARY):
            try:
                with Path(summary).open("a", encoding="utf-8") as file:
                    file.write(as_markdown(records))
            except OSError as error:
                said = f"cannot append to {summary}: {error.strerror}"
                raise OutputError(said, fix=f"let {JOB_SUMMARY} name a file that can be written") from error
