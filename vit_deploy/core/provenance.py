"""What was done to a model, one step after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Step:
    """One thing that was done to a model, and the facts of it, in plain JSON values."""

    action: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The action and its facts in one flat mapping."""
        return {"action": self.action, **self.facts}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Step:
        """The inverse of `to_dict`."""
        return cls(str(values["action"]), {key: value for key, value in values.items() if key != "action"})
