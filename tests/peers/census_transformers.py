"""The census of folders that transformers saves: one row a class, or a setting of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.peers import huggingface_models
from tests.peers.census import Made, Row
from tests.peers.huggingface_models import LABELS, SQUARE, TEXT, TOWER, WIDE

NEEDS = ("torch", "transformers")
VISION = {**WIDE, **SQUARE}
SMALL_TEXT = {**WIDE, "vocab_size": 9, "max_position_embeddings": 8, "pad_token_id": 1}
Read = Callable[[Any, Any], Any]


def _pooled(path: str = "") -> Read:
    """What a tower inside the model, by its path, pools."""
    return lambda model, pixels: _at(model, path)(pixels).pooler_output


def _tokens(path: str = "", move: Callable[[Any], Any] = lambda tokens: tokens) -> Read:
    """The last hidden state of a tower inside the model."""
    return lambda model, pixels: move(_at(model, path)(pixels).last_hidden_state)


def _at(model: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        model = getattr(model, name)
    return model


def _embeds(model: Any, pixels: Any) -> Any:
    found = model.get_image_features(pixels)
    return found if not hasattr(found, "pooler_output") else found.pooler_output


def _embeds_of(path: str) -> Read:
    return lambda model, pixels: _embeds(_at(model, path), pixels)


def _detections_first(tokens: Any) -> Any:
    """YOLOS's detection tokens behind the class token, where registers are here."""
    import torch

    return torch.cat([tokens[:, :1], tokens[:, -3:], tokens[:, 1:-3]], dim=1)


def _stage(model: Any, pixels: Any) -> Any:
    """All tokens behind the last norm of a backbone, which gives those of patches alone."""
    return model.norm(model(pixels, output_hidden_states=True).hidden_states[-1])


def _answered(model: Any, pixels: Any) -> Any:
    return model(pixels).logits


def made(
    folder: Path,
    model: str,
    config: Callable[[Any], Any],
    read: Read | None,
    image_size: tuple[int, int] = (16, 16),
    channels: int = 3,
    inputs: Callable[[Any], Any] = lambda pixels: pixels,
    processor: tuple[str, Mapping[str, Any]] | None = None,
    newer: bool = False,
) -> Made:
    """A model of transformers with random weights, saved.

    Args:
        folder: that it is saved to.
        model: name of its class.
        config: takes the library, gives the model's config.
        read: takes the model and pixels, gives what is compared; None for a model that is to be refused.
        image_size: (height, width) of the images.
        channels: of the images.
        inputs: what the model takes, of pixels.
        processor: class and options of the processor that is saved with it.
        newer: whether it is saved with the names that newer versions use inside.
    """
    import torch

    library = huggingface_models.library()
    built = random_model(model, config)
    built.save_pretrained(folder, save_original_format=not newer)
    if processor is not None:
        getattr(library, processor[0])(**processor[1]).save_pretrained(folder)
    if read is None:
        return Made(folder)
    images = np.random.default_rng(3).standard_normal((2, *image_size, channels)).astype(np.float32)
    with torch.no_grad():
        answer = read(built, inputs(torch.from_numpy(images).permute(0, 3, 1, 2)))
    return Made(folder, images, answer.numpy())


def random_model(model: str, config: Callable[[Any], Any]) -> Any:
    """A model of transformers in evaluation mode, every parameter of which shows in what it answers.

    Args:
        model: name of its class.
        config: takes the library, gives the model's config.
    """
    import torch

    library = huggingface_models.library()
    torch.manual_seed(1)
    built = getattr(library, model)(config(library)).eval()
    generator = torch.Generator().manual_seed(5)
    for name, parameter in built.named_parameters():
        spread = 0.25 * torch.randn(parameter.shape, generator=generator)
        norm = "norm" in name and name.endswith("weight") and parameter.ndim == 1
        parameter.data = spread + (1.0 if norm else 0.5 if "layer_scale" in name else 0.0)
    return built


def _of(kind: str, **options: Any) -> Callable[[Any], Any]:
    return lambda library: getattr(library, kind)(**options)


def _two(kind: str, vision: Mapping[str, Any] = VISION, **options: Any) -> Callable[[Any], Any]:
    text = {**TEXT, **options.pop("text", {})}
    return lambda library: getattr(library, kind)(vision_config=dict(vision), text_config=text, **options)


SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
RATIO = {**TOWER, **SQUARE, "mlp_ratio": 2}  # of those whose configs have no intermediate size


def _llava(kind: str, tower: str, **options: Any) -> Callable[[Any], Any]:
    def config(library: Any) -> Any:
        vision = getattr(library, tower)(**(options or VISION))
        return getattr(library, kind)(vision_config=vision, text_config=library.LlamaConfig(**SMALL_TEXT))

    return config


def _encoder_decoder(kind: str, **options: Any) -> Callable[[Any], Any]:
    def config(library: Any) -> Any:
        encoder = getattr(library, kind)(**(options or VISION))
        decoder = library.BertConfig(**SMALL_TEXT)
        return library.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)

    return config


def _dual(kind: str, **options: Any) -> Callable[[Any], Any]:
    def config(library: Any) -> Any:
        vision = getattr(library, kind)(**(options or VISION))
        text = library.BertConfig(**SMALL_TEXT)
        return library.VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=7)

    return config


def _depth_anything(library: Any) -> Any:
    backbone = library.Dinov2Config(
        **{**TOWER, **SQUARE}, mlp_ratio=2, out_features=["stage1", "stage2"], reshape_hidden_states=False
    )
    return library.DepthAnythingConfig(
        backbone_config=backbone, neck_hidden_sizes=[8, 8], reassemble_factors=[4, 2], reassemble_hidden_size=24,
        fusion_hidden_size=8, head_hidden_size=4,
    )  # fmt: skip


def _janus(library: Any, **options: Any) -> Any:
    return library.JanusConfig(
        vision_config=library.JanusVisionConfig(**{**RATIO, **options}, projection_dim=8),
        text_config=library.LlamaConfig(**SMALL_TEXT),
        vq_config=library.JanusVQVAEConfig(
            embed_dim=8, num_embeddings=4, base_channels=32, channel_multiplier=[1], num_res_blocks=1,
            image_token_embed_dim=8, projection_dim=8,
        ),
    )  # fmt: skip


def _idefics(kind: str, **options: Any) -> Callable[[Any], Any]:
    vision = {**VISION, **options}
    return lambda library: getattr(library, kind)(vision_config=vision, text_config=library.LlamaConfig(**SMALL_TEXT))


def _spectrogram(**options: Any) -> Callable[[Any], Any]:
    sizes = {"num_mel_bins": 16, "max_length": 24, "patch_size": 8, "frequency_stride": 8, "time_stride": 8}
    return _of("ASTConfig", **WIDE, **{**sizes, **options})


def _dpt(**options: Any) -> Callable[[Any], Any]:
    sizes = {"backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8}
    return _of("DPTConfig", **{**VISION, "num_hidden_layers": 4}, **sizes, **options)


def _yolos(**options: Any) -> Callable[[Any], Any]:
    sizes = {"image_size": [16, 24], "patch_size": 8, "num_detection_tokens": 3, "use_mid_position_embeddings": False}
    return _of("YolosConfig", **WIDE, **{**sizes, **options})


def _spectra(pixels: Any) -> Any:
    """What an audio model takes: (batch, time, mel bins)."""
    return pixels[:, 0].transpose(1, 2)


def pooled_patches(model: Any, pixels: Any) -> Any:
    """What SigLIP 2 pools of images that are cut into patches beforehand, as its processor does it."""
    return _naflex(model, pixels).pooler_output


def _naflex(model: Any, pixels: Any) -> Any:
    import torch

    batch, channels, height, width = pixels.shape
    patch = model.config.patch_size
    grid = (height // patch, width // patch)
    cut = pixels.reshape(batch, channels, grid[0], patch, grid[1], patch).permute(0, 2, 4, 3, 5, 1)
    mask = torch.ones(batch, grid[0] * grid[1], dtype=torch.long)
    return model(cut.reshape(batch, grid[0] * grid[1], -1), mask, torch.tensor([grid] * batch))


def _of_any_size(t: str) -> Iterator[Row]:
    """Models that take images of any size, at one."""
    naflex = {**WIDE, "patch_size": 8, "num_patches": 9}
    yield _row(
        t, "siglip 2 of any size", SAVED, "Siglip2VisionModel", _of("Siglip2VisionConfig", **naflex), pooled_patches,
        (24, 24), processor=("Siglip2ImageProcessor", {"patch_size": 8, "max_num_patches": 9}),
    )  # fmt: skip
    yield _row(
        t, "siglip 2 of any size, whole", SAVED, "Siglip2Model", _two("Siglip2Config", naflex),
        lambda model, pixels: pooled_patches(model.vision_model, pixels), (24, 24),
    )  # fmt: skip
    yield _row(
        t, "siglip 2 of any size, its tokens", SAVED, "Siglip2VisionModel",
        _of("Siglip2VisionConfig", **naflex, vision_use_head=False),
        lambda model, pixels: _naflex(model, pixels).last_hidden_state, (24, 24),
    )  # fmt: skip
    tips = {**RATIO, "num_register_tokens": 1}
    yield _row(t, "tips v2", SAVED, "Tipsv2VisionModel", _of("Tipsv2VisionConfig", **tips), _tokens(),
               processor=("Tipsv2ImageProcessor", {}))  # fmt: skip
    yield _row(t, "tips v2 gated", SAVED, "Tipsv2VisionModel",
               _of("Tipsv2VisionConfig", **tips, use_swiglu_ffn=True), _tokens())  # fmt: skip
    yield _row(t, "tips v2, newer names", SAVED, "Tipsv2VisionModel", _of("Tipsv2VisionConfig", **tips), _tokens(),
               newer=True)  # fmt: skip
    yield _row(t, "tips v2 of words", SAVED, "Tipsv2Model", _two("Tipsv2Config", tips), _tokens("vision_model"))
    yield _row(t, "tips v2 pooled", SAVED, "Tipsv2VisionModel", _of("Tipsv2VisionConfig", **tips), _pooled(),
               stated={"pooling": "cls"})  # fmt: skip
    pixtral = {**WIDE, "image_size": [16, 24], "patch_size": 8}
    for act in ("silu", "gelu"):
        config = _of("PixtralVisionConfig", **pixtral, hidden_act=act)
        yield _row(
            t, f"pixtral with {act}", SAVED, "PixtralVisionModel", config,
            lambda model, pixels: model(pixels).last_hidden_state.reshape(len(pixels), -1, 24), (16, 24),
            processor=("PixtralImageProcessor", {"patch_size": 8}),
        )  # fmt: skip
    yield _row(
        t, "pixtral of llava", SAVED, "LlavaForConditionalGeneration",
        _llava("LlavaConfig", "PixtralVisionConfig", **pixtral, hidden_act="silu"),
        lambda model, pixels: model.model.vision_tower(pixels).last_hidden_state.reshape(len(pixels), -1, 24), (16, 24),
    )  # fmt: skip
    internvl = {**WIDE, "image_size": [16, 16], "patch_size": [8, 8]}
    for name, options in (
        ("internvl", {}),
        ("internvl with biases", {"attention_bias": True}),
        ("internvl behind a norm", {"use_mean_pooling": False}),
        ("internvl with rms norms", {"norm_type": "rms_norm"}),
        ("internvl of 6 billion", {"norm_type": "rms_norm", "use_qk_norm": True}),
        ("internvl with norms of queries", {"use_qk_norm": True, "layer_norm_eps": 1e-3}),
    ):
        made_of = _of("InternVLVisionConfig", **internvl, **options)
        yield _row(t, name, SAVED, "InternVLVisionModel", made_of, _tokens())
    yield _row(t, "aimv2", SAVED, "Aimv2VisionModel", _of("Aimv2VisionConfig", **VISION), _pooled())
    yield _row(t, "aimv2 with biases", SAVED, "Aimv2VisionModel",
               _of("Aimv2VisionConfig", **VISION, qkv_bias=True, mlp_bias=True), _pooled())  # fmt: skip
    yield _row(t, "aimv2 of any size", SAVED, "Aimv2VisionModel", _of("Aimv2VisionConfig", **VISION, is_native=True),
               _pooled())  # fmt: skip
    yield _row(t, "aimv2, its tokens", SAVED, "Aimv2VisionModel", _of("Aimv2VisionConfig", **VISION, use_head=False),
               _tokens())  # fmt: skip
    yield _row(
        t, "aimv2 of words", SAVED, "Aimv2Model", _two("Aimv2Config", VISION, projection_dim=7),
        lambda model, pixels: model.visual_projection(model.vision_model(pixels).pooler_output),
    )  # fmt: skip


def _row(source: str, name: str, how: str, *arguments: Any, refused: str = "", **options: Any) -> Row:
    stated = options.pop("stated", {})
    fixed = options.pop("fixed", None)
    make = partial(_make, arguments, options)
    return Row(source, name, how, make, refused, stated, NEEDS, fixed)


def _make(arguments: tuple[Any, ...], options: Mapping[str, Any], folder: Path) -> Made:
    return made(folder, *arguments, **options)


def _classic(name: str, case: huggingface_models.Case) -> Row:
    """A model of the table that the goldens are made of."""

    def make(folder: Path) -> Made:
        model = huggingface_models.build(case)
        huggingface_models.save(model, case, folder)
        images = huggingface_models.images_for(case, case.image_size)
        answer = huggingface_models.answer(model, case, images)
        return Made(folder, huggingface_models.read_part(images, case), answer)

    return Row("transformers", name, f"{case.model}.save_pretrained", make, "", case.stated, NEEDS)


SAVED = "save_pretrained"


def rows() -> Iterator[Row]:
    """All of them."""
    for name, case in huggingface_models.CASES.items():
        if case.answer != "map":
            yield _classic(name, case)
    t = "transformers"
    yield _row(t, "metaclip 2", SAVED, "MetaClip2Model", _two("MetaClip2Config", projection_dim=7), _embeds)
    yield _row(t, "metaclip 2 vision", SAVED, "MetaClip2VisionModel", _of("MetaClip2VisionConfig", **VISION), _pooled())
    yield _row(
        t, "metaclip 2 projection", SAVED, "MetaClip2VisionModelWithProjection",
        _of("MetaClip2VisionConfig", **VISION, projection_dim=7), lambda model, pixels: model(pixels).image_embeds,
    )  # fmt: skip
    yield _row(t, "altclip", SAVED, "AltCLIPModel",
               _two("AltCLIPConfig", projection_dim=7, text={"project_dim": 7}), _embeds)  # fmt: skip
    yield _row(t, "altclip vision", SAVED, "AltCLIPVisionModel", _of("AltCLIPVisionConfig", **VISION), _pooled())
    yield _row(t, "chinese clip", SAVED, "ChineseCLIPModel", _two("ChineseCLIPConfig", projection_dim=7), _embeds)
    yield _row(
        t, "chinese clip vision", SAVED, "ChineseCLIPVisionModel", _of("ChineseCLIPVisionConfig", **VISION), _pooled()
    )
    yield _row(t, "clipseg", SAVED, "CLIPSegModel", _two("CLIPSegConfig", projection_dim=7), _embeds)
    yield _row(
        t, "clipseg segmentation", SAVED, "CLIPSegForImageSegmentation",
        _two("CLIPSegConfig", projection_dim=7, extract_layers=[0], reduce_dim=8, decoder_num_attention_heads=2),
        _embeds_of("clip"),
    )  # fmt: skip
    yield _row(t, "clipseg vision", SAVED, "CLIPSegVisionModel", _of("CLIPSegVisionConfig", **VISION), _pooled())
    yield _row(t, "owl-vit", SAVED, "OwlViTModel", _two("OwlViTConfig", projection_dim=7), _embeds)
    yield _row(
        t, "owl-vit detection", SAVED, "OwlViTForObjectDetection", _two("OwlViTConfig", projection_dim=7),
        _embeds_of("owlvit"),
    )  # fmt: skip
    yield _row(t, "owl-vit vision", SAVED, "OwlViTVisionModel", _of("OwlViTVisionConfig", **VISION), _pooled())
    yield _row(t, "owlv2", SAVED, "Owlv2Model", _two("Owlv2Config", projection_dim=7), _embeds)
    yield _row(
        t, "owlv2 detection", SAVED, "Owlv2ForObjectDetection", _two("Owlv2Config", projection_dim=7),
        _embeds_of("owlv2"),
    )  # fmt: skip
    yield _row(t, "blip", SAVED, "BlipModel", _two("BlipConfig", projection_dim=7), _tokens("vision_model"))
    yield _row(
        t, "blip captions", SAVED, "BlipForConditionalGeneration", _two("BlipConfig", projection_dim=7),
        _tokens("vision_model"),
    )  # fmt: skip
    yield _row(
        t, "blip retrieval", SAVED, "BlipForImageTextRetrieval", _two("BlipConfig", projection_dim=7),
        _tokens("vision_model"),
    )  # fmt: skip
    yield _row(t, "blip vision", SAVED, "BlipVisionModel", _of("BlipVisionConfig", **VISION), _tokens())
    opt = {"model_type": "opt", **SMALL_TEXT, "ffn_dim": 8, "word_embed_proj_dim": 24}
    for name, kind, config in (
        ("blip-2", "Blip2ForConditionalGeneration", "Blip2Config"),
        ("instructblip", "InstructBlipForConditionalGeneration", "InstructBlipConfig"),
    ):
        qformer = {**SMALL_TEXT, "encoder_hidden_size": 24}
        options = {"vision_config": VISION, "qformer_config": qformer, "text_config": opt}
        yield _row(t, name, SAVED, kind, _of(config, **options), _tokens("vision_model"))
    yield _row(t, "blip-2 vision", SAVED, "Blip2VisionModel", _of("Blip2VisionConfig", **VISION), _tokens())
    git = _of("GitConfig", vision_config=VISION, **SMALL_TEXT)
    yield _row(t, "git", SAVED, "GitModel", git, _tokens("image_encoder"))
    yield _row(t, "git captions", SAVED, "GitForCausalLM", git, _tokens("git.image_encoder"))
    yield _row(t, "git vision", SAVED, "GitVisionModel", _of("GitVisionConfig", **VISION), _tokens())
    yield _row(t, "janus", SAVED, "JanusModel", _janus, _tokens("vision_model"))
    yield _row(
        t, "janus with its norm of queries", SAVED, "JanusModel", partial(_janus, use_qk_norm=True), None,
        refused="a norm of queries and keys over the whole width, which transformers itself",
    )  # fmt: skip
    yield _row(
        t, "janus with its norm of one head", SAVED, "JanusModel",
        partial(_janus, use_qk_norm=True, num_attention_heads=1), _tokens("vision_model"),
    )  # fmt: skip
    for number in (2, 3):
        yield _row(
            t, f"idefics {number}", SAVED, f"Idefics{number}Model", _idefics(f"Idefics{number}Config"),
            _tokens("vision_model"),
        )  # fmt: skip
    yield _row(t, "idefics 3, 26x26 patches", SAVED, "Idefics3Model",
               _idefics("Idefics3Config", image_size=52, patch_size=2), _tokens("vision_model"), (52, 52))  # fmt: skip
    yield _row(
        t, "idefics 3, 25x25 patches", SAVED, "Idefics3Model", _idefics("Idefics3Config", image_size=50, patch_size=2),
        None, refused="a grid of 25 patches whose places depend on how the machine rounds",
    )  # fmt: skip
    yield _row(t, "smolvlm", SAVED, "SmolVLMModel", _idefics("SmolVLMConfig"), _tokens("vision_model"))
    yield _row(t, "yolos", SAVED, "YolosModel", _yolos(), _tokens(move=_detections_first), (16, 24))
    yield _row(
        t, "yolos detection", SAVED, "YolosForObjectDetection", _yolos(), _tokens("vit", _detections_first), (16, 24)
    )
    yield _row(
        t, "yolos with positions in every block", SAVED, "YolosModel", _yolos(use_mid_position_embeddings=True), None,
        refused="positions that are added again after every block",
    )  # fmt: skip
    yield _row(t, "dpt", SAVED, "DPTModel", _dpt(), _tokens())
    yield _row(t, "dpt depth", SAVED, "DPTForDepthEstimation", _dpt(), _tokens("dpt"))
    yield _row(t, "dpt segmentation", SAVED, "DPTForSemanticSegmentation", _dpt(), _tokens("dpt"))
    yield _row(
        t, "depth anything", SAVED, "DepthAnythingForDepthEstimation", _depth_anything,
        lambda model, pixels: model.backbone(pixels).feature_maps[-1],
    )  # fmt: skip
    pose = {**RATIO, "image_size": [16, 24], "patch_size": [8, 8]}
    yield _row(
        t, "vitpose", SAVED, "VitPoseForPoseEstimation",
        lambda library: library.VitPoseConfig(
            backbone_config=library.VitPoseBackboneConfig(**pose, out_indices=[-1])
        ), lambda model, pixels: model.backbone(pixels).feature_maps[-1], (16, 24),
    )  # fmt: skip
    yield _row(
        t, "vitpose backbone", SAVED, "VitPoseBackbone", _of("VitPoseBackboneConfig", **pose, out_indices=[-1]),
        lambda model, pixels: model(pixels).feature_maps[-1], (16, 24),
    )  # fmt: skip
    yield _row(
        t, "vitpose with experts", SAVED, "VitPoseBackbone",
        _of("VitPoseBackboneConfig", **pose, num_experts=2, part_features=4), None,
        refused="a feed-forward that is another for each data set",
    )  # fmt: skip
    yield _row(t, "pixio", SAVED, "PixioModel", _of("PixioConfig", **RATIO, n_cls_tokens=3), _tokens())
    yield _row(
        t,
        "pixio of one class token",
        SAVED,
        "PixioModel",
        _of("PixioConfig", **RATIO, n_cls_tokens=1),
        _tokens(),
    )
    several = _of("PixioConfig", **RATIO, n_cls_tokens=3)
    yield _row(t, "pixio pooled", SAVED, "PixioModel", several, _pooled(), stated={"pooling": "prefix_mean"})
    yield _row(
        t, "pixio backbone", SAVED, "PixioBackbone", several,
        lambda model, pixels: model.layernorm(model(pixels, output_hidden_states=True).hidden_states[-1]),
    )  # fmt: skip
    yield from _of_any_size(t)
    dinov3 = {**WIDE, "image_size": [16, 24], "patch_size": 8, "num_register_tokens": 2}
    yield _row(t, "dinov3", SAVED, "DINOv3ViTModel", _of("DINOv3ViTConfig", **dinov3), _tokens(), (16, 24))
    yield _row(t, "dinov3 with gates", SAVED, "DINOv3ViTModel",
               _of("DINOv3ViTConfig", **dinov3, use_gated_mlp=True, hidden_act="silu", mlp_bias=False), _tokens(),
               (16, 24))  # fmt: skip
    yield _row(t, "dinov3 backbone", SAVED, "DINOv3ViTBackbone", _of("DINOv3ViTConfig", **dinov3), _stage, (16, 24))
    mlcd = {**VISION, "image_size": 24}
    yield _row(t, "mlcd", SAVED, "MLCDVisionModel", _of("MLCDVisionConfig", **mlcd), _pooled(), (24, 24))
    yield _row(
        t, "mlcd of another base", SAVED, "MLCDVisionModel",
        _of("MLCDVisionConfig", **mlcd, rope_parameters={"rope_type": "axial", "rope_theta": 100.0}), _pooled(),
        (24, 24),
    )  # fmt: skip
    yield _row(
        t, "llava with mlcd", SAVED, "LlavaForConditionalGeneration",
        _llava("LlavaConfig", "MLCDVisionConfig", **mlcd), _pooled("model.vision_tower"), (24, 24),
    )  # fmt: skip
    yield _row(t, "ast without overlap", SAVED, "ASTModel", _spectrogram(), _tokens(), (16, 24), 1, _spectra)
    yield _row(t, "ast", SAVED, "ASTModel", _spectrogram(frequency_stride=4, time_stride=4), None,
               refused="patches of 8 that overlap, 4 and 4 apart")  # fmt: skip
    yield _row(
        t, "ast classifier", SAVED, "ASTForAudioClassification", _spectrogram(),
        _tokens("audio_spectrogram_transformer"), (16, 24), 1, _spectra,
        refused="a head behind the norm of the mean of two tokens", fixed={"head": False},
    )  # fmt: skip
    yield _row(t, "llava", SAVED, "LlavaForConditionalGeneration", _llava("LlavaConfig", "CLIPVisionConfig"),
               _pooled("model.vision_tower"))  # fmt: skip
    yield _row(t, "llava next", SAVED, "LlavaNextForConditionalGeneration",
               _llava("LlavaNextConfig", "CLIPVisionConfig"), _pooled("model.vision_tower"))  # fmt: skip
    yield _row(t, "llava with siglip", SAVED, "LlavaForConditionalGeneration",
               _llava("LlavaConfig", "SiglipVisionConfig", **VISION, vision_use_head=False),
               _tokens("model.vision_tower"))  # fmt: skip
    yield _row(t, "llava with dinov2", SAVED, "LlavaForConditionalGeneration",
               _llava("LlavaConfig", "Dinov2Config", **RATIO), _tokens("model.vision_tower"))  # fmt: skip
    yield _row(t, "vipllava", SAVED, "VipLlavaForConditionalGeneration",
               _llava("VipLlavaConfig", "CLIPVisionConfig"), _pooled("model.vision_tower"))  # fmt: skip
    yield _row(t, "llava onevision", SAVED, "LlavaOnevisionForConditionalGeneration",
               _llava("LlavaOnevisionConfig", "SiglipVisionConfig", **VISION, vision_use_head=False),
               _tokens("model.vision_tower"))  # fmt: skip
    yield _row(
        t, "paligemma", SAVED, "PaliGemmaForConditionalGeneration",
        lambda library: library.PaliGemmaConfig(
            vision_config=library.SiglipVisionConfig(**VISION, vision_use_head=False),
            text_config=library.GemmaConfig(**SMALL_TEXT, head_dim=8, num_key_value_heads=1), projection_dim=24),
        _tokens("model.vision_tower"),
    )  # fmt: skip
    for name, kind, options, read in (
        ("vit", "ViTConfig", {}, _tokens("encoder")),
        ("deit", "DeiTConfig", {}, _tokens("encoder")),
    ):
        yield _row(t, f"encoder-decoder of {name}", SAVED, "VisionEncoderDecoderModel",
                   _encoder_decoder(kind, **options), read)  # fmt: skip
    yield _row(
        t, "encoder-decoder of swin", SAVED, "VisionEncoderDecoderModel",
        _encoder_decoder("SwinConfig", **SWIN), None,
        refused="model_type 'swin', which has stages of several resolutions",
    )  # fmt: skip
    for name, kind in (("clip", "CLIPVisionConfig"), ("vit", "ViTConfig"), ("siglip", "SiglipVisionConfig")):
        yield _row(t, f"dual encoder of {name}", SAVED, "VisionTextDualEncoderModel", _dual(kind), _embeds)
    yield _row(
        t, "dual encoder of dinov2", SAVED, "VisionTextDualEncoderModel", _dual("Dinov2Config", **RATIO), _embeds
    )
    yield _row(
        t, "no registers", SAVED, "Dinov2WithRegistersModel",
        _of("Dinov2WithRegistersConfig", **RATIO, num_register_tokens=0), _tokens(),
    )  # fmt: skip
    yield _row(
        t, "flava", SAVED, "FlavaModel",
        _flava,
        _tokens("image_model"),
    )  # fmt: skip
    yield _row(t, "flava image", SAVED, "FlavaImageModel", _of("FlavaImageConfig", **VISION), _tokens())
    yield from _with_processors()
    yield from _in_newer_names()
    yield _row(
        t, "timm wrapper", SAVED, "TimmWrapperForImageClassification", _timm_wrapper, _answered, (224, 224),
    )  # fmt: skip


def _with_processors() -> Iterator[Row]:
    """Towers with the processor of images that the published ones come with."""
    t, square = "transformers", {"height": 16, "width": 16}
    how = "save_pretrained of model and processor"
    middle = {"size": {"shortest_edge": 16}, "crop_size": square}
    said = {"preprocess": {"mean": 0.5, "std": 0.5, "resize": [16, 16], "crop": False}}
    yield _row(
        t, "blip with its processor", how, "BlipForConditionalGeneration", _two("BlipConfig", projection_dim=7),
        _tokens("vision_model"), processor=("BlipImageProcessorPil", {"size": square}),
    )  # fmt: skip
    yield _row(
        t, "owl-vit with its processor", how, "OwlViTForObjectDetection", _two("OwlViTConfig", projection_dim=7),
        _embeds_of("owlvit"), processor=("OwlViTImageProcessorPil", {"size": square, "crop_size": square}),
    )  # fmt: skip
    yield _row(
        t, "chinese clip with its processor", how, "ChineseCLIPModel", _two("ChineseCLIPConfig", projection_dim=7),
        _embeds, processor=("ChineseCLIPImageProcessorPil", middle),
    )  # fmt: skip
    yield _row(
        t, "llava with its processor", how, "LlavaForConditionalGeneration",
        _llava("LlavaConfig", "CLIPVisionConfig"), _pooled("model.vision_tower"),
        processor=("CLIPImageProcessorPil", middle),
    )  # fmt: skip
    yield _row(
        t, "dpt with its processor", how, "DPTForDepthEstimation", _dpt(), _tokens("dpt"),
        processor=("DPTImageProcessorPil", {"size": square}),
    )  # fmt: skip
    yield _row(
        t, "yolos with its processor", how, "YolosForObjectDetection", _yolos(), _tokens("vit", _detections_first),
        (16, 24), processor=("YolosImageProcessorPil", {}), refused="do_pad", fixed=said,
    )  # fmt: skip
    yield _row(
        t, "janus with its processor", how, "JanusModel", _janus, _tokens("vision_model"),
        processor=("JanusImageProcessorPil", {"size": square}), refused="do_pad", fixed=said,
    )  # fmt: skip
    yield _row(
        t, "idefics 3 with its processor", how, "Idefics3Model", _idefics("Idefics3Config"), _tokens("vision_model"),
        processor=("Idefics3ImageProcessorPil", {}), refused="do_image_splitting", fixed=said,
    )  # fmt: skip
    yield _row(
        t, "llava next with its processor", how, "LlavaNextForConditionalGeneration",
        _llava("LlavaNextConfig", "CLIPVisionConfig"), _pooled("model.vision_tower"),
        processor=("LlavaNextImageProcessorPil", middle), refused="image_grid_pinpoints", fixed=said,
    )  # fmt: skip
    yield _row(
        t, "flava with its processor", how, "FlavaModel", _flava, _tokens("image_model"),
        processor=("FlavaImageProcessorPil", {"size": square, "crop_size": square}),
    )  # fmt: skip
    yield _row(
        t, "ast with its extractor", how, "ASTModel", _spectrogram(), _tokens(), (16, 24), 1, _spectra,
        processor=("ASTFeatureExtractor", {"num_mel_bins": 16, "max_length": 24}),
    )  # fmt: skip


def _in_newer_names() -> Iterator[Row]:
    """Larger models as newer versions name their parts."""
    t, how = "transformers", "save_pretrained with save_original_format=False"
    two = {"projection_dim": 7}
    for name, model, config, read, size in (
        ("llava", "LlavaForConditionalGeneration", _llava("LlavaConfig", "CLIPVisionConfig"),
         _pooled("model.vision_tower"), (16, 16)),
        ("blip", "BlipForConditionalGeneration", _two("BlipConfig", **two), _tokens("vision_model"), (16, 16)),
        ("owl-vit", "OwlViTForObjectDetection", _two("OwlViTConfig", **two), _embeds_of("owlvit"), (16, 16)),
        ("altclip", "AltCLIPModel", _two("AltCLIPConfig", **two, text={"project_dim": 7}), _embeds, (16, 16)),
        ("git", "GitForCausalLM", _of("GitConfig", vision_config=VISION, **SMALL_TEXT),
         _tokens("git.image_encoder"), (16, 16)),
        ("yolos", "YolosForObjectDetection", _yolos(), _tokens("vit", _detections_first), (16, 24)),
        ("dpt", "DPTForDepthEstimation", _dpt(), _tokens("dpt"), (16, 16)),
        ("pixio", "PixioModel", _of("PixioConfig", **RATIO, n_cls_tokens=3), _tokens(), (16, 16)),
        ("encoder-decoder", "VisionEncoderDecoderModel", _encoder_decoder("ViTConfig"), _tokens("encoder"), (16, 16)),
        ("dual encoder", "VisionTextDualEncoderModel", _dual("ViTConfig"), _embeds, (16, 16)),
    ):  # fmt: skip
        yield _row(t, f"{name} in newer names", how, model, config, read, size, newer=True)


def _flava(library: Any) -> Any:
    return library.FlavaConfig(
        image_config=VISION, text_config=SMALL_TEXT, multimodal_config=WIDE, hidden_size=24, projection_dim=7
    )


def _timm_wrapper(library: Any) -> Any:
    arguments = {"depth": 1, "embed_dim": 12, "num_heads": 3, "mlp_ratio": 2}
    return library.TimmWrapperConfig(
        architecture="vit_tiny_patch16_224", num_labels=5, model_args=arguments, do_pooling=True
    )


__all__ = ["LABELS", "made", "rows"]
