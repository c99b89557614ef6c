"""Prompts that names of classes are put into: the user's, and usual ones by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vit_deploy.errors import UsageError, did_you_mean
from vit_deploy.text.lines import lines_of
from vit_deploy.text.openai_templates import openai_templates

PLACE = "{}"
NAMED: Mapping[str, tuple[str, ...]] = {
    # Seven of the eighty that OpenAI published for ImageNet, which its notes on prompts single out.
    "openai-7": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    "siglip": ("this is a photo of {}.",),
}
OPENAI = "openai-80"  # all of them, which stand in a file of OpenCLIP's
LOWERED = frozenset({"siglip"})  # whose texts are in lower case, as SigLIP 2 was trained
USUAL = "a photo of a {}"


@dataclass(frozen=True)
class Prompt:
    """A text with a place for a class.

    Args:
        text: with `{}` for the name of the class.
        lowers: whether the whole is put in lower case.
    """

    text: str
    lowers: bool = False

    def of(self, label: str) -> str:
        """The text about one class."""
        filled = self.text.replace(PLACE, label)
        return filled.lower() if self.lowers else filled


def prompts(given: Sequence[str]) -> tuple[Prompt, ...]:
    """The prompts that a user names, spells out, or keeps in a file, one a line; each once.

    Raises:
        UsageError: a text without a place for the class, that is neither a name nor a file.
        DataError: a file that cannot be read, or with lines that have none.
        MissingEngineError, EngineError: OpenAI's eighty, where OpenCLIP is not installed or has none.
    """
    found: dict[Prompt, None] = {}
    for text in given or (USUAL,):
        if text in NAMED:
            found |= {Prompt(template, text in LOWERED): None for template in NAMED[text]}
        elif text == OPENAI:
            found |= {Prompt(template): None for template in openai_templates()}
        elif PLACE in text:
            found[Prompt(text)] = None
        elif Path(text).is_file():
            found |= {Prompt(line): None for line in lines_of(Path(text), "template")}
        else:
            hint = did_you_mean(text, [*NAMED, OPENAI]) if " " not in text else ""
            raise UsageError(
                f"the template {text!r} has no {PLACE} for the name of the class",
                fix="; ".join(filter(None, (f'write it as "{USUAL}"', hint))),
            )
    without = [prompt.text for prompt in found if PLACE not in prompt.text]
    if without:
        raise UsageError(
            f"the template {without[0]!r} has no {PLACE} for the name of the class", fix=f'write it as "{USUAL}"'
        )
    return tuple(found)
