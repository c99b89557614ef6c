"""What a training has saved beside the weights: the model's name, its options, and the names of the classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vit_deploy.checkpoints.containers.torch_pickle import Inert

MODEL, OPTIONS, CLASSES, CONFIG = "model", "options", "classes", "config"
"""Entries of what is found: a name, a mapping, a list of texts, the text of a config."""

NAMES = ("arch", "architecture", "model", "model_name", "backbone", "backbone_name", "encoder", "timm_model")
"""Keys under which trainings keep the name of their model."""

RECORDS = ("args", "hyper_parameters", "hparams", "config", "cfg", "opt")  # keys of what a training was told
MODEL_OPTIONS = ("model_kwargs", "model_args")  # keys in these
POOLING = "gp"  # timm's option for the pooling
MAX_CLASSES = 1 << 20
MAX_TEXT = 1 << 10
MAX_CONFIG = 1 << 18  # characters


def training_of(value: Any) -> dict[str, Any]:
    """What the value of a torch file says about its training, of `MODEL`, `OPTIONS`, `CLASSES` and `CONFIG`.

    Several names of a model, of which nobody says which is meant, are all given: in a list.
    """
    if not isinstance(value, dict):
        return {}
    records = [value, *(record for key in RECORDS if (record := _entries(value.get(key))))]
    names = list(dict.fromkeys(name for record in records for name in _names(record)))
    options: dict[str, Any] = {}
    for record in records[1:]:
        options |= next((found for key in MODEL_OPTIONS if (found := _entries(record.get(key)))), {})
        if isinstance(record.get(POOLING), str):
            options["global_pool"] = record[POOLING]
    model = {MODEL: names, OPTIONS: options} if names else {}
    meta = _entries(value.get("meta"))
    classes, text = _classes(meta), _config(meta)
    return {**model, **({CLASSES: classes} if classes else {}), **({CONFIG: text} if text else {})}


def _names(record: Mapping[Any, Any]) -> Iterator[str]:
    for key in NAMES:
        if isinstance(name := record.get(key), str) and 0 < len(name) < MAX_TEXT:
            yield name


def _classes(meta: Mapping[Any, Any]) -> list[str]:
    """The classes that mmengine and, before it, mmcv keep."""
    inner = _entries(meta.get("dataset_meta"))
    found = next((names for names in (inner.get("classes"), inner.get("CLASSES"), meta.get("CLASSES")) if names), ())
    if not isinstance(found, Sequence) or isinstance(found, str | bytes) or len(found) > MAX_CLASSES:
        return []
    return list(found) if all(isinstance(name, str) for name in found) else []


def _config(meta: Mapping[Any, Any]) -> str:
    """The config that mmengine and, before it, mmcv keep as a text of Python."""
    texts = (meta.get(key) for key in ("cfg", "config"))
    return next((text for text in texts if isinstance(text, str) and len(text) <= MAX_CONFIG), "")


def _entries(value: Any) -> Mapping[Any, Any]:
    if isinstance(value, dict):
        return value
    return value.attributes if isinstance(value, Inert) else {}
