"""Classes that the user says in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.checkpoints.documents import HEAD, LABELS
from vit_deploy.checkpoints.reading import HEAD_FILE
from vit_deploy.errors import CheckpointError, UsageError
from vit_deploy.text.lines import checked_classes
from vit_deploy.text.prompts import Prompt, prompts

CLASSES = "classes"  # in what is stated: names of classes that the text tower reads
TEMPLATES = "templates"  # likewise: prompts, or names of some
TOKENIZER = "tokenizer"  # likewise: the folder or file of the tokenizer, where it is not beside the weights
OTHER_HEADS: Mapping[str, str] = {LABELS: "--labels", HEAD_FILE: "--head", HEAD: "--no-head"}


@dataclass(frozen=True)
class Words:
    """Classes in words.

    Args:
        classes: names, in the order of the outputs.
        prompts: that each is put into.
        tokenizer: the folder or file of the tokenizer; None for that beside the weights.
    """

    classes: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    tokenizer: Path | None = None

    @classmethod
    def taken_from(cls, stated: dict[str, Any]) -> Words | None:
        """What of this is stated, which is taken out of `stated`; None where there are no classes in words.

        Raises:
            UsageError: templates or a tokenizer without classes, another head or names beside them, or a template
                without a place for the class.
            DataError: classes that are empty, doubled, too many or no texts.
            CheckpointError: there is no tokenizer at the path given.
        """
        given, templates = stated.pop(CLASSES, None), stated.pop(TEMPLATES, ())
        tokenizer = stated.pop(TOKENIZER, None)
        if given is None:
            if extra := [name for name, value in (("--template", templates), ("--tokenizer", tokenizer)) if value]:
                raise UsageError(
                    f"{' and '.join(extra)} is about classes in words", fix="give their names: --classes FILE"
                )
            return None
        if others := [option for key, option in OTHER_HEADS.items() if stated.get(key) not in (None, True)]:
            raise UsageError(
                f"{' and '.join(others)} and --classes each say what the outputs are", fix="leave one of them out"
            )
        path = None if tokenizer is None else Path(tokenizer)
        if path is not None and not path.exists():
            raise CheckpointError(f"there is no tokenizer {path}", fix="give the folder with its files, or one of them")
        named = (templates,) if isinstance(templates, str) else templates
        if not isinstance(named, Sequence) or not all(isinstance(text, str) for text in named):
            raise UsageError(f"templates are {named!r}; expected texts", fix='give them as ["a photo of a {}"]')
        classes = given if isinstance(given, Sequence) else (given,)
        return cls(checked_classes(classes, "the classes given"), prompts(named), path)
