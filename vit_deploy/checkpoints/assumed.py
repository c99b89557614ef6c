"""What was taken for granted, chosen or left out when a checkpoint was read, as values and in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vit_deploy.checkpoints.documents import ADAPTER, PREPROCESS
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.origin import origin_in
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.provenance import Step

WEIGHTS = "weights"  # the fact of an import that says which of a file's several weights were taken
SUPPOSED = "supposed"  # the fact of an import that lists assumptions with reasons of their own
LEFT_OUT = "left_out"  # the fact that lists what of a file is not used
HEAD_FACT = "head"  # likewise, where a head was found that the encoder's own program has no name for
POOLED: Mapping[str, str] = {
    **{"cls": "class token", "mean": "mean of the patches", "max": "maximum of the patches"},
    **{"cls_mean": "class token and the mean of the patches", "map": "attention pooling"},
}
FILE_FACT = "file"  # likewise, which file was taken of a folder
PREPROCESSING = tuple(field.name for field in dataclasses.fields(Preprocess))
OPTIONS: Mapping[str, str] = {
    **{"num_heads": "--num-heads", "epsilon": "--epsilon", "activation": "--activation"},
    **{"mean": "--mean", "std": "--std"},
}


@dataclass(frozen=True)
class Assumed:
    """One thing that a checkpoint does not say, or says more than once.

    Args:
        field: the field of the config or the preprocessing, or "weights", "preprocess", "architecture", "head".
        value: that was taken, in plain JSON values.
        why: the reason in words, with what changes it.
    """

    field: str
    value: Any
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"field": self.field, "value": self.value, "why": self.why}


def assumed(provenance: Sequence[Step]) -> tuple[Assumed, ...]:
    """What was assumed when a model was imported, but for what the user has stated since."""
    found = [
        Assumed(name, value, f"the checkpoint does not say it; {_otherwise([name])}")
        for name, value in _fields(provenance).items()
    ]
    found += _supposed(provenance)
    found += [Assumed(FILE_FACT, name, why) for name, why in _file(provenance)]
    found += [Assumed(WEIGHTS, key, why) for key, why in _chosen(provenance)]
    return (*found, *(Assumed(HEAD_FACT, origin, why) for origin, why in _foreign_head(provenance)))


def assumptions(checkpoint: Checkpoint) -> str:
    """What was taken for granted or left out when a checkpoint was imported, in words; empty if nothing was."""
    return in_words(checkpoint.provenance)


def in_words(provenance: Sequence[Step]) -> str:
    """`assumptions` of what is known of a model's origin."""
    origin = origin_in(provenance)
    notes = [origin.in_words] if origin is not None and origin.in_words else []
    if fields := _fields(provenance):
        listed = ", ".join(f"{name} {value}" for name, value in fields.items())
        notes.append(f"assumed, for the checkpoint does not say it: {listed} ({_otherwise(list(fields))})")
    notes += [
        f"assumed: {assumption.field} {assumption.value}, for {assumption.why}" for assumption in _supposed(provenance)
    ]
    taken = (*_file(provenance), *_chosen(provenance), *_foreign_head(provenance))
    notes += [f"taken: {key}, {why}" for key, why in taken]
    notes += [
        f"merged: the adapter {step.facts.get('from')} of {step.facts.get('modules')} modules"
        for step in provenance
        if step.action == ADAPTER
    ]
    left_out = _imported(provenance).get(LEFT_OUT)
    if isinstance(left_out, list | tuple) and left_out:
        notes.append(f"left out, for the output does not depend on it: {', '.join(map(str, left_out))}")
    return "; ".join(notes)


def _imported(provenance: Sequence[Step]) -> Mapping[str, Any]:
    return next((step.facts for step in reversed(provenance) if step.action == "import"), {})


def _supposed(provenance: Sequence[Step]) -> list[Assumed]:
    found = _imported(provenance).get(SUPPOSED)
    listed = [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list | tuple) else []
    return [Assumed(str(entry.get("field")), entry.get("value"), str(entry.get("why"))) for entry in listed]


def _fields(provenance: Sequence[Step]) -> Mapping[str, Any]:
    found = _imported(provenance).get("assumed")
    if not isinstance(found, Mapping):  # somebody else's file can record anything
        return {}
    stated = [step.facts.get("stated") for step in provenance if step.action == PREPROCESS]
    said = {name for mapping in stated if isinstance(mapping, Mapping) for name in mapping}
    return {str(name): value for name, value in found.items() if name not in said}


def _file(provenance: Sequence[Step]) -> Iterator[tuple[str, str]]:
    facts = _imported(provenance).get(FILE_FACT)
    if isinstance(facts, Mapping) and "name" in facts:
        others = facts.get("others")
        listed = f", not {', '.join(map(str, others))}" if isinstance(others, list | tuple) and others else ""
        yield str(facts["name"]), f"{facts.get('why')}{listed}"


def _chosen(provenance: Sequence[Step]) -> Iterator[tuple[str, str]]:
    facts = _imported(provenance).get(WEIGHTS)
    if isinstance(facts, Mapping) and "key" in facts:
        averaged, others = facts.get("averaged"), facts.get("others")
        kind = "the averaged weights" if averaged else "the weights"
        held = others if isinstance(others, list | tuple) else ()
        listed = f"{kind} of several in the file, not {', '.join(map(str, held))} (--weights takes another)"
        yield str(facts["key"]), listed if held else kind


def _foreign_head(provenance: Sequence[Step]) -> Iterator[tuple[str, str]]:
    facts = _imported(provenance).get(HEAD_FACT)
    if isinstance(facts, Mapping) and "origin" in facts:
        why = f"as one linear layer on the {POOLED.get(str(facts.get('pooling')), 'features')}"
        yield (
            str(facts["origin"]),
            f"{why}; what a program does between the two is in no file (--no-head leaves it out)",
        )


def _otherwise(names: list[str]) -> str:
    """How to say something else."""
    ways = [OPTIONS[name] for name in names if name in OPTIONS]
    rest = [name for name in names if name not in OPTIONS]
    inside = [name for name in rest if name in PREPROCESSING]
    if rest:
        place = " in its preprocess" if len(inside) == len(rest) else ""
        ways.append(f"--config with {_joined(rest)}{place}")
    return f"say otherwise with {_joined(ways)}"


def _joined(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
