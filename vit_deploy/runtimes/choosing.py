"""Artifacts whose engine is installed, apart from those whose engine is not."""

from __future__ import annotations

from collections.abc import Sequence

from vit_deploy.core.artifact import Artifact
from vit_deploy.errors import Failed, MissingEngineError
from vit_deploy.runtimes import RuntimeOptions, runtime_for


def with_engines(
    artifacts: Sequence[Artifact], runtime: str | None, options: RuntimeOptions
) -> tuple[list[Artifact], list[Failed]]:
    """Those whose engine is installed, and those that come to nothing without theirs.

    Args:
        artifacts: the artifacts to run.
        runtime: the requested one.
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
