"""What is every part told about the run it belongs to?"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.sizes import SIZES, Size

MINIATURE = "quick"


@dataclass(frozen=True)
class Job:
    """One run.

    Args:
        results: a folder, with one folder a part.
        trained: folder of trained models; those that are not there are trained into it.
        data: photographs to train on, a folder or a zip with a folder a class; None for digits alone.
        sizes: names in `SIZES`; none for what each part takes by itself.
        quick: a miniature, to see that everything runs.
        latency_only: time the files that an earlier run left beside the trained models, and nothing else.
    """

    results: Path
    trained: Path
    data: Path | None = None
    sizes: tuple[str, ...] = ()
    quick: bool = False
    latency_only: bool = False

    def chosen(self, *usual: str) -> list[Size]:
        """The models to measure, the usual ones unless others were asked for."""
        return [SIZES[name] for name in ((MINIATURE,) if self.quick else self.sizes or usual)]

    def to_json(self) -> str:
        """For another process."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Job:
        """What `to_json` wrote."""
        fields = json.loads(text)
        data = None if fields["data"] is None else Path(fields["data"])
        switches = {name: bool(fields[name]) for name in ("quick", "latency_only")}
        return cls(Path(fields["results"]), Path(fields["trained"]), data, tuple(fields["sizes"]), **switches)
