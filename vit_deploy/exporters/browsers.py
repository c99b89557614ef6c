"""What is refused of files that are made for browsers, and what whoever exports them is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format import Target
from vit_deploy.runtimes.web.engines import WASM, refuse_impossible


def refuse_unfit(artifact: Artifact) -> None:
    """Refuse a file for browsers that none can run; files for anything else are passed.

    Raises:
        EngineError: with the reason.
    """
    if artifact.options.get("for") == Target.WEB:
        refuse_impossible(artifact, WASM)


def told(folder: Path, artifacts: Sequence[Artifact]) -> tuple[str, ...]:
    """How files for browsers are proven in one; nothing where there are none."""
    if not any(artifact.options.get("for") == Target.WEB for artifact in artifacts):
        return ()
    return (f"to prove what is for browsers in one: vit-deploy verify {folder} --runtime web",)
