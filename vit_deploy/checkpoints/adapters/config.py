"""What an `adapter_config.json` of PEFT says about how its matrices are added to the weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vit_deploy.checkpoints.documents import explained
from vit_deploy.errors import CheckpointError

FILE = "adapter_config.json"
MERGE = "merge it where it was trained, with model.merge_and_unload(), and save the merged model"

# Fields that say nothing about what is computed once the matrices are known, or that are read here. `fan_in_fan_out` is
# for weights (inputs, outputs), which no ViT of torch has: of all others PEFT itself takes it for false.
KNOWN = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "bias", "exclude_modules", "fan_in_fan_out", "inference_mode"),
        *("init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core"),
        *("modules_to_save", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "alpha_pattern"),
        *("revision", "target_modules", "task_type", "use_rslora", "lora_bias", "ensure_weight_tying"),
        *("runtime_config", "eva_config", "use_dora"),
    }
)
# First values of the matrices that leave the base weights as they were; others subtract something from them first.
KEEPING_THE_BASE = (True, False, "gaussian", "eva", "orthogonal", None)


MAX_PATTERN, MAX_REPEATS = 200, 4
REPEATED_GROUP, REPEATS = re.compile(r"\)\s*[*+{]"), re.compile(r"[*+{]")


@dataclass(frozen=True)
class LoraConfig:
    """How the product of two matrices is added to a weight (Hu et al. 2021).

    Args:
        alpha: numerator of the scale.
        alphas: the numerators of modules that have another, by patterns of their names.
        rank_stabilized: whether the scale is alpha / sqrt(r) instead of alpha / r (Kalajdzievski 2023).
    """

    alpha: float
    alphas: Mapping[str, float]
    rank_stabilized: bool

    def scale(self, module: str, rank: int) -> float:
        """What the product of a module's matrices is multiplied by."""
        matching = (alpha for pattern, alpha in self.alphas.items() if re.match(rf"(.*\.)?({pattern})$", module))
        alpha = next(matching, self.alpha)
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank)


def lora_config(document: Mapping[str, Any]) -> LoraConfig:
    """The config of an adapter.

    Raises:
        CheckpointError: an adapter of another kind, or options that are more than a sum of products.
    """
    kind = document.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{FILE} says peft_type {kind!r}; expected LORA", fix=MERGE)
    problems = [f"{name} {value!r}" for name, value in document.items() if name not in KNOWN and value]
    if document.get("init_lora_weights", True) not in KEEPING_THE_BASE:
        problems.append(f"init_lora_weights {document['init_lora_weights']!r}")
    if problems:
        raise CheckpointError(f"{FILE} says {', '.join(problems)}, which is more than a LoRA's sum", fix=MERGE)
    with explained(FILE):
        alphas = {str(pattern): float(alpha) for pattern, alpha in (document.get("alpha_pattern") or {}).items()}
        for pattern in alphas:
            _check_pattern(pattern)
        return LoraConfig(
            alpha=float(document["lora_alpha"]),
            alphas=alphas,
            rank_stabilized=bool(document.get("use_rslora")),
        )


def _check_pattern(pattern: str) -> None:
    # A file may be anybody's: such patterns can take longer than the age of the universe.
    if len(pattern) > MAX_PATTERN or REPEATED_GROUP.search(pattern) or len(REPEATS.findall(pattern)) > MAX_REPEATS:
        raise ValueError(f"alpha_pattern {pattern[:MAX_PATTERN]!r} repeats more than names of modules need")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"alpha_pattern {pattern!r} is no pattern: {error}") from error
