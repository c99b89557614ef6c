"""Artifacts of an export as models in a repository of NVIDIA Triton."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vit_deploy.core.format import Target
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.options.tensorrt import RTX, PlanOptions
from vit_deploy.core.staging import check_targets
from vit_deploy.errors import UsageError
from vit_deploy.exporters.plan import Job
from vit_deploy.exporters.publish import Exported, telling_what_is_there
from vit_deploy.exporters.tensorrt.triton import check, model_names, write_model


def check_repository(repository: Path | None, provider: str | None, jobs: Sequence[Job], plans: PlanOptions) -> None:
    """Refuse, before any work, what Triton cannot serve.

    Args:
        repository: where the models go; None without one.
        provider: what is going to execute the models in it.
        jobs: artifacts to be.
        plans: how the plans among them are built.

    Raises:
        UsageError: a provider without a repository, or plans that Triton does not load.
        ConfigError: as `triton.check`.
    """
    if repository is not None:
        if plans.flavour == RTX:
            raise UsageError("--tensorrt rtx and --triton: Triton loads plans of TensorRT alone; take full")
        chosen = (job.options.target for job in jobs if FORMATS[job.format].is_made_for_targets)
        made_for = next((target for target in chosen if target is not Target.CPU), Target.CPU)
        check([(job.format, job.precision) for job in jobs], provider, made_for)
    elif provider is not None:
        raise UsageError("--triton-provider says what executes models in a repository: add --triton")


def places(repository: Path | None, name: str, jobs: Sequence[Job], *, force: bool) -> dict[str, Path]:
    """Where the model of each artifact goes, by the artifact's name; empty without a repository.

    Raises:
        OutputError: something is there, and `force` is not set.
    """
    if repository is None:
        return {}
    names = model_names(name, [(job.format, job.precision) for job in jobs])
    found = {job.name: repository / name for job, name in zip(jobs, names, strict=True)}
    check_targets(found.values(), force=force)
    return found


def serve(
    results: Sequence[Exported], targets: Mapping[str, Path], provider: str | None, *, force: bool
) -> dict[str, Path]:
    """Write what passed its proof into the repository; gives where each artifact's model is, by its name."""
    proven = [
        result.artifact
        for result in results
        if result.artifact.name in targets and result.published and result.parity.ok
    ]
    with telling_what_is_there(results):
        for artifact in proven:
            write_model(artifact, targets[artifact.name], provider, force=force)
    return {artifact.name: targets[artifact.name] for artifact in proven}
