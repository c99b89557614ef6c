"""Writes vit_deploy/checkpoints/timm/architectures.csv: what timm's architectures compute, read off the library.

Run from the repository's root where torch and timm are installed: python -m tests.peers.make_timm_architectures
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from tests import torchvision_stand_in
from vit_deploy.checkpoints.timm import architectures as timm_architectures
from vit_deploy.checkpoints.timm.eva_function import find_eva
from vit_deploy.checkpoints.timm.names import renamed
from vit_deploy.checkpoints.timm.shapes import shapes_of
from vit_deploy.checkpoints.timm.source import TimmSource
from vit_deploy.errors import VitDeployError

MODULES = (
    *("vision_transformer", "deit", "eva", "beit", "vision_transformer_relpos", "naflexvit"),
    *("vision_transformer_hybrid", "vision_transformer_sam"),
)
# Names of DeiT before it had a module of its own, which timm has forgotten and old files still say.
FORGOTTEN = {
    f"vit_{name}": name
    for name in (
        *("deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224", "deit_base_patch16_384"),
        *("deit_tiny_distilled_patch16_224", "deit_small_distilled_patch16_224", "deit_base_distilled_patch16_224"),
        "deit_base_distilled_patch16_384",
    )
}
ROTARY, RELATIVE = "rotary positions", "relative positions"
BY_CLASS = {
    "Eva": "the blocks of EVA",
    "VisionTransformerSAM": f"{RELATIVE} and windows",
}
BY_BLOCK = {
    "DiffParallelScalingBlock": "differential attention",
}
BY_ATTENTION = {"DiffAttention": "differential attention"}
ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "SiLU": "silu"}
POOLINGS = {"token": "cls", "avg": "mean", "max": "max", "map": "map", "": ""}
# Ways to make a network of EVA's kind whose tensors have the names of a plain ViT's.
VARIANTS: tuple[Mapping[str, Any], ...] = (
    {},
    {"global_pool": "avg"},
    {"global_pool": "token"},
    {"global_pool": "avg", "use_post_transformer_norm": True, "use_fc_norm": False},
    {"global_pool": "token", "use_post_transformer_norm": True},
)
COLUMNS = (
    *("name", "needs", "traits", "patch_size", "image_size", "embed_dim", "num_layers", "mlp_dim", "num_heads"),
    *("epsilon", "activation", "pooling", "pools_prefix", "normalization_position"),
)


class Shapes:
    """A `TensorFile` of zeros with the shapes of a model that is on no device."""

    path, container = Path("meta.safetensors"), "safetensors"
    documents: Mapping[str, Any] = {}

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = state

    @property
    def blocks(self) -> set[int]:
        return {int(name.split(".")[1]) for name in self._state if name.startswith("blocks.")}

    def names(self) -> list[str]:
        return list(self._state)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._state[name].shape)

    def dtype(self, name: str) -> str:
        return "F32"

    def read(self, name: str) -> np.ndarray[Any, Any]:
        return np.zeros(self.shape(name), np.float32)


def names_of(timm: Any) -> Iterator[tuple[str, str]]:
    """Every name of the modules, and the one that it stands for today."""
    for module in MODULES:
        yield from ((name, name) for name in timm.list_models(module=module))
        old = timm.models._registry._module_to_deprecated_models[module]
        yield from ((name, today.partition(".")[0]) for name, today in old.items() if today)
    yield from FORGOTTEN.items()


def rows_of(timm: Any, name: str, today: str, num_layers: int | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a name; more than one where it can be made with the tensors of another plain ViT.

    Args:
        timm: the library.
        name: in the table.
        today: the name that it stands for.
        num_layers: None asks the library, which takes a while.
    """
    model = made(timm, today, depth=1) or made(timm, today)
    num_layers = num_layers or len(made(timm, today).blocks)
    yield (first := row_of(name, model, num_layers))
    known = {"", first["traits"]}
    for variant in VARIANTS if type(model).__name__ == "Eva" else ():
        other = made(timm, today, depth=1, **variant)
        row = row_of(name, other, num_layers) if other is not None else first
        if row["traits"] not in known:
            known.add(row["traits"])
            yield row


def made(timm: Any, name: str, **arguments: Any) -> Any:
    """The model on no device; None where it cannot be made so."""
    import torch

    try:
        with torch.device("meta"):
            return timm.create_model(name, **arguments)
    except (AssertionError, TypeError, ValueError):
        return None


def row_of(name: str, model: Any, num_layers: int) -> dict[str, Any]:
    first = model.blocks[0]
    attention, mlp = getattr(first, "attn", None), getattr(first, "mlp", None)
    parallel = type(first).__name__ == "ParallelScalingBlock"
    heads = first.num_heads if parallel else getattr(attention, "num_heads", 0)
    act = type(getattr(mlp, "act", None)).__name__ if type(mlp).__name__ == "Mlp" else ""  # gates bring their own
    act = type(first.mlp_act).__name__ if parallel else act
    hidden = mlp.fc2.in_features if hasattr(mlp, "fc2") else 0
    if type(first).__name__ == "ParallelThingsBlock":  # one attention with the heads of all
        heads = sum(attn.attn.num_heads for attn in first.attns)
        hidden = sum(ffn.mlp.fc2.in_features for ffn in first.ffns)
        act = type(first.ffns[0].mlp.act).__name__
    norm = getattr(first, "in_norm" if parallel else "norm1", None)
    norm = first.attns[0].norm if hasattr(first, "attns") else norm
    positions = {"ResPostBlock": "res_post", "ResPostRelPosBlock": "res_post", "ParallelScalingBlock": "parallel"}
    stem = getattr(model, "patch_embed", getattr(model, "embeds", None))
    height, width = getattr(stem, "img_size", None) or model.pretrained_cfg["input_size"][1:]
    patches = getattr(stem, "patch_size", None) or (0, 0)
    rows = {
        "name": name,
        "patch_size": "x".join(map(str, patches)),
        "image_size": f"{height}x{width}",
        "embed_dim": model.embed_dim,
        "num_layers": num_layers,
        "mlp_dim": first.in_proj.out_features - 3 * model.embed_dim if parallel else hidden,
        "num_heads": heads,
        "epsilon": getattr(norm, "eps", 0.0),
        "activation": ACTIVATIONS.get(act, "gelu"),
        "pooling": POOLINGS[model.global_pool],
        "pools_prefix": "yes" if getattr(model, "pool_include_prefix", False) else "",
        "normalization_position": positions.get(type(first).__name__, "pre"),
    }
    file = Shapes(model.state_dict())
    return rows | {"needs": reason(name, model, attention), "traits": traits(file, heads, bool(rows["pools_prefix"]))}


def traits(file: Shapes, heads: int, pools_prefix: bool) -> str:
    """Which tensors there are, where they are those of a plain ViT; empty where their names tell another network."""
    if not TimmSource().detects(file) or len(file.blocks) != 1:
        return ""
    try:
        if find_eva(file, renamed(file)) is not None:
            return ""
        TimmSource().read(file, {"num_heads": heads})
    except VitDeployError:
        if not pools_prefix:
            return ""
    return timm_architectures.traits_of(shapes_of(renamed(file)))


def reason(name: str, model: Any, attention: Any) -> str:
    if getattr(model, "rope", None) is not None:
        return ROTARY
    if type(getattr(model, "patch_embed", None)).__name__.startswith("Hybrid"):
        return "a convolutional network for its stem"
    return (
        BY_CLASS.get(type(model).__name__)
        or BY_BLOCK.get(type(model.blocks[0]).__name__)
        or BY_ATTENTION.get(type(attention).__name__)
        or ""
    )


def main() -> None:
    torchvision_stand_in.install()
    import timm

    target = Path(str(resources.files("vit_deploy.checkpoints.timm"))) / timm_architectures.TABLE
    with mock.patch.object(timm_architectures, "architectures", tuple):  # the table decides nothing about itself
        rows = [row for name, today in names_of(timm) for row in rows_of(timm, name, today)]
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{target}: {len(rows)} rows, {sum(not row['needs'] for row in rows)} that can be read")


if __name__ == "__main__":
    main()
