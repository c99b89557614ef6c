"""The engine that runs an artifact, and options that say something of how it does."""

from __future__ import annotations

from collections.abc import Sequence

from vit_deploy.core.artifact import Artifact
from vit_deploy.errors import ConfigError, Failed, MissingEngineError
from vit_deploy.runtimes import GPU_PROVIDERS, RUNTIMES, RUNTIMES_OF_FORMAT, RuntimeOptions, installed_takers


def runtime_for(artifact: Artifact, runtime: str | None, options: RuntimeOptions) -> str:
    """The name of the engine that is going to run an artifact.

    Args:
        artifact: the artifact to run.
        runtime: that was asked for; None takes the first installed one that can be asked for the provider.
        options: the options, with the provider.

    Raises:
        ConfigError: the runtime is unknown or does not take the format.
        MissingEngineError: it is not installed.
    """
    takers = RUNTIMES_OF_FORMAT[artifact.format]
    name = runtime or installed_takers(artifact.format, options.provider)[0]
    RUNTIMES.check(name)
    if name not in takers:
        raise ConfigError(f"{name} does not run {artifact.model_path}", fix=f"{', '.join(takers)} does")
    return name


def with_engines(
    artifacts: Sequence[Artifact], runtime: str | None, options: RuntimeOptions
) -> tuple[list[Artifact], list[Failed]]:
    """Those whose engine is installed, and those that come to nothing without theirs.

    Args:
        artifacts: the artifacts to run.
        runtime: that was asked for.
        options: the options, with the provider.

    Raises:
        ConfigError: the runtime is unknown or does not take a format.
        MissingEngineError: nothing can be run; the error of the first.
    """
    there: list[Artifact] = []
    failed: list[Failed] = []
    for artifact in artifacts:
        try:
            runtime_for(artifact, runtime, options)
        except MissingEngineError as error:
            failed.append(Failed(str(artifact.path), artifact.format, artifact.precision, error))
        else:
            there.append(artifact)
    if failed and not there:
        raise failed[0].error
    return there, failed


def refuse_idle_options(artifact: Artifact, options: RuntimeOptions, provider: str) -> None:
    """Refuse options of a GPU where none executes the graph: nobody would notice that they say nothing.

    Args:
        artifact: that is run.
        options: that it was opened with.
        provider: that executes it.

    Raises:
        ConfigError: such options.
    """
    if provider in GPU_PROVIDERS:
        return
    asked = [f"--device {options.device}"] if options.device else []
    asked += ["--cuda-graph"] if options.cuda_graph else []
    if asked:
        is_are = "are" if len(asked) > 1 else "is"
        raise ConfigError(
            f"{' and '.join(asked)} {is_are} for GPUs, and {artifact.path} runs on {provider}",
            fix="add --provider cuda",
        )
