"""What the user states of a checkpoint, as `checkpoints.load` takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_deploy.checkpoints.documents import ADAPTER, ARCHITECTURE, HEAD, LABELS, PREPROCESS, read_config
from vit_deploy.checkpoints.heads import read_labels
from vit_deploy.checkpoints.reading import HEAD_FILE, IGNORE, TOWER, WEIGHTS_KEY
from vit_deploy.checkpoints.text_towers.words import CLASSES, TEMPLATES, TOKENIZER
from vit_deploy.core.options import CheckpointOptions
from vit_deploy.core.origin import REQUIRE_LICENCE
from vit_deploy.text.lines import lines_of

OF_THE_CONFIG = ("num_heads", "epsilon", "activation")  # options that are fields of the config under the same name
OF_A_MODEL = (ARCHITECTURE, ADAPTER)  # options that say which model a file holds, under the same name
OF_THE_FILE = (WEIGHTS_KEY, TOWER, IGNORE, HEAD_FILE, REQUIRE_LICENCE)  # options about a file, under the same name
OF_THE_PIXELS = ("mean", "std")  # options that are fields of the preprocessing


def stated_fields(options: CheckpointOptions) -> dict[str, Any]:
    """Fields of the config, the preprocessing, the labels and whether there is a head; an option wins over `config`.

    Raises:
        CheckpointError: a config file or a file of labels that cannot be read.
        DataError: a file of classes that cannot be read.
    """
    config = options.config
    stated: dict[str, Any] = read_config(Path(config)) if isinstance(config, str | Path) else dict(config or {})
    stated |= {name: value for name in OF_THE_CONFIG if (value := getattr(options, name)) is not None}
    stated |= {name: value for name in OF_A_MODEL if (value := getattr(options, name)) is not None}
    stated |= {name: value for name in OF_THE_FILE if (value := getattr(options, name))}
    pixels = {name: _listed(value) for name in OF_THE_PIXELS if (value := getattr(options, name)) is not None}
    if pixels:
        said = stated.get(PREPROCESS, {})
        stated[PREPROCESS] = {**said, **pixels} if isinstance(said, Mapping) else said
    if options.classes is not None:
        said = options.classes
        stated[CLASSES] = lines_of(Path(said), "class") if isinstance(said, str | Path) else list(said)
    if options.template:
        stated[TEMPLATES] = options.template
    if options.tokenizer is not None:
        stated[TOKENIZER] = options.tokenizer
    if options.labels is not None:
        named = options.labels
        stated[LABELS] = read_labels(Path(named)) if isinstance(named, str | Path) else list(named)
    return stated | ({HEAD: False} if options.no_head else {})


def _listed(value: float | Sequence[float]) -> list[float]:
    return list(value) if isinstance(value, Sequence) else [value]
