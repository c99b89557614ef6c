"""The outcome of an export or a quantization."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vit_deploy.errors import Failed
from vit_deploy.exporters.publish import Exported
from vit_deploy.exporters.quantization.sensitivity import Sensitivities
from vit_deploy.exporters.quantization.tradeoffs import Facts


@dataclass(frozen=True)
class Made:
    """What became of an export or a quantization.

    Args:
        results: one an artifact, in the order of the jobs.
        facts: size, speed and accuracy of each artifact beside its format's fp32, by `<format>-<precision>`.
        sensitivities: what each layer costs alone, by the same names, where it was measured.
        skipped: what could not be made, in words.
        notes: what the user should know.
        budgets: what was asked for and what the published file was measured to reach, by the same names.
        failed: what an engine, a converter or a search came to nothing with, while the others went on.
    """

    results: list[Exported]
    facts: dict[str, Facts] = field(default_factory=dict)
    sensitivities: dict[str, Sensitivities] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    budgets: dict[str, dict[str, Any]] = field(default_factory=dict)

    def also(self, other: Made) -> Made:
        """Both together."""
        return Made(
            self.results + other.results,
            self.facts | other.facts,
            self.sensitivities | other.sensitivities,
            self.skipped + other.skipped,
            [*dict.fromkeys(self.notes + other.notes)],
            self.failed + other.failed,
            self.budgets | other.budgets,
        )

    def unless_all_failed(self) -> Made:
        """The same.

        Raises:
            VitDeployError: nothing at all was made; the error of the first, which tells of the others too.
        """
        if self.results or not self.failed:
            return self
        first, *others = self.failed
        first.error.message += "".join(f"; {other.name}: {other.error.message}" for other in others)
        raise first.error
