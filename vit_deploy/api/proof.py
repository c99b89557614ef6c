"""Whether artifacts compute the function of their checkpoint, and in what two models differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_deploy.api.given import (
    ArtifactLike,
    Artifacts,
    PathLike,
    Tell,
    artifact_path,
    artifact_paths,
    as_text,
    as_tuple,
    path,
    silent,
)
from vit_deploy.api.results import CompareOutcome, VerifyOutcome
from vit_deploy.checkpoints.hub.progress import telling
from vit_deploy.checkpoints.stated import stated_fields
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.narrow_floats import NARROW
from vit_deploy.core.options import CheckpointOptions
from vit_deploy.core.options.commands import ProofOptions
from vit_deploy.core.provenance import Step
from vit_deploy.errors import UsageError
from vit_deploy.formats.bare import Stated
from vit_deploy.remote.hosts import Watch, ask_hosts
from vit_deploy.remote.options import HostOptions
from vit_deploy.verification import checks, verifying
from vit_deploy.verification.compare import compare_models
from vit_deploy.verification.expected import Reference, image_files
from vit_deploy.verification.locate.failure import look_into
from vit_deploy.verification.narrow_reference import NarrowReference
from vit_deploy.verification.options import MAX_IMAGES, ReferenceOptions, ReportFiles
from vit_deploy.verification.proving import Subject, open_subjects, prove_each
from vit_deploy.verification.recorded import verification_in
from vit_deploy.verification.reports.files import check_reports, write_reports
from vit_deploy.verification.tolerances import Limits
from vit_deploy.verification.user_limits import limits_in, parse_limits, read_limits


def verify(
    artifacts: Artifacts,
    *,
    against: PathLike | None = None,
    images: PathLike | None = None,
    max_images: int = MAX_IMAGES,
    layout: str | None = None,
    values: str | None = None,
    output: str | None = None,
    runtime: str | None = None,
    provider: str | None = None,
    device: int = 0,
    cuda_graph: bool = False,
    runtime_files: PathLike | None = None,
    browser: str | None = None,
    signature: str | None = None,
    tolerance: Mapping[str, float | None] | Sequence[str] = (),
    allow_tf32: bool = False,
    threads: int | Sequence[int] = (),
    quick: bool = False,
    simulate: str | None = None,
    locate: bool = False,
    junit: PathLike | None = None,
    markdown: PathLike | None = None,
    force: bool = False,
    reading: CheckpointOptions = CheckpointOptions(),
    on: str | Sequence[str] = (),
    hosts: PathLike | None = None,
    group: str | Sequence[str] = (),
    remote_python: str = HostOptions.remote_python,
    ssh_config: PathLike | None = None,
    timeout: float = HostOptions.timeout,
    progress: Tell = silent,
    note: Tell = silent,
    watch: Watch | None = None,
) -> VerifyOutcome:
    """Run artifacts on their golden images, and in other ways, and compare with the float64 reference.

    Limits in place of the defaults are read from [tool.vit-deploy.verify] of the nearest pyproject.toml as well.

    Args:
        artifacts: an artifact, a `.keras` file or a bare model file, or several; a folder of artifacts stands for those
            inside it.
        against: a checkpoint or an artifact to compare with; None takes the recorded outputs.
        images: a folder of image files to compare on; needs `against`. None takes the golden images.
        max_images: how many of these files, by name.
        layout: layout of the input of a bare file, "nhwc" or "nchw"; None reads it from the shape.
        values: "normalized" or "pixels", which the input of a bare file takes; None reads it from the type.
        output: name of the output of a bare file that counts; None takes its only one.
        runtime: engine; None takes the first installed one of the format.
        provider: what executes the graph; None takes the engine's usual one.
        device: which GPU of those that are visible, from 0.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.
        runtime_files: the folder `node_modules` with the JavaScript of engines in browsers; None for the environment's.
        browser: the program of a browser, where one runs it; None takes the first that is installed.
        signature: the only one to prove of a file with several; None for all.
        tolerance: limits by metric, None for one not to be held, or texts as "max_abs=1e-4".
        allow_tf32: whether a GPU may round fp32 products to 11 bits; has its own tolerance.
        threads: numbers of threads to run with too.
        quick: whether only the golden images are run: no other batches, inputs and repeated runs.
        simulate: a processor that is not here: "no-vnni", on which ONNX Runtime's 8-bit products may saturate, or
            "arm-fp16", which keeps the sums of fp16 in half.
        locate: whether the activation and the operator are looked for where a failing artifact goes wrong.
        junit: file for a JUnit report, which replaces an earlier one.
        markdown: file for a summary for a pull request, likewise.
        force: whether other files are replaced too.
        reading: what a checkpoint file does not say, or how it is to be read otherwise; needs `against`.
        on: other machines to run on instead, as "ssh://user@host".
        hosts: file that names machines, with groups and options of each.
        group: of the machines in that file, those that are in one of these; none for all.
        remote_python: command of the Python there.
        ssh_config: config file of ssh, instead of the user's.
        timeout: seconds for each machine, sending included.
        progress: called with what is being done.
        note: called with what has to be known meanwhile: what was assumed of a bare file, and what could not be taken
            away from another machine.
        watch: called with the name of another machine and what it does; None tells `progress` of all.

    Returns:
        A verification for each artifact, and on each machine; `ok` if all of them passed.

    Raises:
        UsageError: arguments that exclude or need each other.
        ConfigError: a runtime that does not take the format, or limits that are none.
        ArtifactError, CheckpointError, DataError: what cannot be read.
        MissingEngineError, EngineError: not one artifact could be run.
        RemoteError: no machine answered.
        OutputError: a report that cannot be written.
    """
    proof = ProofOptions(
        runtime, provider, device, cuda_graph, as_tuple(threads), quick, as_text(runtime_files), browser, signature
    )
    reference = ReferenceOptions(path(against), path(images), max_images, layout, values, output, simulate, locate)
    machines = HostOptions(as_tuple(on), remote_python, path(ssh_config), timeout, path(hosts), as_tuple(group))
    reports = ReportFiles(path(junit), path(markdown))
    stated = stated_fields(reading)
    _check(proof, reference, machines, stated)
    limits = _limits(tolerance, allow_tf32=allow_tf32)
    check_reports(reports.junit, reports.markdown, force=force)
    found = artifact_paths(artifacts)
    if machines.elsewhere:
        outcome = _verify_elsewhere(found, proof, limits, machines, progress, note, watch)
    else:
        with telling(progress):
            outcome = _verify_here(found, proof, reference, limits, stated, progress, note)
    write_reports(outcome.reported, reports.junit, reports.markdown, force=force)
    return outcome


def _check(proof: ProofOptions, reference: ReferenceOptions, hosts: HostOptions, stated: Mapping[str, Any]) -> None:
    """Refuse options that exclude or need each other.

    Raises:
        UsageError: such options; all of one kind are named.
    """
    if reference.images is not None and reference.against is None:
        raise UsageError("--images needs --against: the recorded answers are to the golden images")
    own: dict[str, object] = {"--runtime": proof.runtime, "--provider": proof.provider, "--device": proof.device}
    own |= {"--cuda-graph": proof.cuda_graph, "--threads": proof.threads}
    own |= {"--runtime-files": proof.runtime_files, "--browser": proof.browser}
    own |= {"--on": hosts.elsewhere, "--locate": reference.locate}
    given = [name for name, value in own.items() if value]
    if reference.simulate is not None and given:
        raise UsageError(f"{', '.join(given)} and --simulate: what is simulated runs here, in NumPy")
    if reference.simulate in NARROW and reference.against is None:
        raise UsageError(f"--simulate {reference.simulate} computes the reference itself: add --against CHECKPOINT")
    if stated and reference.against is None:
        raise UsageError(f"{', '.join(stated)} can be stated of a checkpoint alone: add --against")
    here: dict[str, object] = {"--against": reference.against, "--images": reference.images}
    here |= {"--locate": reference.locate} | dict.fromkeys(_reading(reference).options, True)
    given = [name for name, value in here.items() if value]
    if hosts.elsewhere and given:
        raise UsageError(f"{', '.join(given)} and --on: another machine has the recorded answers alone")


def _reading(reference: ReferenceOptions) -> Stated:
    return Stated(reference.layout, reference.values, reference.output)


def _limits(tolerance: Mapping[str, float | None] | Sequence[str], *, allow_tf32: bool) -> Limits:
    limits = read_limits(Path.cwd())
    asked = limits_in(tolerance) if isinstance(tolerance, Mapping) else parse_limits(as_tuple(tolerance))
    return dataclasses.replace(limits, asked=asked, allow_tf32=allow_tf32 or limits.allow_tf32)


def _narrow(origin: Reference | None, artifact: Artifact, kind: str | None) -> NarrowReference | None:
    """The reference in 16 bits, where that is to be simulated."""
    if kind is None or kind not in NARROW or origin is None:
        return None
    return NarrowReference(origin.checkpoint_for(artifact), kind)


def _verify_here(
    paths: Sequence[Path],
    proof: ProofOptions,
    reference: ReferenceOptions,
    limits: Limits,
    stated: Mapping[str, Any],
    progress: Tell,
    note: Tell,
) -> VerifyOutcome:
    origin = None
    if reference.against is not None:
        files = image_files(reference.images, reference.max_images) if reference.images is not None else ()
        origin = Reference(reference.against, files, stated)
    progress("reading the artifacts")
    subjects = open_subjects(paths, origin, _reading(reference), proof.signature)
    for subject in subjects:
        for assumption in subject.assumed:
            note(f"{subject.artifact.path}: {assumption.field} is {assumption.value}: {assumption.why}")
    check_functions = checks.checks_for(proof, simulated=reference.simulate is not None)
    proven, failed = prove_each(
        subjects,
        origin,
        lambda artifact, golden, precision: verifying.verify(
            artifact,
            runtime=proof.runtime,
            provider=proof.provider,
            golden=golden,
            limits=limits,
            precision=precision,
            checks=check_functions,
            device=proof.device,
            cuda_graph=proof.cuda_graph,
            runtime_files=proof.runtime_files,
            browser=proof.browser,
            simulate=None if reference.simulate in NARROW else reference.simulate,
            narrow=_narrow(origin, artifact, reference.simulate),
        ),
        progress,
    )
    if reference.locate:
        proven = [
            dataclasses.replace(done, sought=True, finding=look_into(done.result, done.goldens, proof.provider))
            for done in proven
        ]
    return VerifyOutcome(
        results=tuple(done.result for done in proven),
        records=tuple(done.record for done in proven),
        ok=all(done.result.ok for done in proven) and not failed,
        failed=tuple(failed),
        origins=_origins(subjects, origin),
        proven=tuple(proven),
    )


def _origins(subjects: Sequence[Subject], reference: Reference | None) -> dict[Path, tuple[Step, ...]] | None:
    found = {
        subject.artifact.path: subject.artifact.provenance for subject in subjects if subject.artifact.is_checkpoint
    }
    if reference is not None and reference.origin is not None:
        found[reference.path] = reference.origin
    return found or None


def _verify_elsewhere(
    paths: Sequence[Path],
    proof: ProofOptions,
    limits: Limits,
    hosts: HostOptions,
    progress: Tell,
    note: Tell,
    watch: Watch | None,
) -> VerifyOutcome:
    answers = ask_hosts(
        paths,
        "verify",
        proof,
        hosts,
        more={"limits": limits.to_dict()},
        runtimes=as_tuple(proof.runtime),
        providers=as_tuple(proof.provider),
        progress=progress,
        note=note,
        watch=watch,
    )
    sent = {
        str(artifact.directory): artifact
        for artifact in (read_artifact(folder, check_digests=False) for folder in paths)
    }
    records = [record for answer in answers for record in answer.records]
    return VerifyOutcome(
        results=tuple(verification_in(record, sent[record["artifact"]]) for record in records),
        records=tuple(records),
        ok=all(answer.ok for answer in answers),
        skipped=tuple(answer.gap for answer in answers if answer.error is not None),
        unanswered={answer.host: answer.error for answer in answers if answer.error is not None},
        hosts=tuple(answer.to_dict() for answer in answers) if hosts.hosts is not None else (),
    )


def compare(
    a: ArtifactLike, b: ArtifactLike, *, reading: CheckpointOptions = CheckpointOptions(), progress: Tell = silent
) -> CompareOutcome:
    """Compare config, preprocessing, operators, weights by name and outputs of two artifacts or checkpoints.

    Args:
        a: an artifact or a checkpoint.
        b: another one.
        reading: what checkpoint files do not say, or how they are to be read otherwise.
        progress: called with what is being done.

    Returns:
        One comparison; `ok` if nothing differs.

    Raises:
        ArtifactError, CheckpointError: one of them is missing or damaged, or a model file without its artifact.
        MissingEngineError, EngineError: an engine that runs one of them is not installed or refuses it.
    """
    one, other = artifact_path(a), artifact_path(b)
    progress(f"comparing {one} and {other}")
    with telling(progress):
        found = compare_models(one, other, stated_fields(reading))
    record = {"a": str(one), "b": str(other), **found.to_dict()}
    return CompareOutcome((found,), (record,), ok=found.same, origins=found.origins or None)
