"""Census of timm's class Eva: every architecture narrow and two blocks deep, as timm saves it for the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_deploy.checkpoints import load
from vit_deploy.core.reference import forward
from vit_deploy.errors import CheckpointError

DEPTH, HEAD_DIM, PATCHES = 2, 8, (3, 4)


class Row(NamedTuple):
    """What became of one architecture.

    Args:
        name: timm's.
        error: the distance of the outputs by the largest one; None where it is refused.
        reason: why it is refused; empty for those that are read.
    """

    name: str
    error: float | None
    reason: str


def census(timm: Any, folder: Path) -> Iterator[Row]:
    """A row for every architecture that the library makes of this class."""
    for name in timm.list_models(module="eva"):
        model = make(timm, name)
        save(timm, model, folder / name)
        yield compared(name, model, folder / name)


def make(timm: Any, name: str, **changes: Any) -> Any:
    """An architecture with few features and blocks, and weights that each show in the output."""
    from tests.peers.make_timm_eva import arguments_of

    full = arguments_of(timm, name)
    heads, patch = full["num_heads"], full["patch_size"]
    arguments = {
        "depth": DEPTH,
        "embed_dim": heads * HEAD_DIM,
        "img_size": [side * patch for side in PATCHES],
        "num_classes": 7,
        **({"num_kv_heads": [heads, heads // 2]} if full["num_kv_heads"] is not None else {}),
        **changes,
    }
    model = timm.create_model(name, **arguments).eval()
    filled(model)
    model.census_arguments = arguments
    return model


def filled(model: Any) -> Any:
    """The same model with weights that each show in the output."""
    import torch

    rng = np.random.default_rng(5)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            drawn = rng.standard_normal(tuple(parameter.shape))
            is_scale = parameter.ndim == 1 and key.endswith((".weight", "gamma_1", "gamma_2"))
            spread = 0.25 if parameter.ndim < 2 or key == "rope.freqs" else 1.5 / parameter.shape[-1] ** 0.5
            parameter.copy_(torch.from_numpy(spread * drawn + is_scale))
    return model


def save(timm: Any, model: Any, folder: Path) -> None:
    """Write model.safetensors and config.json, as timm pushes them to the hub."""
    timm.models.save_for_hf(model, folder, safe_serialization=True, model_args=model.census_arguments)


def compared(name: str, model: Any, folder: Path, **config: Any) -> Row:
    """How far what is read of a folder is from the model that was saved there."""
    import torch

    try:
        checkpoint = load(folder, config=config or None)
    except CheckpointError as error:
        return Row(name, None, error.message)
    images = np.random.default_rng(9).standard_normal((2, *checkpoint.config.image_size, 3))
    with torch.no_grad():
        expected = model.double()(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    found = forward(checkpoint, images)
    return Row(name, float(np.abs(found - expected).max() / np.abs(expected).max()), "")
