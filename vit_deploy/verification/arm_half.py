"""What an fp16 ONNX file would answer on an Arm processor with half arithmetic, asked on a machine that is none."""

from __future__ import annotations

import importlib.util
import platform
import time

from vit_deploy.core import cost
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format import Target
from vit_deploy.core.format_table import FORMATS
from vit_deploy.runtimes import open_session
from vit_deploy.verification.parity import compare
from vit_deploy.verification.tolerances import Tolerance
from vit_deploy.verification.verifying import Check, CheckContext

NAME = "arm-fp16"
SIMULATORS = "vit_deploy.runtimes.simulators"
MOST_MACS = 1_500_000_000  # of all images of a call: those of ViT-Tiny at 224 pixels take about 7 s
ARM = ("aarch64", "arm64")
FIX = (
    "ship fp32 or int8 to such processors, or export fp16 again where this file is for a GPU or of an earlier version: "
    "what 16-bit floats do not hold stays in float32 now"
)
CPUS = "Arm CPUs with half arithmetic (Cortex-A55, A76 and later)"


def on_arm_in_half(context: CheckContext) -> list[Check]:
    """What the file would give there, simulated on as few images as one call takes; a warning, and no verdict.

    Nothing of files that are computed alike everywhere, of bare ones, of those that are for a GPU or run on one, on an
    Arm processor itself, and where what simulates is not installed.
    """
    artifact = context.artifact
    if not _differs_there(artifact) or context.session.provider != "cpu" or platform.machine() in ARM:
        return []
    if any(importlib.util.find_spec(module) is None for module in ("onnx", SIMULATORS)):
        return []  # on another machine there is neither
    images = context.golden.images[: artifact.input.batch or 1]
    work = cost.macs(artifact.config) * len(images)
    if work > MOST_MACS:
        return [
            Check(
                NAME,
                True,
                f"not simulated on {CPUS}, for it would take long ({work / 1e9:.1f} G products): "
                f"vit-deploy verify --simulate {NAME} does, or --on qemu://cortex-a76",
            )
        ]
    snr_db, took_s = _simulated(context, len(images))
    least = context.tolerance.snr_db
    simulated = f"simulated on {len(images)} image{'s' if len(images) > 1 else ''} in {took_s:.1f} s"
    if least is None or snr_db >= least:
        return [Check(NAME, True, f"{snr_db:.1f} dB on {CPUS}, {simulated}")]
    return [
        Check(
            NAME,
            True,
            f"warning: {CPUS} would fail, with {snr_db:.1f} dB where {least:g} are needed ({simulated}): prove it "
            "there, or ship fp32 or int8 to them",
        )
    ]


def _differs_there(artifact: Artifact) -> bool:
    format = FORMATS.get(artifact.format)
    is_one = not artifact.is_for_any_size and not artifact.sizes and not artifact.is_bare
    is_for_gpus = artifact.options.get("for") in (Target.CUDA, Target.TENSORRT)
    return format is not None and artifact.precision in format.half_sums and is_one and not is_for_gpus


def _simulated(context: CheckContext, count: int) -> tuple[float, float]:
    """The signal to noise there, in dB, and the seconds that it took to find."""
    from vit_deploy.runtimes.simulators import ARM_FP16, SIMULATORS  # no device simulates another

    start = time.perf_counter()
    with open_session(context.artifact, engine=SIMULATORS.load(ARM_FP16)()) as session:
        outputs = context.golden.part_of(session.infer(context.golden.images[:count]))
    found = compare(outputs, context.golden.outputs[:count], Tolerance(), classes=False)
    return found.snr_db if found.snr_db is not None else 0.0, time.perf_counter() - start
