"""Our own safetensors files: canonical names, and everything else of a checkpoint as JSON in the metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vit_deploy.checkpoints.containers.safetensors_file import write_safetensors
from vit_deploy.checkpoints.documents import as_list, as_ranges, explained, parse_json
from vit_deploy.checkpoints.gathering import gather
from vit_deploy.checkpoints.importing import alone
from vit_deploy.checkpoints.source import Stated, TensorFile, settled_config
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.provenance import Step
from vit_deploy.errors import CheckpointError

FORMAT = "vit-deploy"
VERSION = "1"
CANONICAL = {"patch_embed.kernel", "pos_embed.table"}  # names that no other dialect has


class SafetensorsSource:
    """Written by `write`; or canonical weights from elsewhere, with a config given."""

    heads = None

    def detects(self, file: TensorFile) -> bool:
        """Whether the metadata or the names are ours."""
        ours = file.documents.get("format") == FORMAT or set(file.names()) >= CANONICAL
        return file.container == "safetensors" and ours

    def read(self, file: TensorFile, stated: Stated) -> Checkpoint:
        """The checkpoint, whose weights have the digest that was recorded when they were written."""
        texts = file.documents
        if texts.get("format") != FORMAT:
            settled = settled_config(None, stated)
            return alone(settled, _weights(file, settled))
        if texts.get("version") != VERSION:
            raise CheckpointError(
                f"its version is {texts.get('version')}, this version of vit-deploy reads {VERSION}",
                fix="update vit-deploy",
            )
        with explained("its metadata"):
            settled = settled_config(ViTConfig.from_dict(parse_json(texts["config"], "its config")), stated)
            preprocess = Preprocess.from_dict(parse_json(texts["preprocess"], "its preprocess"))
            labels = tuple(map(str, as_list(json.loads(texts["labels"]))))
            provenance = tuple(map(Step.from_dict, as_list(json.loads(texts["provenance"]))))
            ranges = as_ranges(json.loads(texts.get("ranges", "{}")))
            recorded = texts["weights_digest"]
        checkpoint = Checkpoint(settled, _weights(file, settled), preprocess, labels, provenance, ranges)
        if _as_written(file) and (found := checkpoint.digest()) != recorded:
            raise CheckpointError(
                f"its weights were changed after they were written: digest {found}, recorded {recorded}",
                fix="the file is damaged: get it again",
            )
        return checkpoint


def _weights(file: TensorFile, config: ViTConfig) -> dict[str, Any]:
    return gather(file, {name: name for name in file.names()}, config)


def _as_written(file: TensorFile) -> bool:
    # Somebody may have halved the file with another tool, which keeps the metadata: then the digest is another.
    return all(file.dtype(name) == "F32" for name in file.names())


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint with everything that travels with it; the same one gives the same bytes."""
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "config": _json(checkpoint.config.to_dict()),
        "preprocess": _json(checkpoint.preprocess.to_dict()),
        "labels": _json(list(checkpoint.labels)),
        "provenance": _json([step.to_dict() for step in checkpoint.provenance]),
        "weights_digest": checkpoint.digest(),
    }
    if checkpoint.ranges:
        metadata["ranges"] = _json({name: list(values) for name, values in checkpoint.ranges.items()})
    write_safetensors(path, checkpoint.weights, metadata)


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
