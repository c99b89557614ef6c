"""Artifacts made ready for TensorFlow Lite Micro, and proven in its interpreter."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from vit_deploy.core.artifact import Artifact, versions
from vit_deploy.core.compiled import RECORD, Compiled
from vit_deploy.errors import ConfigError, ExportError
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.verifying import verify

TARGET = RUNTIME = "tflm"
NAME = "TensorFlow Lite Micro"
DISTRIBUTION = "tflite-micro"
FILE = "model_tflm.tflite"
PRECISION = "int8-full"


class Micro:
    """Puts tables in the place of GELU, and runs the file as a microcontroller would."""

    targets = (TARGET,)
    formats = ("tflite",)
    settings: Mapping[str, str] = {}
    libraries = (DISTRIBUTION,)

    def check(self, source: Artifact, target: str) -> None:
        """Refuse files that are not integers throughout, with outputs by name, and for several sizes.

        Raises:
            ConfigError: it is one of them.
        """
        if source.precision != PRECISION:
            raise ConfigError(
                f"{source.path} is {source.precision}; for microcontrollers a file is {PRECISION}",
                fix=f"vit-deploy quantize -p {PRECISION} makes one",
            )
        if source.outputs:
            raise ConfigError(
                f"{source.path} has outputs by name, which {NAME} does not tell apart", fix="export it without --output"
            )
        if source.sizes:
            raise ConfigError(
                f"{source.path} is for several sizes of images, of which a microcontroller runs the first alone",
                fix="export one size",
            )

    def compile(self, source: Artifact, target: str, settings: Mapping[str, str], folder: Path) -> Compiled:
        """Write the file into a folder and prove it; see `DeviceCompiler`.

        Raises:
            EngineError: an operator that Micro does not have.
            ExportError: in its interpreter the file computes another function.
        """
        from vit_deploy.exporters.tflite.gelu_tables import write_with_tables
        from vit_deploy.runtimes.tflm import TFLM

        operators = write_with_tables(source.model_path, folder / FILE)
        version = versions(DISTRIBUTION)[DISTRIBUTION]
        compiled = Compiled(target, NAME, version, FILE, operators, runs_on_cpu=True)
        made = dataclasses.replace(source, directory=folder, options={**source.options, RECORD: compiled.to_dict()})
        golden = read_golden(source)
        proof = verify(made, runtime=RUNTIME, golden=golden)
        if not proof.parity.ok:
            raise ExportError(
                f"in {NAME} {source.name} does not compute what it has to: {', '.join(proof.parity.failures)}",
                fix="report this with the model's config",
            )
        with TFLM().open(made) as session:
            session.infer(golden.images[:1])
            arena = session.arena_bytes()
        return dataclasses.replace(
            compiled,
            estimates={"arena_bytes": float(arena), "flash_bytes": float((folder / FILE).stat().st_size)},
            proof=f"in its interpreter on this machine, {proof.parity.snr_db:.1f} dB over {len(golden.images)} images",
        )
