"""The provider that the proof of an export runs on."""

from __future__ import annotations

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format import Target
from vit_deploy.errors import VitDeployError
from vit_deploy.runtimes import RUNTIMES, RuntimeOptions


def proving_provider(artifact: Artifact) -> str | None:
    """What executes the graph in the proof of an export; None for the engine's usual one.

    A file that is made for GPUs is proven on one where there is one, and where there is none on the CPU, which has all
    its operators as well, but in bfloat16.
    """
    if artifact.options.get("for") != Target.CUDA:
        return None
    return "cuda" if artifact.precision == "bf16" or cuda_failure() is None else "cpu"


def cuda_failure() -> VitDeployError | None:
    """Why ONNX Runtime cannot run on an NVIDIA GPU here; None if it can."""
    engine = RUNTIMES.load("onnxruntime")()
    try:
        engine.prepare(RuntimeOptions(provider="cuda"))
    except VitDeployError as error:
        return error
    return None
