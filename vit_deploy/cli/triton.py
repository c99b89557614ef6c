"""Options of `export` that fill a model repository of NVIDIA Triton, and what they do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # at run time they would bring NumPy into every `--help`
    from vit_deploy.exporters.plan import Job
    from vit_deploy.exporters.publish import Exported

Triton = Annotated[
    Path | None,
    typer.Option(
        "--triton",
        metavar="REPOSITORY",
        help="Put the models into a repository of NVIDIA Triton too.",
        show_default=False,
    ),
]
TritonProvider = Annotated[
    str | None,
    typer.Option(
        "--triton-provider",
        metavar="cpu|cuda|tensorrt",
        help="What executes them there.",
        show_default="as --for; else cuda, cpu for int8",
    ),
]


def check_options(triton: Path | None, provider: str | None, jobs: Sequence[Job], *, plans: str | None = None) -> None:
    """Refuse, before any work, what Triton cannot serve.

    Args:
        triton: the repository; None without one.
        provider: that is going to execute what is in it.
        jobs: artifacts to be.
        plans: what builds the plans among them, "full" or "rtx"; None where that is not said.

    Raises:
        typer.BadParameter: a provider without a repository.
        ConfigError: as `exporters.triton.check`.
    """
    from vit_deploy.exporters import Target
    from vit_deploy.exporters.tensorrt.triton import check

    if triton is not None:
        if plans == "rtx":
            raise typer.BadParameter("--tensorrt rtx and --triton: Triton loads plans of TensorRT alone; take full")
        made_for = next((job.options.target for job in jobs if job.format == "onnx"), Target.CPU)
        check([(job.format, job.precision) for job in jobs], provider, made_for)
    elif provider is not None:
        raise typer.BadParameter("--triton-provider says what executes models in a repository: add --triton")


def places(triton: Path | None, name: str, jobs: Sequence[Job], *, force: bool) -> dict[str, Path]:
    """Where the model of each artifact goes, by the artifact's name; empty without a repository.

    Raises:
        OutputError: something is there, and `force` is not set.
    """
    from vit_deploy.core.staging import check_targets
    from vit_deploy.exporters.tensorrt.triton import model_names

    if triton is None:
        return {}
    names = model_names(name, [(job.format, job.precision) for job in jobs])
    found = {job.name: triton / each for job, each in zip(jobs, names, strict=True)}
    check_targets(found.values(), force=force)
    return found


def serve(
    results: Sequence[Exported], targets: dict[str, Path], provider: str | None, *, force: bool
) -> dict[str, Path]:
    """Write what passed its proof into the repository; gives where each artifact's model is, by its name."""
    from vit_deploy.exporters.publish import telling_what_is_there
    from vit_deploy.exporters.tensorrt.triton import write_model

    proven = [each.artifact for each in results if each.artifact.name in targets and each.published and each.parity.ok]
    with telling_what_is_there(results):
        for artifact in proven:
            write_model(artifact, targets[artifact.name], provider, force=force)
    return {artifact.name: targets[artifact.name] for artifact in proven}
