"""Processors that are not here, by name, as the runtimes that compute as they would."""

from __future__ import annotations

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.core.saturation import has_products
from vit_deploy.errors import ConfigError

NO_VNNI = "no-vnni"

SIMULATORS = Registry(
    "processor to simulate",
    {NO_VNNI: Plugin("vit_deploy.runtimes.simulators.onnx_no_vnni:OnnxWithoutVnni", extra="cpu", needs=("onnx",))},
)


def refuse_unchanged(artifact: Artifact, processor: str) -> None:
    """Raise `ConfigError` if an artifact answers on a processor as it does elsewhere: nothing is to be simulated.

    Args:
        artifact: the artifact.
        processor: a name of `SIMULATORS`.
    """
    if not has_products(artifact):
        saturating = (
            f"{format.name} in {' or '.join(format.saturating)}" for format in FORMATS.values() if format.saturating
        )
        raise ConfigError(
            f"{artifact.model_path} is {artifact.format} {artifact.precision}, whose kernels do not saturate on any "
            f"processor, so there is nothing of {processor} to simulate",
            fix=f"simulate {' or '.join(saturating)}, and verify the others as they are",
        )
