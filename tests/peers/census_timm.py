"""Every architecture that timm registers in the modules of plain ViTs, with few blocks and random weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.census_tables import outcome, plain_rows
from benchmarks.records import RESULTS, read
from tests.peers.census import Made, distance
from tests.peers.timm_families import output
from vit_deploy.checkpoints import load
from vit_deploy.core.reference import forward
from vit_deploy.errors import VitDeployError

CUTS = ({"depth": 2}, {"depth": 1}, {})
GRID = (3, 4)
WIDE = 1024  # embed dim from which one block has to do
TOKENS = ("cls_token", "pos_embed", "reg_token", "dist_token", "latent")


def rows() -> list[dict[str, Any]]:
    """What became of each name when all were walked."""
    found: list[dict[str, Any]] = read(RESULTS / "census")["timm"]["rows"]
    return found


def counts() -> tuple[int, int]:
    """How many names timm registers in its modules of plain ViTs, and how many of them are exact."""
    plain = plain_rows(rows())
    return len(plain), sum(outcome(row) == "exact" for row in plain)


def registered(timm: Any) -> Iterator[dict[str, str]]:
    """Every name that the library makes a model of in these modules, with its module and what it stands for today.

    Names that the library has forgotten follow, of no module.
    """
    from tests.peers.make_timm_architectures import FORGOTTEN, MODULES

    for module in MODULES:
        yield from ({"name": name, "module": module, "today": name} for name in timm.list_models(module=module))
        old = timm.models._registry._module_to_deprecated_models[module]
        of_old = {name: today.partition(".")[0] for name, today in old.items() if today}
        yield from ({"name": name, "module": module, "today": today} for name, today in of_old.items())
    yield from ({"name": name, "module": "", "today": today} for name, today in FORGOTTEN.items())


def walked(timm: Any, name: str, today: str, folder: Path) -> dict[str, Any]:
    """How far a name's model, read of its folder, is from what timm makes of it; or why it is refused."""
    made = make(timm, name, folder, today)
    assert made.images is not None and made.answer is not None
    try:
        checkpoint = load(made.path)
    except VitDeployError as error:
        return {"refused": error.message.replace(f"{folder}/", ""), "fix": error.fix}
    return {"error": distance(forward(checkpoint, made.images), made.answer)}


def make(timm: Any, name: str, folder: Path, today: str | None = None) -> Made:
    """The model as timm saves it for the hub, images, and what timm makes of them.

    Args:
        timm: the library.
        name: that the config says.
        folder: for the model.
        today: the name that it stands for; None for itself.
    """
    import torch

    arguments = small_arguments(timm, today or name)
    with _undrawn():
        model = timm.create_model(today or name, **arguments).eval()
    rng = np.random.default_rng(5)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            drawn = rng.standard_normal(tuple(parameter.shape), np.float32)
            is_scale = (parameter.ndim == 1 and key.endswith((".weight", ".gamma"))) or ".gamma_" in key
            wide = parameter.ndim > 1 and not key.endswith(TOKENS)
            size = 1.5 / np.sqrt(parameter[0].numel()) if wide else 0.3
            parameter.copy_(torch.from_numpy(size * drawn + is_scale))
    timm.models.save_for_hf(model, folder, safe_serialization=True, model_args=arguments)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architecture": name}))
    height, width = arguments.get("img_size", model.pretrained_cfg["input_size"][1:])
    images = np.random.default_rng(9).standard_normal((2, height, width, 3)).astype(np.float32)
    return Made(folder, images, output(model, images))


def _undrawn() -> Any:
    """A context in which no first values of weights are drawn, which takes longer than all else and is overwritten."""
    from torch.overrides import TorchFunctionMode

    class Undrawn(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if getattr(function, "__name__", "").endswith(("uniform_", "normal_", "erfinv_", "clamp_")):
                return args[0] if args else kwargs["tensor"]
            return function(*args, **kwargs)

    return Undrawn()


def small_arguments(timm: Any, name: str) -> Mapping[str, Any]:
    """The arguments of as small a model as the architecture allows."""
    import torch

    keys = _keys_of_blocks(timm, name)
    for cut in ({**cut, **({"num_kv_heads": keys[-cut["depth"] :]} if keys and cut else {})} for cut in CUTS):
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


def _keys_of_blocks(timm: Any, name: str) -> list[int]:
    """How many keys the first and the last block have; empty where all blocks have as many."""
    from tests.peers.make_timm_eva import arguments_of

    if name not in timm.list_models(module="eva"):
        return []
    keys = arguments_of(timm, name)["num_kv_heads"]
    return [keys[0], keys[-1]] if isinstance(keys, list | tuple) else []
