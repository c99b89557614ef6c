"""The stage whose features a backbone of transformers gives, by its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vit_deploy.checkpoints.documents import as_list, explained
from vit_deploy.core.config_checks import is_count
from vit_deploy.errors import CheckpointError

STEM, STAGE = "stem", "stage"


def is_backbone(document: Mapping[str, Any]) -> bool:
    """Whether the model gives feature maps of its stages."""
    architectures = document.get("architectures")
    return isinstance(architectures, list) and any(
        str(architecture).endswith("Backbone") for architecture in architectures
    )


def backbone_depth(document: Mapping[str, Any], num_layers: int) -> int:
    """How many blocks the one feature map that a backbone gives has behind it.

    Args:
        document: config.json.
        num_layers: blocks of the whole encoder.

    Raises:
        CheckpointError: a backbone of several feature maps, of none behind a block, or of stages that it does not have.
    """
    names = [STEM, *(f"{STAGE}{number}" for number in range(1, num_layers + 1))]
    with explained("config.json: out_features"):
        features, indices = document.get("out_features"), document.get("out_indices")
        if features is None and indices is not None:
            features = [names[index] for index in as_list(indices) if is_count(index)]
        stages = [str(feature) for feature in as_list(features)] if features is not None else names[-1:]
    if len(stages) != 1:
        raise CheckpointError(
            f"its config.json says out_features {', '.join(stages) or 'none'}: a backbone of {len(stages)} feature "
            "maps; expected one",
            fix=f"leave one of them in config.json, such as {names[-1]}, and take out_indices out",
        )
    if stages[0] not in names[1:]:
        raise CheckpointError(
            f"its config.json says out_features {stages[0]}; expected a stage from {names[1]} to {names[-1]}",
            fix=f"correct config.json; the whole encoder is {names[-1]}",
        )
    return names.index(stages[0])
