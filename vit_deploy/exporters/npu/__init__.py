"""Compilers of accelerators: which there are, what they compile for, and what each of them does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.compiled import Compiled
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.errors import UsageError, did_you_mean

DEVICE_COMPILERS = Registry(
    "accelerator",
    {
        "ethos": Plugin("vit_deploy.exporters.npu.vela:Vela", extra="ethos", needs=("ethosu",)),
        "tflm": Plugin(
            "vit_deploy.exporters.npu.micro:Micro",
            extra="tflm",
            needs=("tflite_micro", "ai_edge_litert", "flatbuffers"),
        ),
        "qnn": Plugin("vit_deploy.exporters.npu.qnn:Qnn", extra="qnn", needs=("onnxruntime", "onnxruntime_qnn")),
    },
)
"""By what the names of their targets begin with."""


class DeviceCompiler(Protocol):
    """Compiles model files for one family of accelerators. The stage around it stages, copies and records.

    It is loaded to list its targets, so that it imports its compiler only where it compiles.
    """

    targets: tuple[str, ...]
    """The accelerators that it compiles for, as `ethos-u55-256`."""
    formats: tuple[str, ...]
    """Of the artifacts that it takes."""
    settings: Mapping[str, str]
    """What `--set` says to it: names, and what each is."""
    libraries: tuple[str, ...]
    """Distributions whose versions go into the manifest."""

    def check(self, source: Artifact, target: str) -> None:
        """Refuse, before any work, an artifact that it could not compile for a target.

        Raises:
            ConfigError: it could not.
        """

    def compile(self, source: Artifact, target: str, settings: Mapping[str, str], folder: Path) -> Compiled:
        """Write the compiled file into a folder that holds a copy of the artifact.

        Args:
            source: the artifact that is compiled; it is only read.
            target: one of `targets`.
            settings: values by the names of `settings`.
            folder: the artifact to be, without its manifest.

        Returns:
            What it made.

        Raises:
            EngineError: the compiler refuses the file, or lets nothing run on the accelerator.
            OSError: the disk is full.
        """


def known_targets() -> tuple[str, ...]:
    """Everything that can be compiled for, whether or not its compiler is installed."""
    return tuple(target for name in DEVICE_COMPILERS for target in DEVICE_COMPILERS[name].load().targets)


def compiler_of(target: str) -> DeviceCompiler:
    """The compiler that is installed for a target.

    Raises:
        UsageError: nothing compiles for it.
        MissingEngineError: it is not installed.
    """
    if target not in known_targets():
        raise UsageError(f"there is no accelerator {target!r}", fix=did_you_mean(target, known_targets()))
    name = target.partition("-")[0]
    compiler: DeviceCompiler = DEVICE_COMPILERS.load(name)()
    return compiler
