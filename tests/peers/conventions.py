"""One small model of each convention, as its own library saves it, with what that answers at two sizes of images."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.checkpoints.state_dicts import write
from tests.peers import census_eva, dialect_models, timm_families
from tests.peers.census import Array, Made
from tests.peers.census_transformers import pooled_patches, random_model
from tests.peers.huggingface_models import LABELS, SQUARE, TOWER, WIDE
from tests.peers.meta_dinov3 import as_meta_keeps_it, with_the_periods_of_meta

SIZE, OTHER = (24, 32), (40, 48)
DINOV3_OF_TIMM = "vit_small_plus_patch16_dinov3_qkvb"
NARROW: Mapping[str, Any] = {
    "patch_size": [8, 4],
    "img_size": list(SIZE),
    "embed_dim": 16,
    "num_heads": 2,
    "mlp_ratio": 2,
}
VISION = {**WIDE, **SQUARE}
RATIO = {**TOWER, **SQUARE, "mlp_ratio": 2}
TORCH, TIMM, TRANSFORMERS = ("torch",), ("torch", "timm"), ("torch", "transformers")
Size = tuple[int, int]
ONE_SIZE = "the library takes no other"
NETWORK = "refused: what a network makes of distances holds for one size"


@dataclass(frozen=True)
class Proof:
    """A saved model and what its library answers.

    Args:
        trained: the checkpoint, with images and answer of the size that it was made for.
        other_size: (height, width) of other images; None where the library takes none.
        images: of the other size.
        answer: to them.
        why_not: there is no other size, in words.
    """

    trained: Made
    other_size: Size | None = None
    images: Array | None = None
    answer: Array | None = None
    why_not: str = ""


@dataclass(frozen=True)
class Convention:
    """What a model is an example of.

    Args:
        library: that the answers are of.
        make: takes an empty folder.
        needs: modules without which it cannot be made.
    """

    library: str
    make: Callable[[Path], Proof]
    needs: tuple[str, ...] = TIMM


def _eva(architecture: str, folder: Path, **changes: Any) -> Proof:
    timm = _timm()
    arguments = {**NARROW, "num_classes": 5, **changes}
    model = census_eva.make(timm, architecture, **arguments)
    census_eva.save(timm, model, folder)
    other = census_eva.make(timm, architecture, **arguments)
    other.set_input_size(img_size=OTHER)
    return _timms(folder, model, other)


def _metas_dinov3(folder: Path) -> Proof:
    """A file with Meta's names, and timm's program with the periods that such files hold."""
    timm = _timm()
    arguments = {**NARROW, "num_classes": 0, "global_pool": "token"}
    model = census_eva.make(timm, DINOV3_OF_TIMM, **arguments)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    stored = as_meta_keeps_it(state, NARROW["num_heads"], rounded=True)
    path = write(folder / "dinov3.safetensors", stored)
    other = census_eva.make(timm, DINOV3_OF_TIMM, **arguments)
    other.set_input_size(img_size=OTHER)
    proof = _timms(path, with_the_periods_of_meta(model), with_the_periods_of_meta(other))
    stated = {"image_size": list(SIZE), "num_heads": NARROW["num_heads"]}
    return replace(proof, trained=replace(proof.trained, stated=stated))


def _family(case: str, folder: Path, *, other_size: bool = True) -> Proof:
    timm = _timm()
    model = timm_families.make(timm, case)
    timm_families.save(timm, case, model, folder)
    if not other_size:
        return replace(_timms(folder, model, None), why_not=NETWORK)
    other = timm_families.make(timm, case)
    other.set_input_size(img_size=OTHER)
    return _timms(folder, model, other)


def _naflex(architecture: str, folder: Path, **changes: Any) -> Proof:
    """A model that takes any size: the same one answers both."""
    timm = _timm()
    model = census_eva.filled(timm.create_model(architecture, depth=2, num_classes=5, **changes).eval())
    arguments = {"depth": 2, "num_classes": 5, **changes}
    timm.models.save_for_hf(model, folder, safe_serialization=True, model_args=arguments)
    size, other = (48, 64), (80, 96)
    images, more = timm_families.drawn_images(*size), timm_families.drawn_images(*other)
    trained = Made(folder, images, timm_families.output(model, images), {"image_size": list(size)})
    return Proof(trained, other, more, timm_families.output(model, more))


def _timms(path: Path, model: Any, other: Any | None) -> Proof:
    images, more = timm_families.drawn_images(*SIZE), timm_families.drawn_images(*OTHER)
    trained = Made(path, images, timm_families.output(model, images))
    if other is None:
        return Proof(trained)
    return Proof(trained, OTHER, more, timm_families.output(other, more))


def _timm() -> Any:
    from tests import torchvision_stand_in

    torchvision_stand_in.install()
    import timm

    return timm


Read = Callable[..., Any]


def _transformers(
    model: str,
    config: str,
    options: Mapping[str, Any],
    read: Read,
    folder: Path,
    size: Size = (16, 16),
    other: Size | None = None,
    stated: Mapping[str, Any] | None = None,
    **call: Any,
) -> Proof:
    """A model of transformers; `call` is said where images are of the other size."""
    import torch

    def answered(size: Size, **call: Any) -> tuple[Array, Array]:
        images = np.random.default_rng(sum(size)).standard_normal((2, *size, 3)).astype(np.float32)
        with torch.no_grad():
            found = read(built, torch.from_numpy(images).double().permute(0, 3, 1, 2), **call)
        return images, found.numpy()

    built = random_model(model, lambda library: getattr(library, config)(**options))
    built.save_pretrained(folder)
    built.double()
    trained = Made(folder, *answered(size), stated or {})
    return Proof(trained, why_not=ONE_SIZE) if other is None else Proof(trained, other, *answered(other, **call))


def _pooled(model: Any, pixels: Any, **call: Any) -> Any:
    return model(pixels, **call).pooler_output


def _tokens(model: Any, pixels: Any, **call: Any) -> Any:
    return model(pixels, **call).last_hidden_state


def _logits(model: Any, pixels: Any, **call: Any) -> Any:
    return model(pixels, **call).logits


def _of_pixtral(model: Any, pixels: Any) -> Any:
    return model(pixels).last_hidden_state.reshape(len(pixels), -1, 24)


def _coca(folder: Path) -> Proof:
    """OpenCLIP resamples the position table of weights that are loaded into a model of another size."""
    _timm()  # puts the stand-in for what OpenCLIP imports into its place
    from open_clip.model import resize_pos_embed

    size, other = (16, 16), (24, 40)  # OpenCLIP takes the table that it resamples for a square
    case, larger = (dialect_models.coca_case(image_size=each, patch_size=8) for each in (size, other))
    model, resized = dialect_models.build(case, folder), dialect_models.build(larger, folder)
    state = model.state_dict()
    write(folder / "open_clip_model.safetensors", {name: tensor.numpy() for name, tensor in state.items()})
    for name, document in case.beside.items():
        (folder / name).write_text(json.dumps(document))
    resize_pos_embed(state, resized)
    resized.load_state_dict(state)
    images, more = (
        np.random.default_rng(3).standard_normal((2, *each, 3)).astype(np.float32) for each in (size, other)
    )
    trained = Made(folder, images, dialect_models.answer_of(case, model, images), case.stated)
    return Proof(trained, other, more, dialect_models.answer_of(larger, resized, more))


def _hf(*arguments: Any, **options: Any) -> Convention:
    def make(folder: Path) -> Proof:
        return _transformers(*arguments, folder, **options)

    return Convention("transformers", make, TRANSFORMERS)


def _of(
    library: str, make: Callable[..., Proof], *arguments: Any, needs: tuple[str, ...] = TIMM, **options: Any
) -> Any:
    return Convention(library, partial(make, *arguments, **options), needs)


BEIT = {**VISION, **LABELS}
DINOV3 = {**WIDE, "image_size": [16, 24], "patch_size": 8, "num_register_tokens": 2}
INTERPOLATED = {"interpolate_pos_encoding": True}

CONVENTIONS: Mapping[str, Convention] = {
    "DINOv3, periods in bfloat16": _of("timm", _metas_dinov3),
    "DINOv3, periods in float32": _of("timm", _eva, DINOV3_OF_TIMM),
    "DINOv3 of transformers": _hf(
        "DINOv3ViTModel", "DINOv3ViTConfig", DINOV3, _tokens, size=(16, 24), other=(24, 40)
    ),
    "EVA-02": _of("timm", _eva, "eva02_tiny_patch14_224"),
    "EVA-02, norms inside": _of("timm", _eva, "eva02_base_patch16_clip_224"),
    "Perception Encoder": _of("timm", _eva, "vit_pe_core_base_patch16_224", attn_pool_num_heads=4),
    "Perception Encoder, spatial": _of("timm", _eva, "vit_pe_spatial_gigantic_patch14_448"),
    "RoPE-ViT (Naver), axial": _of("timm", _eva, "vit_small_patch16_rope_224"),
    "RoPE-ViT (Naver), axial beside a table": _of("timm", _eva, "vit_small_patch16_rope_ape_224"),
    "RoPE-ViT (Naver), mixed": _of("timm", _eva, "vit_small_patch16_rope_mixed_224"),
    "RoPE-ViT (Naver), mixed beside a table": _of("timm", _eva, "vit_small_patch16_rope_mixed_ape_224"),
    "SBB, rotary": _of("timm", _eva, "vit_betwixt_patch16_rope_reg4_gap_256"),
    "Sapiens 2, keys that queries share": _of("timm", _eva, "vit_base_patch16_sapiens2", num_kv_heads=[2, 1]),
    "Pixtral": _hf(
        "PixtralVisionModel", "PixtralVisionConfig", {**WIDE, "image_size": 64, "patch_size": 8}, _of_pixtral,
        size=(16, 24), other=(24, 40), stated={"image_size": [16, 24]},
    ),
    "MLCD": _hf("MLCDVisionModel", "MLCDVisionConfig", {**VISION, "image_size": 24}, _pooled, size=(24, 24),
                other=(16, 40)),
    "BEiT, distances in each layer": _of("timm", _family, "beit"),
    "BEiT, distances that all layers share, beside a table": _of("timm", _family, "beit_shared"),
    "BEiT of transformers": _hf(
        "BeitForImageClassification", "BeitConfig", {**BEIT, "use_relative_position_bias": True}, _logits,
        other=(24, 40), **INTERPOLATED,
    ),
    "BEiT of transformers, distances that all layers share": _hf(
        "BeitForImageClassification", "BeitConfig", {**BEIT, "use_shared_relative_position_bias": True}, _logits,
        other=(24, 40), **INTERPOLATED,
    ),
    "Data2Vec": _hf(
        "Data2VecVisionForImageClassification", "Data2VecVisionConfig", {**BEIT, "use_relative_position_bias": True},
        _logits, other=(24, 40), **INTERPOLATED,
    ),
    "distances through a network": _of("timm", _family, "relpos", other_size=False),
    "distances in a table, norms inside the sums": _of("timm", _family, "relpos_table"),
    "norms inside the sums": _of("timm", _family, "rpn"),
    "BEiT-3": _of("timm", _family, "beit3"),
    "NaFlexViT at one size": _of("timm", _naflex, "naflexvit_base_patch16_gap", embed_dim=24, num_heads=3),
    "NaFlexViT, rows and columns apart": _of(
        "timm", _naflex, "naflexvit_base_patch16_parfac_gap", embed_dim=24, num_heads=3
    ),
    "SigLIP 2 of any size, pooled under a mask": _hf(
        "Siglip2VisionModel", "Siglip2VisionConfig", {**WIDE, "patch_size": 8, "num_patches": 9}, pooled_patches,
        size=(24, 24), other=(16, 40),
    ),
    "AIMv2": _hf("Aimv2VisionModel", "Aimv2VisionConfig", VISION, _pooled),
    "AIMv2 of any size": _hf("Aimv2VisionModel", "Aimv2VisionConfig", {**VISION, "is_native": True}, _pooled,
                             other=(24, 40)),
    "AIMv2 of timm": _of("timm", _family, "aimv2"),
    "PIXIO, several class tokens": _hf(
        "PixioModel", "PixioConfig", {**RATIO, "n_cls_tokens": 3}, _tokens, other=(24, 40)
    ),
    "TIPS v2": _hf("Tipsv2VisionModel", "Tipsv2VisionConfig", {**RATIO, "num_register_tokens": 1}, _tokens,
                   other=(24, 40)),
    "InternVL": _hf(
        "InternVLVisionModel", "InternVLVisionConfig",
        {**WIDE, "image_size": [16, 16], "patch_size": [8, 8], "norm_type": "rms_norm"}, _tokens, other=(24, 40),
    ),
    "CoCa": _of("OpenCLIP", _coca, needs=("torch", "open_clip")),
    "ViT-22B, attention beside feed-forward": _of("timm", _family, "parallel_qk_norm"),
    "several attentions beside each other": _of("timm", _family, "parallel"),
}  # fmt: skip
"""By name, those of the rotary positions first."""


def installed(convention: Convention) -> bool:
    """Whether what it needs is there."""
    return all(importlib.util.find_spec(name) is not None for name in convention.needs)
