"""Writes vit_deploy/checkpoints/timm/eva.json: the arguments of timm's class Eva by architecture, read off the library.

Run from the repository's root where torch and timm are installed: python -m tests.peers.make_timm_eva
"""

from __future__ import annotations

import inspect
import json
from importlib import resources
from pathlib import Path
from typing import Any
from unittest import mock

from tests import torchvision_stand_in
from vit_deploy.checkpoints.timm import eva_table

# Of training alone, or of the first values that weights have.
WITHOUT_EFFECT = frozenset(
    {
        *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"),
        *("rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords", "head_init_scale", "dynamic_img_size"),
        *("dynamic_img_pad", "device", "dtype", "depth", "in_chans", "num_classes", "qkv_bias", "qkv_fused"),
    }
)


class Recorded(Exception):
    """What a class was called with, in place of an instance."""


def plain(value: Any) -> Any:
    """An argument as JSON has it; a norm layer by its class and epsilon."""
    if hasattr(value, "func"):
        return [value.func.__name__, value.keywords.get("eps", 1e-6)]
    if isinstance(value, type):
        return [value.__name__, 1e-6]
    return list(value) if isinstance(value, tuple) else value


def arguments_of(timm: Any, name: str) -> dict[str, Any]:
    """All arguments that an architecture is made with, defaults included."""
    eva = timm.models.eva.Eva
    signature = inspect.signature(eva.__init__)
    depth: dict[str, Any] = {}

    def record(self: Any, **arguments: Any) -> None:
        bound = signature.bind(self, **arguments)
        bound.apply_defaults()
        raise Recorded({key: value for key, value in bound.arguments.items() if key != "self"})

    with mock.patch.object(eva, "__init__", record):
        try:
            timm.create_model(name)
        except Recorded as recorded:
            (depth,) = recorded.args
    return depth


def main() -> None:
    torchvision_stand_in.install()
    import timm
    import timm.models.eva

    defaults = {
        key: plain(parameter.default)
        for key, parameter in inspect.signature(timm.models.eva.Eva.__init__).parameters.items()
        if key != "self" and key not in WITHOUT_EFFECT
    }
    architectures = {}
    for name in timm.list_models(module="eva"):
        found = {key: plain(value) for key, value in arguments_of(timm, name).items() if key not in WITHOUT_EFFECT}
        size = timm.get_pretrained_cfg(name).input_size[1:]
        found["img_size"] = list(size) if found["img_size"] == defaults["img_size"] else found["img_size"]
        if isinstance(found["num_kv_heads"], list):  # the weights show it in each block
            found["num_kv_heads"] = None
        architectures[name] = {key: value for key, value in found.items() if value != defaults[key]}
    target = Path(str(resources.files("vit_deploy.checkpoints.timm"))) / eva_table.TABLE
    lines = [f"  {json.dumps(name)}: {json.dumps(architecture)}" for name, architecture in architectures.items()]
    text = f'{{"defaults": {json.dumps(defaults)},\n"architectures": {{\n' + ",\n".join(lines) + "\n}}\n"
    target.write_text(text, encoding="utf-8")
    print(f"{target}: {len(architectures)} architectures")


if __name__ == "__main__":
    main()
