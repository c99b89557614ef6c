"""The operators of a TFLite file that an integer accelerator would leave to the CPU, and why.

The lists and rules are those of the makers' documents, which `accelerators.json` names with the version of the compiler
and the day; nothing was tried on a device. What is named is likely to fall back; what is not may still do so, for
devices have rules about memory besides. Where a compiler is installed, its own word counts instead.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vit_deploy.core.compiled import Fallback
from vit_deploy.errors import EngineError
from vit_deploy.formats import accelerator_rules as rules
from vit_deploy.formats import vela
from vit_deploy.formats.accelerator_rules import Rule
from vit_deploy.formats.tflite.file import opened
from vit_deploy.formats.tflite.operators import Step, read_steps

DATA = Path(__file__).with_name("accelerators.json")


@dataclass(frozen=True)
class Document:
    """Where rules are from.

    Args:
        tool: the compiler that they are of.
        version: its version.
        checked: the day on which they were read.
        source: the document.
    """

    tool: str
    version: str
    checked: str
    source: str


@dataclass(frozen=True)
class Accelerator:
    """What a device computes.

    Args:
        key: its name in documents.
        name: the usual name of the accelerator.
        document: where the rules are from.
        operators: the supported operators, by the names of TFLite's schema.
        activations: types of the tensors that it computes with.
        constants: types of constants that it takes besides: of biases, shapes, axes.
        always: what it asks of every operator.
        limits: what it asks of some, by their names.
        remark: what else there is to know where anything falls back.
        compiler: the target that stands for it where its compiler is asked; empty where that cannot be.
    """

    key: str
    name: str
    document: Document
    operators: frozenset[str]
    activations: frozenset[str]
    constants: frozenset[str]
    always: tuple[Rule, ...]
    limits: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    remark: str = ""
    compiler: str = ""

    def objection(self, step: Step) -> str:
        """Why it would leave an operator to the CPU; empty where it would not."""
        if alien := self._alien_types(step):
            return f"computes in {min(alien)}"
        if step.kind not in self.operators:
            return "no such operator"
        checks = (*self.always, *self.limits.get(step.kind, ()))
        return next((said for said in (rule(step) for rule in checks) if said), "")

    def takes_types(self, step: Step) -> bool:
        """Whether it computes with the types of an operator."""
        return not self._alien_types(step)

    def _alien_types(self, step: Step) -> set[str]:
        computed = {tensor.dtype for tensor in (*step.inputs, *step.outputs) if not tensor.is_constant}
        constant = {tensor.dtype for tensor in step.inputs if tensor.is_constant}
        return (computed - self.activations) | (constant - self.activations - self.constants)


def _read(key: str, record: Mapping[str, Any]) -> Accelerator:
    limits = {
        operator: tuple(rules.named(*rule) for rule in of_operator)
        for operator, of_operator in record["limits"].items()
    }
    return Accelerator(
        key=key,
        name=record["name"],
        document=Document(*(record[field] for field in ("tool", "version", "checked", "source"))),
        operators=frozenset(record["operators"]),
        activations=frozenset(record["activations"]),
        constants=frozenset(record["constants"]),
        always=tuple(rules.named(*rule) for rule in record["always"]),
        limits=limits,
        remark=record.get("remark", ""),
        compiler=record.get("compiler", ""),
    )


ACCELERATORS: Mapping[str, Accelerator] = MappingProxyType(
    {key: _read(key, record) for key, record in json.loads(DATA.read_text(encoding="utf-8")).items()}
)


def fallbacks(path: Path, accelerator: Accelerator) -> tuple[Fallback, ...]:
    """What of a TFLite file would not run on an accelerator, the most frequent first.

    Raises:
        ArtifactError: it is no TFLite file, or a damaged one.
    """
    with opened(path) as model:
        found = Counter((step.kind, said) for step in read_steps(model) if (said := accelerator.objection(step)))
    ordered = sorted(found.items(), key=lambda counted: (-counted[1], counted[0]))
    return tuple(Fallback(kind, count, reason) for (kind, reason), count in ordered)


@dataclass(frozen=True)
class Verdict:
    """What an accelerator leaves to the CPU, and who says so.

    Args:
        left: the operators, the most frequent first.
        tool: the compiler that was asked, or whose document was read.
        version: its version.
        checked: the day on which the document was read; empty where the compiler itself was asked.
    """

    left: tuple[Fallback, ...]
    tool: str
    version: str
    checked: str = ""

    @property
    def records(self) -> list[dict[str, Any]]:
        """What it leaves, in plain JSON values."""
        return [vars(fallback) for fallback in self.left]

    @property
    def source(self) -> dict[str, str]:
        """Who says so, in plain JSON values."""
        by = {"by": "document", "checked": self.checked} if self.checked else {"by": "compiler"}
        return {"tool": self.tool, "version": self.version, **by}


def verdict(path: Path, accelerator: Accelerator) -> Verdict:
    """What of a TFLite file would not run on an accelerator: by its compiler where that is installed, else by rules.

    Raises:
        ArtifactError: it is no TFLite file, or a damaged one.
    """
    document = accelerator.document
    with opened(path) as model:
        has_integers = any(accelerator.takes_types(step) for step in read_steps(model))
    by_rules = Verdict(fallbacks(path, accelerator), document.tool, document.version, document.checked)
    if not (accelerator.compiler and has_integers and vela.is_installed()):
        return by_rules
    try:
        compiled = vela.compile_file(path, accelerator.compiler)
    except EngineError:  # which `compile` shows
        return by_rules
    return Verdict(compiled.left, document.tool, compiled.version)


def verdicts(path: Path) -> dict[str, Verdict]:
    """The verdict of every accelerator by its key.

    Raises:
        ArtifactError: as `verdict`.
    """
    return {key: verdict(path, device) for key, device in ACCELERATORS.items()}
