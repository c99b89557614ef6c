"""The tensors of one model, without what a training has wrapped around them.

A training puts prefixes before all names, other models beside, losses, metrics and heads of its own. The view here
shows the names as the model's own program has them, for whatever dialect reads them next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vit_deploy.checkpoints.adapters.config import MERGE
from vit_deploy.checkpoints.reading import Reading
from vit_deploy.checkpoints.safetensors import CANONICAL
from vit_deploy.checkpoints.source import KEY_END, STATE_DICTS, TensorFile, TensorView
from vit_deploy.checkpoints.wrapping.companions import companions, ignored, in_words
from vit_deploy.checkpoints.wrapping.models import Choice, Model, chosen, common_prefix, models_in
from vit_deploy.checkpoints.wrapping.stored import as_plain
from vit_deploy.checkpoints.wrapping.strangers import refuse_empty, refuse_quantized, stranger
from vit_deploy.errors import CheckpointError

MATRICES = re.compile(rf"(^|[.{KEY_END}])lora_[AB]\b|\.base_layer\.")
Detects = Callable[[TensorFile], bool]


@dataclass(frozen=True)
class Unwrapped(TensorView):
    """A `TensorFile` of one model of a file.

    Args:
        file: that is read.
        stored: name in the file, by the name here.
        choice: which model it is.
        left_out: what stands beside it and is not shown, in words.
    """

    stored: Mapping[str, str]
    choice: Choice
    left_out: tuple[str, ...] = ()

    @property
    def documents(self) -> Mapping[str, Any]:
        """Of the file."""
        return self.file.documents

    def names(self) -> Iterable[str]:
        """Names as the model's own program has them."""
        return self.stored.keys()

    def stored_name(self, name: str) -> str:
        """The name in the file of a tensor."""
        return self.stored[name]


def unwrapped(file: TensorFile, reading: Reading, detects: Detects) -> TensorFile:
    """The model of a file that is read; the file itself where it is not of a kind that trainings write.

    Args:
        file: with the names that it has.
        reading: what the user says.
        detects: whether some dialect knows the names of a file.

    Raises:
        CheckpointError: several models of which nothing says which is meant, a key that none has, or a pattern of
            names that none has.
    """
    if file.container not in STATE_DICTS or set(file.names()) >= CANONICAL:
        if reading.options:
            raise CheckpointError(
                f"it holds one model alone, and {' and '.join(reading.options)} is given", fix="leave it out"
            )
        return file
    file = as_plain(file)
    dropped = ignored(file.names(), reading.ignore)
    kept = [name for name in file.names() if name not in dropped]
    models = models_in(kept)
    try:
        choice = chosen(file, models, reading.weights, reading.tower)
    except CheckpointError:
        if reading.weights is reading.tower is None and "model_type" in (file.documents.get("config.json") or {}):
            return file  # transformers knows what these are, and whether it is a ViT at all
        if known := stranger(file):
            raise known from None
        raise
    model = choice.model
    _refuse_adapters_elsewhere(kept, model, models)
    held = [name for name in model.names if choice.owns(name)]
    refuse_quantized(file, [model.names[name] for name in held])
    refuse_empty(file, [model.names[name] for name in held])
    beside = companions(held, model.root)
    held = [name for name in held if name not in beside]
    common = common_prefix([*held, model.root] if model.known else held)
    stored = {name.removeprefix(common): model.names[name] for name in held}
    left_out = in_words({name.removeprefix(common): what for name, what in beside.items()})
    left_out += [f"what --ignore {pattern} says" for pattern in reading.ignore]
    views = (
        Unwrapped(file, dict(_without(stored, prefix)), choice, tuple(left_out))
        for prefix in _prefixes(model.root.removeprefix(common))
    )
    first = next(views)
    return first if detects(first) else next((view for view in views if detects(view)), first)


def _refuse_adapters_elsewhere(names: Iterable[str], model: Model, models: Sequence[Model]) -> None:
    """Refuse a model whose adapter is under another key, which nothing would merge.

    Raises:
        CheckpointError: there are matrices of an adapter that are no other model's.
    """
    held = {name for other in (model, *models) if other is model or other.known for name in other.names.values()}
    if found := next((name for name in names if name not in held and MATRICES.search(name)), None):
        raise CheckpointError(
            f"it holds an adapter that is not merged ({found.replace(KEY_END, '.')})",
            fix=f"{MERGE}; or leave it out: --ignore PATTERN",
        )


def _prefixes(root: str) -> Iterator[str]:
    """Beginnings of `root` in whole parts, from none to all."""
    parts = root.split(".")[:-1]
    for end in range(len(parts) + 1):
        yield "".join(f"{part}." for part in parts[:end])


def _without(stored: Mapping[str, str], prefix: str) -> Iterator[tuple[str, str]]:
    """Names without the prefix where they have it; what would then be there twice keeps its own."""
    for name, origin in stored.items():
        short = name.removeprefix(prefix)
        yield (name if short != name and short in stored else short), origin
