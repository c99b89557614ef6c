"""The census of towers inside models of several modalities, beyond those that most people have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.peers.census import Made, Row
from tests.peers.census_transformers import NEEDS, SMALL_TEXT, made
from tests.peers.huggingface_models import SQUARE, TEXT, TOWER, WIDE

VISION = {**WIDE, **SQUARE}
RATIO = {**TOWER, **SQUARE, "mlp_ratio": 2}
SIGLIP = {**VISION, "vision_use_head": False}
Read = Callable[[Any, Any], Any]


def _tower(path: str, answer: str) -> Read:
    def read(model: Any, pixels: Any) -> Any:
        for name in path.split("."):
            model = getattr(model, name)
        return model(pixels)[answer]

    return read


def _last_stage(model: Any, pixels: Any) -> Any:
    """Every token that the backbone ends with: its map leaves the class token out."""
    return model.backbone.layernorm(model.backbone(pixels, output_hidden_states=True).hidden_states[-1])


HIDDEN, POOLED = "last_hidden_state", "pooler_output"


def _row(
    name: str,
    model: str,
    config: Callable[[Any], Any],
    read: Read | None,
    refused: str = "",
    fixed: Mapping[str, Any] | None = None,
    stated: Mapping[str, Any] | None = None,
) -> Row:
    def make(folder: Path) -> Made:
        return made(folder, model, config, read)

    return Row("transformers", name, "save_pretrained", make, refused, stated or {}, NEEDS, fixed)


def _with(kind: str, tower: str, vision: Mapping[str, Any], **options: Any) -> Callable[[Any], Any]:
    def config(library: Any) -> Any:
        text = library.LlamaConfig(**SMALL_TEXT)
        return getattr(library, kind)(vision_config=getattr(library, tower)(**vision), text_config=text, **options)

    return config


def _gemma(library: Any) -> Any:
    text = library.Gemma3TextConfig(**SMALL_TEXT, head_dim=8, num_key_value_heads=1)
    return library.Gemma3Config(
        vision_config=library.SiglipVisionConfig(**SIGLIP), text_config=text, mm_tokens_per_image=4
    )


def _kosmos(library: Any) -> Any:
    text = {"vocab_size": 9, "max_position_embeddings": 8, "embed_dim": 24, "layers": 1, "ffn_dim": 8}
    return library.Kosmos2Config(vision_config=VISION, text_config={**text, "attention_heads": 3}, latent_query_num=2)


def _colpali(library: Any) -> Any:
    inner = library.PaliGemmaConfig(
        vision_config=library.SiglipVisionConfig(**SIGLIP),
        text_config=library.GemmaConfig(**SMALL_TEXT, head_dim=8, num_key_value_heads=1), projection_dim=24,
    )  # fmt: skip
    return library.ColPaliConfig(vlm_config=inner, embedding_dim=4)


def _upernet(library: Any) -> Any:
    backbone = library.Dinov2Config(**RATIO, out_features=["stage1", "stage2"])
    return library.UperNetConfig(backbone_config=backbone, hidden_size=8, auxiliary_in_channels=24,
                                 pool_scales=[1], use_auxiliary_head=False)  # fmt: skip


def _prompted(library: Any) -> Any:
    backbone = library.Dinov2Config(**RATIO, out_features=["stage1", "stage2"], reshape_hidden_states=False)
    return library.PromptDepthAnythingConfig(
        backbone_config=backbone, neck_hidden_sizes=[8, 8], reassemble_factors=[4, 2], reassemble_hidden_size=24,
        fusion_hidden_size=8, head_hidden_size=4,
    )  # fmt: skip


def _videos(library: Any) -> Any:
    qformer, opt = {**SMALL_TEXT, "encoder_hidden_size": 24}, {"model_type": "opt", **SMALL_TEXT, "ffn_dim": 8}
    return library.InstructBlipVideoConfig(
        vision_config=VISION, qformer_config=qformer, text_config={**opt, "word_embed_proj_dim": 24}
    )


def rows() -> Iterator[Row]:
    """All of them."""
    siglip = _tower("model.vision_tower", HIDDEN)
    yield _row("gemma 3", "Gemma3ForConditionalGeneration", _gemma, siglip)
    yield _row("aya vision", "AyaVisionForConditionalGeneration",
               _with("AyaVisionConfig", "SiglipVisionConfig", SIGLIP, downsample_factor=2), siglip)  # fmt: skip
    yield _row("kosmos-2", "Kosmos2ForConditionalGeneration", _kosmos, _tower("vision_model", POOLED))
    yield _row("colpali", "ColPaliForRetrieval", _colpali, _tower("vlm.vision_tower", HIDDEN))
    yield _row("upernet on dinov2", "UperNetForSemanticSegmentation", _upernet, _last_stage)
    yield _row("prompted depth anything", "PromptDepthAnythingForDepthEstimation", _prompted,
               lambda model, pixels: model.backbone(pixels).feature_maps[-1])  # fmt: skip
    yield _row("instructblip for videos", "InstructBlipVideoForConditionalGeneration", _videos,
               _tower("vision_model", HIDDEN))  # fmt: skip
    for eye in ("image", "video"):
        yield _row(
            f"video llava, {eye}", "VideoLlavaForConditionalGeneration",
            _with("VideoLlavaConfig", "CLIPVisionConfig", VISION), _tower(f"model.{eye}_tower", POOLED),
            "it has 2 encoders of images: image_tower, video_tower", {"tower": f"{eye}_tower"},
        )  # fmt: skip
    onevision = _with("LlavaOnevisionConfig", "CLIPVisionConfig", VISION)
    yield _row("llava onevision with clip", "LlavaOnevisionForConditionalGeneration", onevision,
               _tower("model.vision_tower", POOLED))  # fmt: skip
    yield _row("vilt", "ViltModel", lambda library: library.ViltConfig(**VISION, vocab_size=9), None,
               "model_type 'vilt'")  # fmt: skip
    yield _row("x-clip", "XCLIPModel", lambda library: library.XCLIPConfig(
        vision_config={**VISION, "mit_hidden_size": 24, "mit_intermediate_size": 8, "mit_num_hidden_layers": 1,
                       "mit_num_attention_heads": 3, "num_frames": 2}, text_config=TEXT, projection_dim=24), None,
               "model_type 'xclip_vision_model', which has frames of a video")  # fmt: skip
    yield _row("llama 4", "Llama4VisionModel", lambda library: library.Llama4VisionConfig(**VISION), None,
               "model_type 'llama4_vision_model'")  # fmt: skip
