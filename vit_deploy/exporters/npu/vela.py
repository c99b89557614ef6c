"""Artifacts compiled by Vela for Ethos-U accelerators."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.compiled import Compiled
from vit_deploy.errors import ConfigError, EngineError
from vit_deploy.formats.vela import DISTRIBUTION, NAME, compile_file

FILE = "model_vela.tflite"


class Vela:
    """Keeps Vela's file and its report."""

    targets = (
        *("ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256", "ethos-u65-256", "ethos-u65-512"),
        *("ethos-u85-128", "ethos-u85-256", "ethos-u85-512", "ethos-u85-1024", "ethos-u85-2048"),
    )
    formats = ("tflite",)
    settings: Mapping[str, str] = {
        "config": "a file of system configurations and memory modes (.ini)",
        "system-config": "clock and bandwidths of the system, as Ethos_U55_High_End_Embedded",
        "memory-mode": "where tensors and weights lie, as Sram_Only or Shared_Sram",
        "optimise": "Performance or Size",
        "arena-cache-size": "bytes of SRAM that tensors may take",
    }
    libraries = (DISTRIBUTION,)

    def check(self, source: Artifact, target: str) -> None:
        """Refuse files for several sizes.

        Raises:
            ConfigError: it is one.
        """
        if source.sizes:
            raise ConfigError(
                f"{source.path} is for several sizes of images, of which a microcontroller runs the first alone",
                fix="export one size",
            )

    def compile(self, source: Artifact, target: str, settings: Mapping[str, str], folder: Path) -> Compiled:
        """Write Vela's file into a folder; see `DeviceCompiler`.

        Raises:
            EngineError: Vela refuses the file or a setting, or lets nothing run on the accelerator.
        """
        if "config" in settings:  # it runs elsewhere
            settings = {**settings, "config": str(Path(settings["config"]).absolute())}
        found = compile_file(source.model_path, target, settings)
        if found.is_idle:
            reasons = ", ".join(dict.fromkeys(fallback.reason for fallback in found.left))
            raise EngineError(
                f"{NAME} {found.version} lets nothing of {source.name} run on {target}: {reasons}",
                fix="compile an int8-full artifact: vit-deploy quantize -p int8-full makes one",
            )
        (folder / FILE).write_bytes(found.content)
        return Compiled(
            target=target,
            compiler=NAME,
            version=found.version,
            file=FILE,
            operators=found.operators,
            left=found.left,
            estimates=found.estimates,
            settings={
                "system-config": found.summary["system_config"],
                "memory-mode": found.summary["memory_mode"],
                **{name: value for name, value in settings.items() if name in ("optimise", "arena-cache-size")},
                **({"config": _digest(Path(settings["config"]))} if "config" in settings else {}),
            },
        )


def _digest(path: Path) -> str:
    """Name and digest of a file, as two of a name may differ."""
    return f"{path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
