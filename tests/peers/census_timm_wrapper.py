"""The census of timm's models inside of transformers, Perception Encoder in its own models among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.peers.census import Made, Row
from tests.peers.census_transformers import made
from tests.peers.huggingface_models import LABELS

NEEDS = ("torch", "timm", "transformers")
SIZE = (24, 32)
SMALL = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2}
CORE, LANGUAGE = "vit_pe_core_base_patch16_224", "vit_pe_lang_large_patch14_448"
LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 9,
}  # fmt: skip
OF_PE = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 8}
Read = Callable[[Any, Any], Any]


def _tokens(model: Any, pixels: Any) -> Any:
    return model(pixels).last_hidden_state


def _pooled(model: Any, pixels: Any) -> Any:
    return model(pixels).pooler_output


def _logits(model: Any, pixels: Any) -> Any:
    return model(pixels).logits


def _tower(model: Any, pixels: Any) -> Any:
    return _tokens(model.model.vision_tower, pixels)


def _row(name: str, model: str, config: Callable[[Any], Any], read: Read | None, refused: str = "") -> Row:
    def make(folder: Path) -> Made:
        return made(folder, model, config, read, SIZE)

    return Row("transformers", name, "save_pretrained", make, refused, {}, NEEDS)


def _wrapper(architecture: str, options: Mapping[str, Any], library: Any) -> Any:
    options = dict(options)
    arguments = {**SMALL, **options.pop("model_args", {})}
    return library.TimmWrapperConfig(architecture=architecture, model_args=arguments, **options)


def _perception_lm(architecture: str, library: Any) -> Any:
    vision = {"model_type": "timm_wrapper", "architecture": architecture, "model_args": SMALL, "do_pooling": False}
    return library.PerceptionLMConfig(vision_config=vision, text_config=LLAMA)


def _pe_video(library: Any) -> Any:
    vision = {"model_type": "timm_wrapper", "architecture": CORE, "model_args": SMALL, **LABELS}
    return library.PeVideoEncoderConfig(**OF_PE, vision_config=vision)


def rows() -> Iterator[Row]:
    """All of them."""
    alone, head = "TimmWrapperModel", "TimmWrapperForImageClassification"
    for name, architecture in (
        ("perception encoder", CORE),
        ("dinov3", "vit_small_patch16_dinov3"),
        ("eva-02", "eva02_base_patch14_224"),
    ):
        yield _row(f"timm wrapper of {name}", head, partial(_wrapper, architecture, LABELS), _logits)
    yield _row("timm wrapper without a head", alone, partial(_wrapper, "vit_base_patch16_224", {}), _pooled)
    without = {"do_pooling": False}
    averaged = {**without, "model_args": {"global_pool": "avg"}}
    yield _row("timm wrapper without pooling", alone, partial(_wrapper, CORE, without), _tokens)
    yield _row("timm wrapper without its mean", alone, partial(_wrapper, "vit_base_patch16_224", averaged), _tokens)
    distilled = partial(_wrapper, "deit_tiny_distilled_patch16_224", without)
    yield _row("timm wrapper of two classes' tokens", alone, distilled, None, "which is read for its classes alone")
    for name, architecture in (("perception lm", LANGUAGE), ("perception lm on a core", CORE)):
        config = partial(_perception_lm, architecture)
        yield _row(name, "PerceptionLMForConditionalGeneration", config, _tower)
    yield _row("pe video", "PeVideoEncoder", _pe_video,
               lambda model, pixels: model.embedder.vision_model(pixels).logits)  # fmt: skip
