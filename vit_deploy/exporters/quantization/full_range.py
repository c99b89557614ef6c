"""What weights that reach 127 everywhere answer on x86 processors without VNNI."""

from __future__ import annotations

from vit_deploy.core.saturation import may_saturate
from vit_deploy.exporters.publish import Exported, Progress
from vit_deploy.runtimes.simulators import NO_VNNI
from vit_deploy.verification.golden import Golden
from vit_deploy.verification.verifying import verify


def notes_on_saturation(made: Exported, golden: Golden, progress: Progress) -> list[str]:
    """The signal to noise there and here, in words; empty for files that cannot saturate, or were not published.

    Args:
        made: a quantized artifact.
        golden: images as it takes them, and the reference's answers.
        progress: called with what is being done.
    """
    if not made.published or not may_saturate(made.artifact):
        return []
    name = made.artifact.name
    progress(f"simulating {name} without VNNI")
    there = verify(made.artifact, golden=golden, simulate=NO_VNNI).parity
    judged = "within its tolerance" if there.ok else "which its tolerance does not allow"
    return [
        f"{name} on x86 processors without VNNI: {_db(there.snr_db)}, {judged}, where others give "
        f"{_db(made.parity.snr_db)}; leave --full-range out for files that are right on both"
    ]


def _db(snr_db: float | None) -> str:
    return "no signal to noise ratio" if snr_db is None else f"{snr_db:.1f} dB"
