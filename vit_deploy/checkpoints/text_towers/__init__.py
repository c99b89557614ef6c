"""Text towers beside the encoders of images in checkpoints, and the classifiers that they make of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_deploy.checkpoints.assumed import SUPPOSED, Assumed
from vit_deploy.checkpoints.hub.progress import tell
from vit_deploy.checkpoints.source import TensorFile, TensorView
from vit_deploy.checkpoints.text_towers import open_clip, transformers
from vit_deploy.checkpoints.text_towers.found import Found
from vit_deploy.checkpoints.text_towers.words import CLASSES, TEMPLATES, TOKENIZER, Words
from vit_deploy.checkpoints.wrapping.view import Unwrapped
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.provenance import Step
from vit_deploy.errors import CheckpointError
from vit_deploy.text.classifier import STEP, classifier

__all__ = ["CLASSES", "TEMPLATES", "TOKENIZER", "Words", "with_words"]

SHOWN = 60  # characters of a text that was cut
READ = "those of CLIP, MetaCLIP 2, SigLIP and SigLIP 2 in transformers' files, of OpenAI's CLIP, and OpenCLIP's own"


@dataclasses.dataclass(frozen=True)
class Whole(TensorView):
    """A `TensorFile` of all that is in one state dict.

    Args:
        file: that is read.
        stored: name in the file, by the name in the state dict.
    """

    stored: Mapping[str, str]

    @property
    def documents(self) -> Mapping[str, Any]:
        """Of the file."""
        return self.file.documents

    def names(self) -> Any:
        """Names of all tensors of the state dict."""
        return self.stored.keys()

    def stored_name(self, name: str) -> str:
        """The name in the file of a tensor."""
        return self.stored[name]


def with_words(checkpoint: Checkpoint, file: TensorFile, words: Words) -> Checkpoint:
    """The encoder of images with a head for the classes that are said in words.

    Args:
        checkpoint: the encoder.
        file: that it was read from, or the view of one model in it.
        words: the classes.

    Raises:
        CheckpointError: no text tower that can be read, or one that is damaged; no tokenizer, or another model's.
        MissingEngineError: a library that tokenizers need is not installed.
    """
    whole = Whole(file.file, file.choice.model.names) if isinstance(file, Unwrapped) else file
    found = _found(whole, checkpoint)
    tower = found.tower()
    tell("reading the tokenizer")
    tokenizer = found.tokenizer(whole.path.parent if words.tokenizer is None else words.tokenizer)
    made = classifier(checkpoint, tower, tokenizer, words.classes, words.prompts, progress=tell)
    return _with_notes(made, found)


def _found(file: TensorFile, checkpoint: Checkpoint) -> Found:
    names = frozenset(file.names())
    for detect in (transformers.found, open_clip.found):
        if (found := detect(file, names, checkpoint.config)) is not None:
            return found
    raise CheckpointError(
        "it has no text tower that reads the names of classes", fix=f"give a whole model; read are {READ}"
    )


def _with_notes(checkpoint: Checkpoint, found: Found) -> Checkpoint:
    """With the import saying what was assumed of texts, and no longer that their tower is left out."""
    facts = next(step.facts for step in reversed(checkpoint.provenance) if step.action == STEP)
    notes = [note.to_dict() for note in found.assumed]
    if "cut" in facts:
        first = str(facts["cut"][0])
        shown = first if len(first) <= SHOWN else f"{first[:SHOWN]}…"
        why = f"its {facts['context']} tokens are what the text tower takes; what follows in {shown!r} was not read"
        notes.append(Assumed("texts cut off", facts["cut_texts"], why).to_dict())
    if "alike" in facts:
        names = " and ".join(repr(name) for name in facts["alike"][0])
        more = len(facts["alike"]) - 1
        why = (
            f"the tokenizer reads {names} as the same{f', and {more} others' if more else ''}: their answers are equal"
        )
        notes.append(Assumed("classes that are not told apart", len(facts["alike"]), why).to_dict())
    provenance = []
    for step in checkpoint.provenance:
        if step.action == "import":
            said = {name: value for name, value in step.facts.items() if name != "left_out"}
            left_out = [what for what in step.facts.get("left_out", ()) if what != "text tower"]
            said |= {"left_out": left_out} if "left_out" in step.facts else {}
            said |= {SUPPOSED: [*step.facts.get(SUPPOSED, ()), *notes]} if notes else {}
            provenance.append(Step(step.action, said))
        else:
            provenance.append(step)
    return dataclasses.replace(checkpoint, provenance=tuple(provenance))
