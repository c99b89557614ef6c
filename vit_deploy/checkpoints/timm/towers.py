"""timm's models as the vision towers of OpenCLIP, by the `open_clip_config.json` beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from vit_deploy.checkpoints.documents import explained
from vit_deploy.checkpoints.renamed.open_clip import DOCUMENT, recorded
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.config_checks import as_pair
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.errors import CheckpointError

PROJECTIONS = ("", "none", "linear")  # of two layers no ViT here has one
USUAL = {"proj": "linear", "pool": "avg"}  # where nothing is said
MAKES_ITS_OWN = ("linear", "mlp")  # the model keeps its own pooling where none is said


@dataclass(frozen=True)
class Tower:
    """What OpenCLIP says of a vision tower of timm's.

    Args:
        architecture: timm's name.
        pooling: timm's name of the pooling; None for the architecture's own.
        sizes: (height, width) in pixels of the images.
        preprocess: the preprocessing for a config.
    """

    architecture: str
    pooling: str | None
    sizes: tuple[tuple[int, int], ...]
    preprocess: Callable[[ViTConfig], Preprocess]


def tower_of(documents: Mapping[str, Any]) -> Tower | None:
    """The tower that the config of OpenCLIP names; None where there is no such config, or another tower.

    Raises:
        CheckpointError: damaged, or a projection of two layers.
    """
    found = documents.get(DOCUMENT)
    document = found if isinstance(found, Mapping) else {}
    model = document.get("model_cfg")
    vision = model.get("vision_cfg") if isinstance(model, Mapping) else None
    if not isinstance(vision, Mapping) or not vision.get("timm_model_name"):
        return None
    with explained(DOCUMENT):
        projection, pooling = (str(vision.get(f"timm_{part}", usual) or "") for part, usual in USUAL.items())
        if projection not in PROJECTIONS:
            raise CheckpointError(
                f"{DOCUMENT} says timm_proj {projection!r}; expected one of {', '.join(filter(None, PROJECTIONS))}",
                fix="give a model whose projection is one linear layer",
            )
        sizes = (as_pair(vision["image_size"], "image_size"),) if vision.get("image_size") else ()
        said = dict(document.get("preprocess_cfg") or {})
        own = not pooling and projection in MAKES_ITS_OWN
        return Tower(str(vision["timm_model_name"]), None if own else pooling, sizes, partial(recorded, said))
