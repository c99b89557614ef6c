"""Checkpoints loaded from any container and dialect, and saved.

A container is opened by its first bytes, a dialect is detected from the names inside. Adding a dialect is one
file with a `Source` and one line in `SOURCES`; adding a container is one file with a `TensorFile` and one
line in `CONTAINERS`.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vit_deploy.checkpoints.adapters.found import adapted
from vit_deploy.checkpoints.adapters.merged import Merged
from vit_deploy.checkpoints.assumed import FILE_FACT, LEFT_OUT, WEIGHTS, Assumed, assumed, assumptions, in_words
from vit_deploy.checkpoints.containers.torch_modules import UNREAD
from vit_deploy.checkpoints.documents import (
    ADAPTER,
    ARCHITECTURE,
    HEAD,
    LABELS,
    PREPROCESS,
    read_config,
    stated_preprocess,
)
from vit_deploy.checkpoints.folder import open_beside, weight_files, weights_in
from vit_deploy.checkpoints.heads import (
    WITHOUT_HEAD,
    WITHOUT_LABELS,
    Restated,
    read_labels,
    with_labels,
    with_recorded_labels,
    without_head,
)
from vit_deploy.checkpoints.hub import Located, locate
from vit_deploy.checkpoints.huggingface.aimv2_originals import as_transformers_keeps_it
from vit_deploy.checkpoints.huggingface.processors import without_processor
from vit_deploy.checkpoints.huggingface.source import check_model_type
from vit_deploy.checkpoints.huggingface.tipsv2 import in_transformers_names
from vit_deploy.checkpoints.keras.folding import FoldingError
from vit_deploy.checkpoints.paths import SUFFIXES, checked_path, detected_container
from vit_deploy.checkpoints.reading import HEAD_FILE, IGNORE, WEIGHTS_KEY, Reading, options_of_files
from vit_deploy.checkpoints.source import KEY_END, MODULES, OwnConfigError, Source, Stated, TensorFile
from vit_deploy.checkpoints.text_towers import CLASSES, Words, with_words
from vit_deploy.checkpoints.timm.naflex import at_one_size
from vit_deploy.checkpoints.timm.named import check_named, named
from vit_deploy.checkpoints.timm.wrapper import Wrapped, as_timm_keeps_it
from vit_deploy.checkpoints.wrapping.heads import LinearHead, head_in, head_names, linear_head, with_head
from vit_deploy.checkpoints.wrapping.runs import Taken
from vit_deploy.checkpoints.wrapping.strangers import stranger
from vit_deploy.checkpoints.wrapping.view import Unwrapped, unwrapped
from vit_deploy.checkpoints.writing import DIALECTS, WRITERS, check_folder_target, check_target, save, save_as
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.origin import REQUIRE_LICENCE, check_licence, licence_in
from vit_deploy.core.provenance import Step
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.core.resize import follows_size
from vit_deploy.errors import CheckpointError, ConfigError

__all__ = [
    "ADAPTER",
    "ARCHITECTURE",
    "CONTAINERS",
    "DIALECTS",
    "HEAD",
    "HEAD_FILE",
    "IGNORE",
    "LABELS",
    "PREPROCESS",
    "REQUIRE_LICENCE",
    "SOURCES",
    "WEIGHTS_KEY",
    "WRITERS",
    "Assumed",
    "FoldingError",
    "assumed",
    "assumptions",
    "check_folder_target",
    "check_target",
    "in_words",
    "kind_of_file",
    "load",
    "locate",
    "options_of_files",
    "read_at",
    "read_config",
    "read_labels",
    "save",
    "save_as",
    "stated_preprocess",
    "with_labels",
]

CONTAINERS = Registry(
    "container",
    {
        "keras": Plugin("vit_deploy.checkpoints.containers.keras_zip:open_keras", extra="cpu", needs=("h5py",)),
        "h5": Plugin("vit_deploy.checkpoints.containers.h5:open_h5", extra="cpu", needs=("h5py",)),
        "safetensors": Plugin("vit_deploy.checkpoints.containers.safetensors_file:open_safetensors"),
        "npz": Plugin("vit_deploy.checkpoints.containers.npz:open_npz"),
        "torch": Plugin("vit_deploy.checkpoints.containers.torch_file:open_torch"),
    },
)

# Asked in this order whether a file is theirs; they need nothing but NumPy. "keras" answers for every `.keras`
# file that nobody before it has taken.
SOURCES = Registry(
    "checkpoint source",
    {
        "google": Plugin("vit_deploy.checkpoints.google:GoogleSource"),
        "timm": Plugin("vit_deploy.checkpoints.timm.source:TimmSource"),
        "open_clip": Plugin("vit_deploy.checkpoints.renamed.open_clip:open_clip"),
        "torchvision": Plugin("vit_deploy.checkpoints.renamed.torchvision:torchvision"),
        "mmpretrain": Plugin("vit_deploy.checkpoints.renamed.mmpretrain:mmpretrain"),
        "monai": Plugin("vit_deploy.checkpoints.renamed.monai:monai"),
        "vit-pytorch": Plugin("vit_deploy.checkpoints.renamed.vit_pytorch:vit_pytorch"),
        "jeonsworld": Plugin("vit_deploy.checkpoints.renamed.jeonsworld:jeonsworld"),
        "pytorch_pretrained_vit": Plugin("vit_deploy.checkpoints.renamed.lukemelas:lukemelas"),
        "dl_techniques": Plugin("vit_deploy.checkpoints.keras.dl_techniques:DlTechniquesSource"),
        "keras-hub": Plugin("vit_deploy.checkpoints.keras.keras_hub:KerasHubSource"),
        "keras-hub-towers": Plugin("vit_deploy.checkpoints.keras.keras_hub_towers:KerasHubTowerSource"),
        "keras": Plugin("vit_deploy.checkpoints.keras.source:KerasSource"),
        "safetensors": Plugin("vit_deploy.checkpoints.safetensors:SafetensorsSource"),
        "keras-weights": Plugin("vit_deploy.checkpoints.keras.source:KerasWeightsSource"),
        "huggingface": Plugin("vit_deploy.checkpoints.huggingface.source:HuggingFaceSource"),
    },
)


def load(path: str | Path | Located, *, config: ViTConfig | Mapping[str, Any] | None = None) -> Checkpoint:
    """The checkpoint in a file, in a folder, or on a hub. Nothing in it is ever executed.

    Args:
        path: the path of a weight file, or of a folder that holds one and the configs beside it; or the name of a model
            on a hub, as "hf:org/name@revision", "hf:org/name/model.safetensors", "timm:NAME.TAG" or "keras:PRESET",
            which is fetched into the hub's cache; or what `locate` has found of either.
        config: the function that the weights belong to, whole or some fields of it, for what the files do not say;
            `preprocess` in it has fields of the preprocessing and `labels` names of the classes, in place of those
            that the files say; with `head` False the model is read without its head, and gives features;
            `architecture` is timm's name of what the files do not name, and `adapter` the folder of a LoRA adapter that
            is merged; one beside the weights is merged without being asked; `weights` is the key of the model that is
            taken of several, `tower` a part of the path of the encoder, `ignore` patterns of names that are left out,
            and `head_file` a file with the head alone; `classes` has names that the model's text tower reads for a head
            of them, each in the `templates`, and `tokenizer` the folder of its tokenizer; `require_licence` has
            licences, of which it needs one.

    Raises:
        CheckpointError: no such file, no checkpoint, of no known dialect, damaged, or not fitting its config, such as
            weights without the head that it promises, or labels of another number than the classes.
        FoldingError: a Keras model around a ViT that is not just a new head on it.
        HubError: a name that leads to no model, or one that cannot be fetched.
        LicenceError: a model whose licence is none of those required.
        MissingEngineError: a container, a hub or a tokenizer whose library is not installed.
        DataError, UsageError: classes or templates that cannot be.
    """
    stated = config.to_dict() if isinstance(config, ViTConfig) else dict(config or {})
    required = stated.pop(REQUIRE_LICENCE, ())
    located = path if isinstance(path, Located) else locate(Path(path), required, words=CLASSES in stated)
    loaded = _load(checked_path(located.path), stated, located.origin.source)
    if located.origin.step is not None:
        loaded = dataclasses.replace(loaded, provenance=(located.origin.step, *loaded.provenance))
    check_licence(licence_in(loaded.provenance), required, located.origin.source or str(located.path))
    return loaded


def read_at(
    image_size: tuple[int, int] | None,
    loaded: Checkpoint,
    path: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """A checkpoint that is to be resized, read once more where its positions are those of the size it is read at.

    Its own program computes them for the size of the images, or resamples a table of another grid for it.

    Args:
        image_size: (height, width) that is wanted; None for its own.
        loaded: what `load` gave.
        path: as `load` took it.
        config: as `load` took it.

    Raises:
        VitDeployError: as `load` does.
    """
    if image_size in (None, loaded.config.image_size) or not follows_size(loaded):
        return loaded
    try:
        return load(path, config={**(config or {}), "image_size": image_size})
    except OwnConfigError:  # saved here since, where the positions are weights like others
        return loaded


def kind_of_file(path: Path) -> str:
    """What the name of the file with the weights ends in, as "safetensors" or "pth.tar"; else the key of its container.

    Args:
        path: of a checkpoint that can be read, a file or a folder.
    """
    file = weight_files(path)[0]
    found = [suffix.removeprefix(".") for suffix in SUFFIXES if file.name.endswith(suffix)]
    return found[0] if found else detected_container(file)


def _load(path: Path, stated: dict[str, Any], name: str) -> Checkpoint:
    """The checkpoint in a file or a folder.

    Args:
        path: that is there.
        stated: as `load` takes it.
        name: of the model on a hub, for messages; empty of one that has none.
    """
    words = Words.taken_from(stated)
    preprocess, labels = stated.pop(PREPROCESS, None), stated.pop(LABELS, None)
    reading = Reading.taken_from(stated)
    architecture, adapter = stated.pop(ARCHITECTURE, None), stated.pop(ADAPTER, None)
    taken = weights_in(path) if path.is_dir() else Taken(path)
    given, path = path, taken.path
    try:
        with open_beside(path, _opened) as opened:
            # What an adapter belongs to is told by names, which keys in front of them would hide.
            keyed = any(KEY_END in name for name in opened.names())
            inner = _model_in(opened, reading) if keyed else opened
            with adapted(inner, adapter, _opened) as base:
                view = base if keyed else _model_in(base, reading)
                wrapped = as_timm_keeps_it(without_processor(view, preprocess))
                own = as_transformers_keeps_it(in_transformers_names(named(wrapped, architecture)))
                file = at_one_size(own, stated)
                source = _source(file)
                check_named(file, source, SOURCES.load("timm"))
                loaded = _read(source, file, {**_of_modules(inner if keyed else view), **stated}, reading, labels)
                around = wrapped.left_out if isinstance(wrapped, Wrapped) else ()
                loaded = _with_origin(loaded, inner if keyed else view, taken, given, around)
                if isinstance(base, Merged):
                    loaded = loaded.with_step(ADAPTER, **base.note)
                loaded = with_recorded_labels(loaded, inner)
                if words is not None:
                    loaded = with_words(loaded, inner if keyed else view, words)
        if not reading.head and source.heads is None:
            loaded = without_head(loaded)
        if labels is not None:
            loaded = with_labels(loaded, labels)
        if preprocess is None:
            return loaded
        stated_now = stated_preprocess(loaded.preprocess, preprocess)
        return dataclasses.replace(loaded, preprocess=stated_now).with_step(PREPROCESS, stated=preprocess)
    except (CheckpointError, ConfigError) as error:
        # What is wrong with the file as a whole names it already.
        shown = name or str(path)
        message = error.message if error.message.startswith(str(path)) else f"{shown}: {error.message}"
        raise type(error)(message, fix=error.fix) from error


def _model_in(file: TensorFile, reading: Reading) -> TensorFile:
    try:
        return unwrapped(file, reading, lambda shown: _detected(shown) is not None)
    except CheckpointError:
        check_model_type(file)  # stages of a network that is no ViT look like several models
        raise


def _of_modules(file: TensorFile) -> Stated:
    """What the module that was pickled with its tensors says of its function; nothing of a state dict.

    Raises:
        CheckpointError: it computes what no config here can say.
    """
    modules = file.documents.get(MODULES) if isinstance(file, Unwrapped) and file.container == "torch" else None
    found: Stated = (modules or {}).get(file.choice.model.keys, {}) if isinstance(file, Unwrapped) else {}
    if unread := found.get(UNREAD):
        raise CheckpointError(
            f"the model that was saved with its classes has {', '.join(unread)}, which no ViT here computes",
            fix="give a model without it",
        )
    return found


def _read(source: Source, file: TensorFile, stated: Stated, reading: Reading, labels: object) -> Checkpoint:
    """The checkpoint of a dialect, with the head that it has a name for, or with another."""
    foreign = head_names(file.names(), source.heads)
    apart = reading.head_file is not None or bool(foreign) or not reading.head
    said = WITHOUT_HEAD if apart else WITHOUT_LABELS if labels is not None else {}
    shown = Restated(file, said, _hidden(source, foreign) if apart else None) if said else file
    loaded = source.read(shown, stated)
    if reading.head_file is not None:
        return with_head(loaded, _head_of(reading.head_file))
    if foreign and reading.head:
        return with_head(loaded, linear_head(file, foreign, f"the head {foreign[0].rpartition('.')[0]}"))
    return loaded


def _with_origin(
    checkpoint: Checkpoint, file: TensorFile, taken: Taken, given: Path, around: Iterable[str]
) -> Checkpoint:
    """With the import saying which file was taken of a folder, which weights of a file, and what was left out."""
    *before, last = checkpoint.provenance or (Step("import"),)
    facts = dict(last.facts)
    if taken.why:
        name = str(taken.path.relative_to(given))
        facts[FILE_FACT] = {"name": name, "why": taken.why, "others": list(taken.others)}
    beside = [*around]
    if isinstance(file, Unwrapped):
        if file.choice.facts:
            facts[WEIGHTS] = file.choice.facts
        beside += file.left_out
    if beside:
        facts[LEFT_OUT] = [*facts.get(LEFT_OUT, ()), *beside]
    if facts == last.facts:
        return checkpoint
    return dataclasses.replace(checkpoint, provenance=(*before, Step(last.action, facts)))


def _hidden(source: Source, foreign: Iterable[str]) -> re.Pattern[str] | None:
    """What is found in the names of a head's tensors, under whatever name."""
    patterns = [f"^{re.escape(name)}$" for name in foreign] + ([source.heads.pattern] if source.heads else [])
    return re.compile("|".join(patterns)) if patterns else None


def _head_of(path: Path) -> LinearHead:
    with _opened(checked_path(path)) as file:
        return head_in(file, path)


@contextmanager
def _opened(path: Path) -> Iterator[TensorFile]:
    with CONTAINERS.load(detected_container(path))(path) as file:
        yield file


def _detected(file: TensorFile) -> Source | None:
    for name in SOURCES:
        source: Source = SOURCES.load(name)()
        if source.detects(file):
            return source
    return None


def _source(file: TensorFile) -> Source:
    source = _detected(file)
    if source is not None:
        return source
    if known := stranger(file):
        raise known
    first = ", ".join(itertools.islice(file.names(), 4))
    raise CheckpointError(
        f"it is of no known dialect; its first tensors are {first or 'none'}",
        fix=f"known are {', '.join(SOURCES)}",
    )
