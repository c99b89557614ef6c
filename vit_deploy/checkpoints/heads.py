"""Heads and labels: what a config promises of them, what the user says instead, and a model without them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.checkpoints.containers.torch_training import CLASSES
from vit_deploy.checkpoints.documents import LABELS, MAX_JSON_BYTES, explained, parse_json
from vit_deploy.checkpoints.source import TRAINING, TensorFile, TensorView
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.errors import CheckpointError

CONFIG = "config.json"
STEP = "without head"  # in the provenance
WITHOUT_LABELS: Mapping[str, Any] = {"id2label": None, "label2id": None, "num_labels": None, "label_names": None}
WITHOUT_HEAD: Mapping[str, Any] = {**WITHOUT_LABELS, "id2label": {}, "num_labels": 0, "num_classes": 0}
# timm keeps here what the weights that a training began with were for.
NESTED = {"pretrained_cfg": {"label_names": None, "num_classes": None}, "model_args": {"num_classes": None}}
LABELS_FIX = "correct its config.json, or give the names of all classes in a file: --labels FILE"


@dataclass(frozen=True)
class Restated(TensorView):
    """A `TensorFile` whose config.json, and whose head, are as the user says.

    Args:
        said: entries of config.json in place of its own; None takes one out.
        hidden: names of tensors that are not shown, or None.
    """

    said: Mapping[str, Any]
    hidden: re.Pattern[str] | None

    @property
    def documents(self) -> Mapping[str, Any]:
        """The documents of the file, with what the user states."""
        return RestatedDocuments(self.file.documents, self.said)

    def names(self) -> Iterable[str]:
        """Names of all tensors but those of the head."""
        return [name for name in self.file.names() if not (self.hidden and self.hidden.search(name))]


class RestatedDocuments(Mapping[str, Any]):
    """Documents with other entries in their config.json, if they have one."""

    def __init__(self, documents: Mapping[str, Any], said: Mapping[str, Any]) -> None:
        self._documents = documents
        self._said = said

    def __getitem__(self, name: str) -> Any:
        found = self._documents[name]
        if name != CONFIG or not isinstance(found, Mapping):
            return found
        kept = {key: value for key, value in found.items() if key not in self._said}
        for key, said in NESTED.items():
            if isinstance(kept.get(key), Mapping):
                taken = said if "num_classes" in self._said else {"label_names": None}
                kept[key] = {inner: value for inner, value in kept[key].items() if inner not in taken}
        return kept | {key: value for key, value in self._said.items() if value is not None}

    def __iter__(self) -> Any:
        return iter(self._documents)

    def __len__(self) -> int:
        return len(self._documents)

    def __contains__(self, name: object) -> bool:
        return name in self._documents


def missing_head(promise: str) -> CheckpointError:
    """The error of weights without the head that their config promises.

    Args:
        promise: what the config says, in words.
    """
    return CheckpointError(
        f"the head is missing: {promise}, and the weights hold none",
        fix="get the file with its head, or take the features: --no-head, or load(path, config={'head': False})",
    )


def ordered_labels(names: Mapping[int, str], where: str) -> tuple[str, ...]:
    """The names of classes 0, 1, 2, …, in that order.

    Args:
        names: the classes' names by their numbers.
        where: they are said, for the message.

    Raises:
        CheckpointError: a number is left out.
    """
    missing = [str(number) for number in range(max(names, default=-1) + 1) if number not in names][:5]
    if missing or min(names, default=0) < 0:
        found = f"no class {', '.join(missing)}" if missing else f"a class {min(names)}"
        raise CheckpointError(
            f"{where} has gaps: {len(names)} names up to class {max(names)}, and {found}", fix=LABELS_FIX
        )
    return tuple(names[number] for number in range(len(names)))


def label_problems(labels: Sequence[str], classes: int) -> list[str]:
    """That there are labels, and of another number than the head's classes, in words."""
    if not labels or len(labels) == classes:
        return []
    return [f"{counted(labels)} in {CONFIG} for {classes} classes ({LABELS_FIX})"]


def counted(labels: Sequence[str]) -> str:
    """How many labels there are, in words."""
    return f"{len(labels)} label{'' if len(labels) == 1 else 's'}"


def without_head(checkpoint: Checkpoint) -> Checkpoint:
    """The same model up to its head, which gives features; itself if it has none."""
    config = checkpoint.config
    if not config.include_top:
        return checkpoint
    bare = config.replace(include_top=False, num_classes=0, pooling=config.effective_pooling, head_norm=False)
    made = dataclasses.replace(
        checkpoint,
        config=bare,
        weights={name: weight for name, weight in checkpoint.weights.items() if not name.startswith("head.")},
        labels=(),
        ranges={name: ends for name, ends in checkpoint.ranges.items() if not name.startswith("head.")},
    )
    return made.with_step(STEP, num_classes=config.num_classes)


def with_recorded_labels(checkpoint: Checkpoint, file: TensorFile) -> Checkpoint:
    """The same model with the classes that its training has saved, where it has as many and no names of its own."""
    recorded = (file.documents.get(TRAINING) or {}).get(CLASSES, ())
    if checkpoint.labels or not checkpoint.config.include_top or len(recorded) != checkpoint.config.num_classes:
        return checkpoint
    return dataclasses.replace(checkpoint, labels=tuple(recorded))


def with_labels(checkpoint: Checkpoint, given: object) -> Checkpoint:
    """The same model with the names of classes that the user gives.

    Raises:
        CheckpointError: no list of texts, of another number than the classes, or for a model without a head.
    """
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise CheckpointError(f"the labels given are a {type(given).__name__}; expected a list", fix="give a list")
    labels = tuple(map(str, given))
    if not checkpoint.config.include_top:
        raise CheckpointError(
            f"{counted(labels)} given, and it has no head: it gives features", fix="leave --labels out"
        )
    if len(labels) != checkpoint.config.num_classes:
        raise CheckpointError(
            f"{counted(labels)} given for {checkpoint.config.num_classes} classes",
            fix="give one name a class, in the order of the outputs",
        )
    return dataclasses.replace(checkpoint, labels=labels).with_step(LABELS, stated=len(labels))


def read_labels(path: Path) -> list[str]:
    """Names of classes in a file: one a line, or as JSON a list, or an object from their numbers, as `id2label`.

    Raises:
        CheckpointError: no such file, no text, broken JSON, or numbers with gaps.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes", fix="give a file with one name a line")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CheckpointError(f"cannot read the labels {path}: {error.strerror}", fix="check the path") from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is no UTF-8 text", fix="give a file with one name a line") from error
    if path.suffix == ".json":
        # In an object, so that a list is parsed with the same checks.
        found = parse_json(f'{{"{LABELS}": {text}}}', str(path))[LABELS]
        with explained(str(path)):
            if isinstance(found, Mapping):
                inner = found.get("id2label", found)
                return list(ordered_labels({int(number): str(name) for number, name in inner.items()}, str(path)))
            if not isinstance(found, list):
                raise TypeError(f"expected a list or an object, found {type(found).__name__}")
            return [str(name) for name in found]
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if not lines or not all(lines):
        raise CheckpointError(
            f"{path} has lines without a name" if lines else f"{path} is empty", fix="one name a line"
        )
    return lines
