"""Families of models in transformers: what its program does for each model type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vit_deploy.checkpoints.huggingface import aimv2
from vit_deploy.checkpoints.huggingface import names as hf
from vit_deploy.checkpoints.huggingface.names import Names
from vit_deploy.checkpoints.huggingface.relative import has_relative_positions
from vit_deploy.checkpoints.huggingface.towers import UNLIKE
from vit_deploy.core.choices import NormalizationType, Pooling
from vit_deploy.core.resize import Convention
from vit_deploy.core.rotary import RotaryConvention
from vit_deploy.errors import CheckpointError


@dataclass(frozen=True)
class Family:
    """What transformers does for a model type unless its config says otherwise.

    Args:
        epsilon: the epsilon of its norms.
        activation: the activation of its feed-forward, by its name there.
        convention: the convention of resampling positions.
        processor: that makes images its input; key of `huggingface.preprocess.PROCESSORS`.
        head: the pooling of a model with a classifier.
        headless: the pooling of one without: None for the program's `last_hidden_state`.
    """

    epsilon: float
    activation: str
    convention: Convention
    processor: str
    head: Pooling | None
    headless: Pooling | None = None


VIT = Family(1e-12, "gelu", Convention.HUGGINGFACE, "ViT", Pooling.CLS)
DEIT = Family(1e-12, "gelu", Convention.HUGGINGFACE, "DeiT", Pooling.CLS)
MSN = Family(1e-6, "gelu", Convention.HUGGINGFACE, "ViT", Pooling.CLS)
IJEPA = Family(1e-12, "gelu", Convention.HUGGINGFACE, "ViT", Pooling.MEAN)
# transformers resamples as DINOv2's own code does for its models with registers, and without DINOv2's offset for those
# without: the family is the program that the file is from.
DINOV2 = Family(1e-6, "gelu", Convention.HUGGINGFACE, "Bit", Pooling.CLS_MEAN)
REGISTERS = Family(1e-6, "gelu", Convention.DINOV2_REGISTERS, "Bit", Pooling.CLS_MEAN)
CLIP = Family(1e-5, "quick_gelu", Convention.HUGGINGFACE, "CLIP", None, headless=Pooling.CLS)
SIGLIP = Family(1e-6, "gelu_pytorch_tanh", Convention.HUGGINGFACE, "Siglip", Pooling.MEAN, headless=Pooling.MAP)

# These give all their tokens: what they pool is normalized twice, or nothing.
BLIP = Family(1e-5, "gelu", Convention.HUGGINGFACE, "CLIP", None)
BLIP2 = Family(1e-6, "gelu", Convention.HUGGINGFACE, "CLIP", None)
GIT = Family(1e-5, "quick_gelu", Convention.HUGGINGFACE, "CLIP", None)
JANUS = Family(1e-6, "gelu", Convention.HUGGINGFACE, "CLIP", None)
IDEFICS = Family(1e-6, "gelu_pytorch_tanh", Convention.HUGGINGFACE, "Siglip", None)
TOKENS = Family(1e-12, "gelu", Convention.HUGGINGFACE, "ViT", None)
PIXIO = Family(1e-6, "gelu", Convention.HUGGINGFACE, "ViT", None)
DINOV3 = Family(1e-5, "gelu", Convention.HUGGINGFACE, "DINOv3ViT", Pooling.CLS)
BEIT = Family(1e-12, "gelu", Convention.HUGGINGFACE, "Beit", Pooling.CLS)
VITPOSE = Family(1e-12, "gelu", Convention.HUGGINGFACE, "ViT", None)  # all tokens; a head finds keypoints in them
SIGLIP2 = Family(1e-6, "gelu_pytorch_tanh", Convention.SIGLIP2, "Siglip2", Pooling.MEAN, headless=Pooling.MAP)
TIPSV2 = Family(1e-6, "gelu", Convention.SIGLIP2, "Tipsv2", None)
AIMV2 = Family(1e-5, "silu", Convention.HUGGINGFACE, "CLIP", None, headless=Pooling.MAP)
INTERNVL = Family(1e-6, "gelu", Convention.HUGGINGFACE, "GotOcr2", None)
PIXTRAL = Family(1e-5, "gelu", Convention.HUGGINGFACE, "Pixtral", None)
MLCD = Family(1e-5, "gelu", Convention.HUGGINGFACE, "CLIP", None, headless=Pooling.CLS)

MODEL_TYPES: Mapping[str, Family] = {
    **{"vit": VIT, "deit": DEIT, "vit_mae": VIT, "vit_msn": MSN, "ijepa": IJEPA},
    **{"dinov2": DINOV2, "dinov2_with_registers": REGISTERS},
    **{"clip": CLIP, "clip_vision_model": CLIP, "siglip": SIGLIP, "siglip_vision_model": SIGLIP},
    **{"metaclip_2_vision_model": CLIP, "altclip_vision_model": CLIP, "chinese_clip_vision_model": CLIP},
    **{"clipseg_vision_model": CLIP, "owlvit_vision_model": CLIP, "owlv2_vision_model": CLIP},
    **{"kosmos_2_vision_model": CLIP, "git_vision_model": GIT, "blip_vision_model": BLIP},
    **{
        "blip_2_vision_model": BLIP2,
        "instructblip_vision_model": BLIP2,
        "instructblipvideo_vision_model": BLIP2,
        "janus_vision_model": JANUS,
    },
    **{"idefics2_vision": IDEFICS, "idefics3_vision": IDEFICS, "smolvlm_vision": IDEFICS},
    **{"yolos": TOKENS, "dpt": TOKENS, "flava_image_model": TOKENS, "audio-spectrogram-transformer": TOKENS},
    **{"beit": BEIT, "data2vec-vision": BEIT},
    **{"siglip2_vision_model": SIGLIP2, "tipsv2_vision_model": TIPSV2},
    **{"aimv2_vision_model": AIMV2, "pixtral": PIXTRAL, "internvl_vision": INTERNVL},
    **{"pixio": PIXIO, "mlcd_vision_model": MLCD, "dinov3_vit": DINOV3, "vitpose_backbone": VITPOSE},
}


QUERY_NORMS: Mapping[Family, tuple[NormalizationType, float]] = {
    INTERNVL: (NormalizationType.RMS_NORM, 1e-6),
    JANUS: (NormalizationType.LAYER_NORM, 1e-5),
}
"""The norm of queries and keys over the whole width that a family may have, and its epsilon, both fixed there."""

ROTARY: Mapping[Family, RotaryConvention] = {
    MLCD: RotaryConvention.MLCD,
    PIXTRAL: RotaryConvention.PIXTRAL,
    DINOV3: RotaryConvention.DINOV3_FLOAT32,  # transformers computes the periods anew, and rounds none
}


def family_of(document: Mapping[str, Any], names: Names | None) -> Family:
    """The family of a model, by the model type in config.json, else by the parts there are.

    Raises:
        CheckpointError: a model type that is no ViT of these.
    """
    if not document and names:
        return _family_by_parts(names)
    model_type = document.get("model_type")
    if not isinstance(model_type, str) or model_type not in MODEL_TYPES:
        what = f", which has {UNLIKE[model_type]}" if isinstance(model_type, str) and model_type in UNLIKE else ""
        raise CheckpointError(
            f"its config.json says model_type {model_type!r}{what}; expected one of {', '.join(MODEL_TYPES)}",
            fix="give a plain ViT; if config.json is that of another model, put the weights into a folder of their own",
        )
    return MODEL_TYPES[model_type]


def _family_by_parts(names: Names) -> Family:
    marks = {
        hf.CLASS_ANGLES: MLCD,
        f"{hf.DINOV3}.weight": DINOV3,
        f"{hf.PIXTRAL}.weight": PIXTRAL,
        f"{aimv2.PATCHES}.weight": AIMV2,
        **{f"{norm}.weight": CLIP for norm in hf.PRE_NORM},
        "embeddings.position_embedding.weight": SIGLIP,
        hf.REGISTERS: REGISTERS,
        hf.DISTILLATION: DEIT,
    }
    if has_relative_positions(names):
        return BEIT
    for mark, family in marks.items():
        if names.has(mark):
            return family
    if not any(names.has(token) for token in hf.CLASS):
        return IJEPA
    return DINOV2 if any(name.endswith(tuple(hf.SCALES.values())) for name in names.stored) else VIT
