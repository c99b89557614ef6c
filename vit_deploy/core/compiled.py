"""What a compiler for an accelerator made of a model file, as manifests record it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import MANIFEST
from vit_deploy.errors import ArtifactError

RECORD = "compiled"
"""The option of a manifest that holds it."""


@dataclass(frozen=True)
class Fallback:
    """Operators that an accelerator leaves to the CPU.

    Args:
        operator: the name of the operators.
        count: the number of such operators.
        reason: why.
    """

    operator: str
    count: int
    reason: str


@dataclass(frozen=True)
class Compiled:
    """A compiled file beside the one that it was made of.

    Args:
        target: the accelerator, as `ethos-u55-256`.
        compiler: the name of the compiler.
        version: the version of the compiler.
        file: the compiled file, relative to the manifest.
        operators: the number of operators of the source.
        left: those that run on the CPU.
        estimates: figures that the compiler computed without the device, by name with unit.
        settings: what it was told, or took by itself where it was told nothing.
        proof: how the compiled file itself was proven; empty where nothing ran it.
        runs_on_cpu: whether it is for a processor, and not for an accelerator beside one.
    """

    target: str
    compiler: str
    version: str
    file: str
    operators: int
    left: tuple[Fallback, ...] = ()
    estimates: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    proof: str = ""
    runs_on_cpu: bool = False

    @property
    def on_cpu(self) -> int:
        """The number of operators that run on the CPU."""
        return self.operators if self.runs_on_cpu else sum(fallback.count for fallback in self.left)

    @property
    def on_npu(self) -> int:
        """The number of operators that run on the accelerator."""
        return self.operators - self.on_cpu

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "target": self.target,
            "compiler": self.compiler,
            "version": self.version,
            "file": self.file,
            "operators": {"npu": self.on_npu, "cpu": self.on_cpu},
            "left_to_the_cpu": [vars(fallback) for fallback in self.left],
            "estimates": dict(self.estimates),
            "settings": dict(self.settings),
            **({"proof": self.proof} if self.proof else {}),
        }

    @classmethod
    def of(cls, artifact: Artifact) -> Compiled | None:
        """What a manifest records; None of an artifact that was not compiled.

        Raises:
            ArtifactError: a record that cannot be.
        """
        record = artifact.options.get(RECORD)
        if record is None:
            return None
        try:
            return cls(
                target=record["target"],
                compiler=record["compiler"],
                version=record["version"],
                file=record["file"],
                operators=sum(record["operators"].values()),
                left=tuple(Fallback(**fallback) for fallback in record["left_to_the_cpu"]),
                estimates=dict(record["estimates"]),
                settings=dict(record["settings"]),
                proof=record.get("proof", ""),
                runs_on_cpu=record["operators"]["npu"] == 0,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ArtifactError(
                f"{artifact.directory / MANIFEST} is damaged: {RECORD} is {str(record)[:80]!r}, "
                "expected what `compile` writes",
                fix="compile the model again",
            ) from error
