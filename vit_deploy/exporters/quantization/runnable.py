"""A check that the file to be quantized runs at all.

The quantizers' libraries end in whatever their code stumbles over; an engine says in one sentence what is damaged.
"""

from __future__ import annotations

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format_table import FORMATS
from vit_deploy.exporters.quantization import QUANTIZERS
from vit_deploy.runtimes import open_session
from vit_deploy.verification.golden import read_golden


def check_runs(source: Artifact) -> None:
    """Answer one golden image, in the usual engine of a format that can be quantized.

    Raises:
        ArtifactError: the golden data are missing or damaged.
        MissingEngineError, EngineError: the engine is not installed or refuses the file.
    """
    if source.format not in QUANTIZERS:
        return
    with open_session(source, FORMATS[source.format].proving_runtime) as session:
        session.infer(read_golden(source).images[:1])
