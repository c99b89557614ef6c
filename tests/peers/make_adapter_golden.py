"""Writes golden/adapters: LoRA adapters as PEFT saves them, and what the models answer with them.

Run from the repository's root where torch, timm, transformers and peft are installed:
python -m tests.peers.make_adapter_golden
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests import torchvision_stand_in
from tests.peers import huggingface_models, timm_families

TARGET = Path(__file__).with_name("golden") / "adapters"
BASES = Path(__file__).with_name("golden")


@dataclass(frozen=True)
class Case:
    """One adapter.

    Args:
        base: of the goldens.
        options: of PEFT's config.
        whole: whether the model is saved with the adapter inside.
        said: what its config says besides, which PEFT overrules when it reads it.
    """

    base: str
    options: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = False
    said: Mapping[str, Any] = field(default_factory=dict)


CASES: Mapping[str, Case] = {
    "vit": Case(
        "huggingface/vit",
        {
            **{"r": 4, "lora_alpha": 6, "use_rslora": True, "modules_to_save": ["classifier"]},
            "target_modules": ["q_proj", "v_proj", "fc1", "projection"],
            **{"rank_pattern": {"layers.0.attention.q_proj": 2}, "alpha_pattern": {"fc1": 3, "layers.1.*q_proj": 9}},
        },
    ),
    "dinov2": Case(
        "huggingface/dinov2",
        {"r": 3, "lora_alpha": 5, "bias": "all", "target_modules": ["gate_proj", "down_proj", "o_proj"]},
    ),
    "vit-dora": Case(
        "huggingface/vit",
        {"r": 2, "lora_alpha": 3, "use_dora": True, "target_modules": ["k_proj", "fc2", "projection"]},
    ),
    "dinov2-dora": Case(
        "huggingface/dinov2", {"r": 2, "lora_alpha": 3, "use_dora": True, "target_modules": ["up_proj"]}
    ),
    "clip-vision": Case(
        "huggingface/clip-vision", {"r": 2, "lora_alpha": 3, "target_modules": ["out_proj", "position_embedding"]}
    ),
    "timm": Case("timm/plain", {"r": 3, "lora_alpha": 2, "target_modules": ["qkv", "fc1", "proj"]}),
    "timm-ranks": Case(
        "timm/plain",
        {
            **{"r": 4, "lora_alpha": 2, "use_rslora": True, "target_modules": ["fc1", "qkv", "head"]},
            **{"rank_pattern": {r"^blocks\.0.*": 2}, "alpha_pattern": {r"^blocks\.1\..*": 7, "fc1": 3}},
            "modules_to_save": ["norm", "norm1", "patch_embed"],
        },
    ),
    # Of a layer PEFT says that it sets it to False, and does.
    "timm-transposed": Case(
        "timm/plain", {"r": 3, "lora_alpha": 2, "target_modules": ["proj"]}, said={"fan_in_fan_out": True}
    ),
    "siglip-attention": Case(
        "huggingface/siglip-vision",
        {"r": 2, "lora_alpha": 3, "target_modules": ["attention", "fc1"], "alpha_pattern": {"head.attention": 5}},
    ),
    "siglip-whole": Case(
        "huggingface/siglip-vision", {"r": 2, "lora_alpha": 3, "target_modules": ["attention"]}, whole=True
    ),
    "timm-whole": Case(
        "timm/plain", {"r": 3, "lora_alpha": 2, "target_modules": ["qkv"], "modules_to_save": ["head"]}, whole=True
    ),
}


def base_model(timm: Any, name: str) -> tuple[Any, Any]:
    """A model of the goldens as it was when it was saved, and images for it."""
    library, case = name.split("/")
    if library == "timm":
        return timm_families.make(timm, case), timm_families.drawn_images(*timm_families.SMALL["img_size"])
    made = huggingface_models.CASES[case]
    return huggingface_models.build(made), huggingface_models.images_for(made, made.image_size)


def answer(model: Any, name: str, images: Any) -> Any:
    library, case = name.split("/")
    if library == "timm":
        return timm_families.output(model, images)
    return huggingface_models.answer(model, huggingface_models.CASES[case], images)


def adapted(peft: Any, timm: Any, case: Case) -> tuple[Any, Any]:
    """The model inside an adapter whose every number is drawn, and images for it."""
    import torch

    model, images = base_model(timm, case.base)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**case.options)).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name or "modules_to_save" in name or (case.options.get("bias") == "all" and "bias" in name):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return wrapped, images


def save(wrapped: Any, case: Case, folder: Path) -> None:
    from safetensors.torch import save_file

    wrapped.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"] = sorted(config["target_modules"])
    config |= case.said
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    if case.whole:
        (folder / "adapter_model.safetensors").unlink()
        save_file({name: tensor.clone() for name, tensor in wrapped.state_dict().items()}, folder / "model.safetensors")
        shutil.copy(BASES / case.base / "config.json", folder)


def main() -> None:
    torchvision_stand_in.install()
    import peft
    import timm

    shutil.rmtree(TARGET, ignore_errors=True)
    for name, case in CASES.items():
        wrapped, images = adapted(peft, timm, case)
        save(wrapped, case, TARGET / name)
        if case.said:  # what counts is what PEFT makes of the file
            wrapped = peft.PeftModel.from_pretrained(base_model(timm, case.base)[0], TARGET / name).eval()
        np.savez_compressed(TARGET / name / "expected.npz", images=images, answer=answer(wrapped, case.base, images))
    files = [path for path in TARGET.rglob("*") if path.is_file()]
    print(f"{TARGET}: {len(files)} files, {sum(path.stat().st_size for path in files) / 1e3:.1f} kB")


if __name__ == "__main__":
    main()
