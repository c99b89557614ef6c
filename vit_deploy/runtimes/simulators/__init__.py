"""Processors that are not here, by name, as the runtimes that compute as they would."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format import Format
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.errors import ConfigError

NO_VNNI, ARM_FP16 = "no-vnni", "arm-fp16"

SIMULATORS = Registry(
    "processor to simulate",
    {
        NO_VNNI: Plugin("vit_deploy.runtimes.simulators.onnx_no_vnni:OnnxWithoutVnni", extra="cpu", needs=("onnx",)),
        ARM_FP16: Plugin("vit_deploy.runtimes.simulators.onnx_arm_fp16:OnnxOnArmInHalf", extra="cpu", needs=("onnx",)),
    },
)
# The precisions of a format that a processor computes otherwise than others do, and what it does.
CHANGED: Mapping[str, tuple[Callable[[Format], tuple[str, ...]], str]] = {
    NO_VNNI: (lambda format: format.saturating, "whose kernels do not saturate on any processor"),
    ARM_FP16: (lambda format: format.half_sums, "whose kernels keep no sums in half precision on any processor"),
}


def refuse_unchanged(artifact: Artifact, processor: str) -> None:
    """Raise `ConfigError` if an artifact answers on a processor as it does elsewhere: nothing is to be simulated.

    Args:
        artifact: the artifact.
        processor: a name of `SIMULATORS`.
    """
    precisions, reason = CHANGED[processor]
    if artifact.format not in FORMATS or artifact.precision not in precisions(FORMATS[artifact.format]):
        changed = (
            f"{format.name} in {' or '.join(found)}" for format in FORMATS.values() if (found := precisions(format))
        )
        raise ConfigError(
            f"{artifact.model_path} is {artifact.format} {artifact.precision}, {reason}, so there is nothing of "
            f"{processor} to simulate",
            fix=f"simulate {' or '.join(changed)}, and verify the others as they are",
        )
