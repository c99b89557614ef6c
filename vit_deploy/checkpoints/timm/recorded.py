"""The architecture that a training has saved beside the weights, where these are of that one's shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_deploy.checkpoints.assumed import Assumed
from vit_deploy.checkpoints.containers.torch_training import MODEL, OPTIONS
from vit_deploy.checkpoints.source import TRAINING, TensorFile
from vit_deploy.checkpoints.timm.architectures import Architecture, architectures, traits_of, unsupported
from vit_deploy.checkpoints.timm.bare import FIELD, OTHERWISE
from vit_deploy.checkpoints.timm.config import Hub, hub_of

SIZES = ("patch_size", "embed_dim", "num_layers", "mlp_dim")


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What a training says of its model.

    Args:
        hub: what its name stands for.
        supposed: that the name is right, which the weights do not show.
    """

    hub: Hub
    supposed: tuple[Assumed, ...]


def recorded_by_training(file: TensorFile, shapes: Mapping[str, Any]) -> Recorded | None:
    """What the training says of the model; None where it says nothing, or something that is not of these weights.

    Raises:
        CheckpointError: an architecture, or options of it, that compute what no config here can say.
    """
    said = file.documents.get(TRAINING) or {}
    options = said.get(OPTIONS) or {}
    names = {str(name).partition(".")[0] for name in said.get(MODEL) or ()}
    fitting = [known for known in architectures() if known.name in names and _fits(known, shapes, bool(options))]
    if len({known.name for known in fitting}) != 1:
        return None
    chosen = next((known for known in fitting if known.traits == traits_of(shapes)), fitting[0])
    hub = hub_of(chosen.name, {"model_args": options}) if options else _of_a_row(chosen)
    why = f"the training that saved it names it, and the weights alone do not show it; {OTHERWISE}"
    hub = dataclasses.replace(hub, named={**hub.named, **hub.fields}, fields={}, data=None)
    return Recorded(hub, (Assumed(FIELD, chosen.name, why),))


def _fits(architecture: Architecture, shapes: Mapping[str, Any], otherwise: bool) -> bool:
    """Whether weights are of these sizes, and of the same kinds unless it was made otherwise than it is by default."""
    same = all(getattr(architecture, name) == shapes[name] for name in SIZES)
    return same and (otherwise or not architecture.traits or architecture.traits == traits_of(shapes))


def _of_a_row(architecture: Architecture) -> Hub:
    if architecture.needs:
        raise unsupported(f"the {architecture.name} that its training names", [architecture.needs])
    return Hub(
        architecture=architecture,
        named={**architecture.fields, "pooling": architecture.pooling},
        sizes=(architecture.image_size,),
        pools_prefix=architecture.pools_prefix,
    )
