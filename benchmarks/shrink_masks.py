"""Is it better to let each block keep a number of heads and units of its own, or all blocks the same?

Masks tell it without a format for such models: both ways, what does not stay is multiplied by zero while the rest is
trained, from the same model for as long. The numbers of each block follow from the importance of all parts together by
the multiply-adds that each takes, until as few are left as with the same numbers for all.
python -m benchmarks.shrink_masks MODEL.keras prints the fractions of the test images that are right, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADS, UNITS, EPOCHS = 2, 128, 40  # of the same numbers for all: half of both
FEWEST = 8  # units that a block keeps

Masks = Mapping[str, NDArray[np.float32]]
"""What each last projection of a half reads, 1 for what stays."""


def compare(model: Path) -> dict[str, Any]:
    """Both ways for one model, in plain JSON values. Keras 2 has to be chosen before TensorFlow is imported."""
    from vit_deploy import checkpoints
    from vit_deploy.compression import CompressOptions
    from vit_deploy.compression.data import open_images, split
    from vit_deploy.compression.importance import importance
    from vit_deploy.compression.job import as_artifact
    from vit_deploy.compression.shrinking import looked_at

    kind, _, seed = model.stem.partition("-")
    checkpoint = checkpoints.load(model)
    options = CompressOptions(
        "shrink", keep_heads=HEADS, keep_mlp=UNITS, epochs=EPOCHS, patience=0, schedule="constant", seed=int(seed)
    )
    images = split(
        open_images(model.with_name(f"{kind}-train.npz"), as_artifact(checkpoint, model)), options.held_out, int(seed)
    )
    found = importance(checkpoint, looked_at(checkpoint, images[0], int(seed)), options.temperature)
    same = (np.full(len(found.heads), HEADS), np.full(len(found.units), UNITS))
    own = _numbers(found.heads, found.units, checkpoint.config)
    result: dict[str, Any] = {"heads": own[0].tolist(), "units": own[1].tolist()}
    for way, (heads, units) in (("same", same), ("own", own)):
        masks = _masks(found.heads, found.units, heads, units, checkpoint.config.head_dim)
        result[way] = _trained(checkpoint, options, images, masks, model.with_name(f"{kind}-test.npz"))
    return result


def _numbers(heads: NDArray[Any], units: NDArray[Any], config: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Heads and units of each block, the least important ones by multiply-adds removed first."""
    tokens, dim, width = config.sequence_length, config.embed_dim, config.head_dim
    cost = {"heads": 4 * tokens * dim * width + 2 * tokens**2 * width, "units": 2 * tokens * dim}
    parts = [
        (value / cost[kind], kind, block)
        for kind, values in (("heads", heads), ("units", units))
        for block, of_block in enumerate(values)
        for value in of_block
    ]
    left = {"heads": np.full(len(heads), heads.shape[1]), "units": np.full(len(units), units.shape[1])}
    most = len(heads) * (HEADS * cost["heads"] + UNITS * cost["units"])
    for _, kind, block in sorted(parts):
        if sum(int(left[name].sum()) * cost[name] for name in cost) <= most:
            break
        if left[kind][block] > {"heads": 1, "units": FEWEST}[kind]:
            left[kind][block] -= 1
    return left["heads"], left["units"]


def _masks(heads: NDArray[Any], units: NDArray[Any], few: NDArray[Any], small: NDArray[Any], width: int) -> Masks:
    masks = {}
    for block, (of_heads, of_units) in enumerate(zip(heads, units, strict=True)):
        masks[f"block_{block}.attention.out"] = np.repeat(_largest(of_heads, few[block]), width)
        masks[f"block_{block}.ffn.down"] = _largest(of_units, small[block])
    return masks


def _largest(values: NDArray[Any], count: int) -> NDArray[np.float32]:
    mask = np.zeros(len(values), np.float32)
    mask[np.argsort(-values, kind="stable")[:count]] = 1
    return mask


def _trained(checkpoint: Any, options: Any, images: Any, masks: Masks, test: Path) -> float:
    import dataclasses

    from benchmarks.masked_method import Masked
    from vit_deploy.compression import METHODS, SHRINK, training
    from vit_deploy.compression.shrinking import pairs
    from vit_deploy.core.reference import forward
    from vit_deploy.core.registry import Plugin

    Masked.masks = masks
    layers = checkpoint.config.num_layers
    original = training.Original(checkpoint, pairs(range(layers), layers))
    masked_too = METHODS.with_entry(SHRINK, Plugin(f"{Masked.__module__}:{Masked.__name__}"))
    with masked_too, tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
        done = training.train(checkpoint, options, *images, state=Path(folder), fingerprint="masks", original=original)
    weights = {
        name: weight * masks[name.removesuffix(".kernel")][:, None] if name.removesuffix(".kernel") in masks else weight
        for name, weight in done.weights.items()
    }
    masked, seen = dataclasses.replace(checkpoint, weights=weights), np.load(test)
    logits = forward(masked, checkpoint.preprocess.normalize(seen["images"]), np.float32)
    return float(np.mean(logits.argmax(axis=-1) == seen["labels"]))


if __name__ == "__main__":
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "TF_USE_LEGACY_KERAS": "1"}
    print(json.dumps(compare(Path(sys.argv[1]))))
