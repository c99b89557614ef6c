"""Results of functions as their commands print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, overload

from vit_deploy.core import documents
from vit_deploy.core.documents import Record
from vit_deploy.core.provenance import Step
from vit_deploy.errors import Failed, VitDeployError

if TYPE_CHECKING:  # each is imported by the function that makes it; ruff does not see those in the bases of classes
    from vit_deploy.core.datasets import Dataset
    from vit_deploy.data.embedding import Embedded  # noqa: F401
    from vit_deploy.formats.inspect import Inspection  # noqa: F401
    from vit_deploy.performance.latency import Latency  # noqa: F401
    from vit_deploy.performance.regression import Change
    from vit_deploy.remote.android.timing import PhoneTiming
    from vit_deploy.remote.emulation.setup import Emulator  # noqa: F401
    from vit_deploy.runtimes.classify import Prediction  # noqa: F401
    from vit_deploy.runtimes.diagnosis import Diagnosis  # noqa: F401
    from vit_deploy.verification.accuracy import Evaluation  # noqa: F401
    from vit_deploy.verification.compare import Comparison  # noqa: F401
    from vit_deploy.verification.feature_accuracy import FeatureEvaluation  # noqa: F401
    from vit_deploy.verification.parity import Parity
    from vit_deploy.verification.proving import Proven
    from vit_deploy.verification.verifying import Verification  # noqa: F401

Result_co = TypeVar("Result_co", covariant=True)


@dataclass(frozen=True)
class Outcome(Sequence[Result_co], Generic[Result_co]):
    """What a function has done; a sequence of its results.

    Args:
        results: one for each artifact, case, file, …
        records: the results as plain JSON values.
        ok: whether every check passed and nothing came to nothing.
        skipped: what was left out, and why, in words.
        failed: artifacts that came to nothing while others went on.
        origins: the provenance of each checkpoint that was read, by its path; None where none was.
        hosts: the machines of a file of them, and what came of each.
    """

    results: tuple[Result_co, ...]
    records: tuple[Record, ...] = field(repr=False)
    ok: bool = True
    skipped: tuple[str, ...] = ()
    failed: tuple[Failed, ...] = ()
    origins: Mapping[Path, tuple[Step, ...]] | None = field(default=None, repr=False)
    hosts: tuple[Record, ...] = field(default=(), repr=False, kw_only=True)
    command: ClassVar[str]

    @overload
    def __getitem__(self, index: int) -> Result_co: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Result_co]: ...
    def __getitem__(self, index: int | slice) -> Result_co | Sequence[Result_co]:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    @property
    def result(self) -> Result_co:
        """The only result.

        Raises:
            ValueError: there are several, or none.
        """
        [only] = self.results
        return only

    @property
    def assumed(self) -> tuple[Record, ...]:
        """What was assumed of the checkpoints that were read: field, value, why, and the checkpoint's path."""
        from vit_deploy.checkpoints import assumed

        return tuple(
            step.to_dict() | {"checkpoint": str(path)}
            for path, provenance in (self.origins or {}).items()
            for step in assumed(provenance)
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of the command."""
        document = documents.document(self.command, self.records, ok=self.ok, skipped=self.skipped)
        more: dict[str, Any] = {} if self.origins is None else {"assumed": list(self.assumed)}
        more |= {"hosts": list(self.hosts)} if self.hosts else {}
        return document | more | documents.failures(self.failed)


@dataclass(frozen=True)
class VerifyOutcome(Outcome["Verification"]):
    """What `verify` found.

    Args:
        proven: each model that was run on this machine, with what was assumed and located.
        unanswered: why a machine gave no results, by its address.
    """

    proven: tuple[Proven, ...] = field(default=(), repr=False)
    unanswered: Mapping[str, VitDeployError] = field(default_factory=dict)
    command: ClassVar[str] = "verify"

    @property
    def parity(self) -> Parity:
        """The parity of the only artifact on its golden images.

        Raises:
            ValueError: there are several, or none.
        """
        return self.result.parity

    @property
    def reported(self) -> list[Record]:
        """Records for a report: with the machine in the name, and one for each that gave no results."""
        from vit_deploy.verification.records import unanswered

        named = [
            {**record, "artifact": f"{record['artifact']} on {record['on']}"} if "on" in record else record
            for record in self.records
        ]
        gaps = [(failure.name, failure.error.message) for failure in self.failed]
        gaps += [(host, f"{host}: {error.message}") for host, error in self.unanswered.items()]
        return [*named, *(unanswered(name, why) for name, why in gaps)]


@dataclass(frozen=True)
class BenchOutcome(Outcome["Latency"]):
    """What `bench` measured.

    Args:
        changes: how medians differ from those of a baseline.
        unanswered: why a machine gave no results, by its address.
        phones: what LiteRT's own program measured on Android devices, which has no samples and is no result of ours.
    """

    phones: tuple[PhoneTiming, ...] = field(default=(), kw_only=True)
    changes: tuple[Change, ...] = ()
    unanswered: Mapping[str, VitDeployError] = field(default_factory=dict)
    command: ClassVar[str] = "bench"


@dataclass(frozen=True)
class EvaluateOutcome(Outcome["Evaluation | FeatureEvaluation"]):
    """What `evaluate` counted; of models without a head, what their features tell.

    Args:
        dataset: the labelled images.
        unanswered: why a machine gave no results, by its address.
    """

    dataset: Dataset = field(repr=False, kw_only=True)
    unanswered: Mapping[str, VitDeployError] = field(default_factory=dict)
    command: ClassVar[str] = "evaluate"


@dataclass(frozen=True)
class PredictOutcome(Outcome["Prediction"]):
    """What `predict` saw in each image.

    Args:
        unanswered: why a machine gave no results, by its address.
    """

    unanswered: Mapping[str, VitDeployError] = field(default_factory=dict)
    command: ClassVar[str] = "predict"


@dataclass(frozen=True)
class EmbedOutcome(Outcome["Embedded"]):
    """The file that `embed` wrote; one result."""

    command: ClassVar[str] = "embed"


@dataclass(frozen=True)
class CompareOutcome(Outcome["Comparison"]):
    """In what two models differ; one result."""

    command: ClassVar[str] = "compare"


@dataclass(frozen=True)
class InspectOutcome(Outcome["Inspection"]):
    """What is in a file or a folder; one result."""

    command: ClassVar[str] = "inspect"


@dataclass(frozen=True)
class DoctorOutcome(Outcome["Diagnosis"]):
    """Which engines work here; one result."""

    command: ClassVar[str] = "doctor"


@dataclass(frozen=True)
class EmulatorOutcome(Outcome["Emulator"]):
    """The emulator that was set up, shown or removed; one result."""

    command: ClassVar[str] = "emulator"


@dataclass(frozen=True)
class BundleOutcome(Outcome[Path]):
    """The archive that `bundle` wrote; one result."""

    command: ClassVar[str] = "bundle"


@dataclass(frozen=True)
class ReportOutcome(Outcome[Path]):
    """The files that `report` wrote."""

    command: ClassVar[str] = "report"
