"""Artifacts compiled for Qualcomm's Hexagon, as ONNX files of one operator that holds the chip's program."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from vit_deploy.core.artifact import Artifact, versions
from vit_deploy.core.compiled import Compiled
from vit_deploy.core.hexagon import CHIPS, PROVIDER, Chip
from vit_deploy.errors import ConfigError, EngineError
from vit_deploy.runtimes import RUNTIMES
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.verifying import verify

RUNTIME = "qnn"
PREFIX = f"{RUNTIME}-"
FILE = "model_qnn.onnx"
NAME = "QNN"
PLUGIN = "onnxruntime-qnn"
FLOATS = ("fp32", "fp16", "bf16")


class Qnn:
    """Keeps the context (`EPContext`) that ONNX Runtime's plugin writes, and runs it where the chip is emulated."""

    targets = tuple(f"{PREFIX}{name}" for name in CHIPS)
    formats = ("onnx",)
    settings: Mapping[str, str] = {}
    libraries = ("onnxruntime", PLUGIN)

    def check(self, source: Artifact, target: str) -> None:
        """Refuse files for images of any size, and floats for a chip that has none.

        Raises:
            ConfigError: such a file.
        """
        chip = chip_for(target)
        if source.is_for_any_size:
            raise ConfigError(
                f"{source.path} is for images of any size, and Hexagon's compiler takes sizes that are known",
                fix="export it for one size",
            )
        if source.precision in FLOATS and not chip.has_floats:
            raise ConfigError(
                f"{source.path} is in {source.precision}, and {chip.in_words} computes in integers alone",
                fix="export it with --for qnn --precision int16x8 or int8-static",
            )

    def compile(self, source: Artifact, target: str, settings: Mapping[str, str], folder: Path) -> Compiled:
        """Write the context into a folder, and run it on the golden images; see `DeviceCompiler`.

        Raises:
            EngineError: the chip does not take every operator, or the compiled file answers otherwise.
        """
        chip = chip_for(target)
        operators, emulated = RUNTIMES.load(RUNTIME)().write_context(source, chip, folder / FILE)
        return Compiled(
            target=target,
            compiler=NAME,
            version=versions(PLUGIN)[PLUGIN],
            file=FILE,
            operators=operators,
            settings={"soc_model": str(chip.number), "hexagon": f"v{chip.hexagon}"},
            proof=proof_of(source, chip, folder) if emulated else "",
        )


def chip_for(target: str) -> Chip:
    """The chip of a target, as `qnn-sm8650`."""
    return CHIPS[target.removeprefix(PREFIX)]


def proof_of(source: Artifact, chip: Chip, folder: Path) -> str:
    """What the compiled file answers on the emulated chip, in words.

    Raises:
        EngineError: something else than it should.
    """
    context = dataclasses.replace(source, directory=folder, model=FILE, files={})
    found = verify(context, runtime=RUNTIME, provider=f"{PROVIDER}-{chip.name}", golden=read_golden(source))
    if not found.ok:
        raise EngineError(
            f"{source.name} compiled for {chip.in_words} answers differently: {', '.join(found.parity.failures)}",
            fix="compile it in another precision, such as int16x8",
        )
    snr = "" if found.parity.snr_db is None else f", {found.parity.snr_db:.1f} dB"
    return f"{found.parity.verdict}{snr}: the compiled file on the golden images, {chip.in_words} emulated"
