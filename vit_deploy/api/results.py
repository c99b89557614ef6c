"""Results of functions as their commands print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, overload

from vit_deploy.core import documents
from vit_deploy.core.checkpoint import Step
from vit_deploy.core.documents import Record
from vit_deploy.errors import Failed

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
    """

    results: tuple[Result_co, ...]
    records: tuple[Record, ...] = field(repr=False)
    ok: bool = True
    skipped: tuple[str, ...] = ()
    failed: tuple[Failed, ...] = ()
    origins: Mapping[Path, tuple[Step, ...]] | None = field(default=None, repr=False)
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
            each.to_dict() | {"checkpoint": str(path)}
            for path, provenance in (self.origins or {}).items()
            for each in assumed(provenance)
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of the command."""
        document = documents.document(self.command, self.records, ok=self.ok, skipped=self.skipped)
        more = {} if self.origins is None else {"assumed": list(self.assumed)}
        return document | more | documents.failures(self.failed)
