"""Every architecture that timm registers in the modules of plain ViTs, with few blocks and random weights."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from tests.peers.census import Made
from tests.peers.timm_families import output
from vit_deploy.checkpoints.timm import naflex
from vit_deploy.checkpoints.timm.eva_table import eva_arguments
from vit_deploy.checkpoints.timm.names import WITHOUT_LAST_NORM

CUTS = ({"depth": 2}, {"depth": 1}, {})
GRID = (3, 4)
WIDE = 1024  # embed dim from which one block has to do
SAYING_LITTLE = frozenset({*naflex.ARCHITECTURES, *WITHOUT_LAST_NORM, "vit_so150m_patch16_reg4_map_256"})
"""Names whose tensors say too little to be read without the name."""
OF_OTHER_MODULES = ("a convolutional network for its stem", "relative positions and windows")
WITH_A_STEM = ("vit_base_mci_224",)  # in the module of plain ViTs all the same
TOKENS = ("cls_token", "pos_embed", "reg_token", "dist_token", "latent")


def rows() -> dict[str, str]:
    """What each name needs that no config can say, empty where it has to be exact.

    Those of the class Eva have a census of their own.
    """
    text = resources.files("vit_deploy.checkpoints.timm").joinpath("architectures.csv").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for row in csv.DictReader(text.splitlines()):
        if eva_arguments(row["name"]) is not None:
            continue
        # The weights of these say too little to be read alone, which is what traits are known from.
        readable = row["traits"] or "relpos" in row["name"] or row["name"] in SAYING_LITTLE
        found.setdefault(row["name"], row["needs"] or ("" if readable else "what its tensors' names say"))
    return found


def counts() -> tuple[int, int]:
    """How many names of the modules of plain ViTs there are, and how many of them are exact.

    Hybrids and SAM's ViTs have modules of their own; those of the class Eva are all exact, as their census shows.
    """
    text = resources.files("vit_deploy.checkpoints.timm").joinpath("architectures.csv").read_text(encoding="utf-8")
    names = {row["name"]: row["needs"] for row in csv.DictReader(text.splitlines())}
    plain = [name for name, needs in names.items() if needs not in OF_OTHER_MODULES or name in WITH_A_STEM]
    refused = {name for name, needs in rows().items() if needs}
    return len(plain), len([name for name in plain if name not in refused])


def make(timm: Any, name: str, folder: Path) -> Made:
    """The model as timm saves it for the hub, images, and what timm makes of them."""
    import torch

    arguments = small_arguments(timm, name)
    model = timm.create_model(name, **arguments).eval()
    rng = np.random.default_rng(5)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            drawn = rng.standard_normal(tuple(parameter.shape), np.float32)
            is_scale = (parameter.ndim == 1 and key.endswith((".weight", ".gamma"))) or ".gamma_" in key
            wide = parameter.ndim > 1 and not key.endswith(TOKENS)
            size = 1.5 / np.sqrt(parameter[0].numel()) if wide else 0.3
            parameter.copy_(torch.from_numpy(size * drawn + is_scale))
    timm.models.save_for_hf(model, folder, safe_serialization=True, model_args=arguments)
    height, width = arguments.get("img_size", model.pretrained_cfg["input_size"][1:])
    images = np.random.default_rng(9).standard_normal((2, height, width, 3)).astype(np.float32)
    return Made(folder, images, output(model, images))


def small_arguments(timm: Any, name: str) -> Mapping[str, Any]:
    """The arguments of as small a model as the architecture allows."""
    import torch

    for cut in CUTS:
        try:
            with torch.device("meta"):
                model = timm.create_model(name, **cut)
        except TypeError:
            continue
        if cut.get("depth", 0) > 1 and model.embed_dim >= WIDE:
            continue
        stem = getattr(model, "patch_embed", getattr(model, "embeds", None))
        patch = stem.patch_size if type(stem).__name__ in ("PatchEmbed", "NaFlexEmbeds") else None
        size = {} if patch is None else {"img_size": [GRID[0] * patch[0], GRID[1] * patch[1]]}
        try:
            with torch.device("meta"):
                timm.create_model(name, **cut, **size)
        except (TypeError, ValueError, AssertionError):
            size = {}
        return {**cut, **size}
    return {}
