"""What a TensorRT plan was built with and for, as its artifact records it and its first bytes tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import MANIFEST, read_artifact
from vit_deploy.core.options.tensorrt import FULL, RTX, BatchRange
from vit_deploy.errors import ArtifactError
from vit_deploy.formats.graph import Graph, TensorInfo

TITLES: Mapping[str, str] = {FULL: "TensorRT", RTX: "TensorRT for RTX"}
PROVIDERS: Mapping[str, str] = {FULL: "tensorrt", RTX: "tensorrt-rtx"}
EXTRAS: Mapping[str, str] = {FULL: "tensorrt", RTX: "tensorrt-rtx"}
FORMAT = "tensorrt"
RECORD = "tensorrt"  # where a manifest's options hold it

MAGIC: Mapping[bytes, str] = {b"ftrt": FULL, b"vtrt": RTX}  # the first bytes of a plan
VERSION_AT, VERSION_BYTES = 24, 4  # in the header of TensorRT for RTX: 1.7.1.116 as four bytes


@dataclass(frozen=True)
class PlanRecord:
    """What a manifest says of a plan.

    Args:
        flavour: "tensorrt" or "tensorrt_rtx", which read each other's plans as little as those of other versions.
        version: the version of TensorRT.
        batches: images a call.
        tf32: whether factors of fp32 products may be rounded to 11 bits.
        compute_capabilities: the compute capabilities of the GPUs that it runs on, as "9.0".
        gpu: name of the one that it was built on; None if there was none.
        cuda: version that the driver there speaks; None likewise.
        build_ms: that building took.
    """

    flavour: str
    version: str
    batches: BatchRange
    tf32: bool
    compute_capabilities: tuple[str, ...]
    gpu: str | None = None
    cuda: str | None = None
    build_ms: float = 0.0

    @property
    def title(self) -> str:
        """What built it, for people."""
        return f"{TITLES[self.flavour]} {self.version}"

    @property
    def built_for(self) -> str:
        """The GPUs that it runs on, for people."""
        kinds = ", ".join(self.compute_capabilities)
        if self.flavour == FULL:
            return f"{self.gpu} (compute capability {kinds})"
        return f"GPUs of compute capability {kinds}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "flavour": self.flavour,
            "version": self.version,
            "cuda": self.cuda,
            "gpu": self.gpu,
            "compute_capabilities": list(self.compute_capabilities),
            "profile": {"min": self.batches.least, "opt": self.batches.best, "max": self.batches.most},
            "tf32": self.tf32,
            "strongly_typed": True,  # there is no other way of building here
            "build_ms": round(self.build_ms, 1),
        }

    @classmethod
    def of(cls, artifact: Artifact) -> PlanRecord:
        """What the manifest of an artifact with a plan records.

        Raises:
            ArtifactError: nothing, or what cannot be.
        """
        values = artifact.options.get(RECORD)
        try:
            if not isinstance(values, Mapping) or values["flavour"] not in TITLES:
                raise ValueError("expected what the plan was built with")
            profile = values["profile"]
            texts = (values["version"], *values["compute_capabilities"], values["gpu"] or "", values["cuda"] or "")
            if not all(isinstance(text, str) for text in texts) or not isinstance(values["tf32"], bool):
                raise ValueError("expected texts, and whether TF32 is allowed")
            return cls(
                flavour=values["flavour"],
                version=values["version"],
                batches=BatchRange(profile["min"], profile["opt"], profile["max"]),
                tf32=values["tf32"],
                compute_capabilities=tuple(values["compute_capabilities"]),
                gpu=values["gpu"],
                cuda=values["cuda"],
                build_ms=float(values.get("build_ms", 0.0)),
            )
        except (ValueError, KeyError, TypeError) as error:
            detail = f"missing {error}" if isinstance(error, KeyError) else getattr(error, "message", error)
            raise ArtifactError(
                f"{artifact.directory / MANIFEST} does not say how the plan was built: {detail}",
                fix="export the model again with --format tensorrt",
            ) from error


def largest_batch(artifact: Artifact) -> int:
    """The most images a call that a plan was built for.

    Raises:
        ArtifactError: its manifest does not say it.
    """
    return PlanRecord.of(artifact).batches.most


def flavour_of(start: bytes) -> str | None:
    """The TensorRT that wrote the plan with these first bytes; None where they are not a plan's."""
    return MAGIC.get(start[:4])


def read_graph(path: Path) -> Graph:
    """What can be told of a plan without loading it: its first bytes, and the manifest of the artifact that it is in.

    Raises:
        ArtifactError: it cannot be read, or its manifest does not say how it was built.
    """
    try:
        with path.open("rb") as file:
            start = file.read(VERSION_AT + VERSION_BYTES)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}", fix="check its permissions") from error
    flavour = flavour_of(start)
    built_by = TITLES[flavour] if flavour else "unknown: it begins as no plan of a known TensorRT does"
    if flavour == RTX and len(start) == VERSION_AT + VERSION_BYTES:
        built_by = f"{built_by} {'.'.join(map(str, start[VERSION_AT:]))}"
    artifact = _artifact_of(path)
    if artifact is None:
        return Graph((), (), operators={}, facts={"built by": built_by})
    record, spec, config = PlanRecord.of(artifact), artifact.input, artifact.config
    facts = {
        "built by": record.title,
        "runs on": record.built_for,
        "batches": str(record.batches),
        "products of fp32": "in TF32" if record.tf32 else "in fp32",
        "built in": f"{record.build_ms:.0f} ms",
    }
    output = (spec.batch, *config.output_shape)
    return Graph(
        (TensorInfo(spec.name, spec.dtype, spec.shape),),
        (TensorInfo(config.output_name, artifact.output.dtype, output),),
        operators={},
        facts=facts,
    )


def _artifact_of(path: Path) -> Artifact | None:
    if not (path.parent / MANIFEST).is_file():
        return None
    artifact = read_artifact(path.parent, check_digests=False)
    return artifact if artifact.format == FORMAT and artifact.model_path == path else None
