"""The census of folders of transformers: settings of the plain ViTs, other ways of saving, other networks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.peers.census import Made, Row
from tests.peers.census_transformers import NEEDS, made
from tests.peers.huggingface_models import LABELS, OBLONG, SQUARE, TEXT, TOWER, WIDE

SOURCE = "transformers"
VISION = {**WIDE, **SQUARE}
RATIO = {**TOWER, **SQUARE, "mlp_ratio": 2}
HIDDEN, POOLED, LOGITS = "last_hidden_state", "pooler_output", "logits"
ACTIVATIONS = (
    *("gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "relu6"),
    *("silu", "tanh", "sigmoid", "hardswish"),
)
Change = Callable[[Path], Path]


def _read(answer: str, model: Any, pixels: Any) -> Any:
    return model(pixels)[answer]


def _row(
    name: str,
    model: str,
    config: str,
    options: Mapping[str, Any],
    answer: str | Callable[[Any, Any], Any] | None = LOGITS,
    *,
    image_size: tuple[int, int] = (16, 16),
    channels: int = 3,
    refused: str = "",
    stated: Mapping[str, Any] | None = None,
    how: str = "save_pretrained",
    change: Change = lambda folder: folder,
) -> Row:
    read = partial(_read, answer) if isinstance(answer, str) else answer

    def make(folder: Path) -> Made:
        found = made(folder, model, lambda library: getattr(library, config)(**options), read, image_size, channels)
        return Made(change(folder), found.images, found.answer)

    return Row(SOURCE, name, how, make, refused, stated or {}, NEEDS)


def variants() -> Iterator[Row]:
    """Settings of the plain ViTs."""
    vit, options = ("ViTForImageClassification", "ViTConfig"), {**WIDE, **OBLONG, **LABELS}
    oblong = (16, 24)
    for name in (
        "gelu_new",
        "gelu_pytorch_tanh",
        "relu",
        "silu",
        "quick_gelu",
        "tanh",
        "sigmoid",
        "relu6",
        "hardswish",
        "mish",
        "relu2",
        "gelu_10",
        "leaky_relu",
    ):
        yield _row(f"vit with {name}", *vit, {**options, "hidden_act": name}, image_size=oblong)
    for name in ("laplace", "linear"):
        yield _row(f"vit with {name}", *vit, {**options, "hidden_act": name}, None, refused=f"hidden_act '{name}'")
    yield _row("vit of one channel", *vit, {**options, "num_channels": 1}, image_size=oblong, channels=1)
    yield _row("vit of six channels", *vit, {**options, "num_channels": 6}, image_size=oblong, channels=6)
    yield _row("vit of another epsilon", *vit, {**options, "layer_norm_eps": 1e-2}, image_size=oblong)
    yield _row("vit without biases of queries", *vit, {**options, "qkv_bias": False}, image_size=oblong)
    yield _row("vit of one class", *vit, {**options, "id2label": {0: "bee"}}, image_size=oblong)
    yield _row("vit that pools", "ViTModel", "ViTConfig", {**WIDE, **OBLONG}, HIDDEN, image_size=oblong)
    deit = {**WIDE, **OBLONG}
    yield _row(
        "deit masked", "DeiTForMaskedImageModeling", "DeiTConfig", {**WIDE, **SQUARE, "encoder_stride": 8},
        lambda model, pixels: model.deit(pixels).last_hidden_state,
    )  # fmt: skip
    yield _row("deit without biases", "DeiTModel", "DeiTConfig", {**deit, "qkv_bias": False}, HIDDEN, image_size=oblong)
    square = {**WIDE, "image_size": 16, "patch_size": 8, **LABELS, "use_relative_position_bias": True}
    for kind in ("Beit", "Data2VecVision"):
        yield _row(f"{kind} for images", f"{kind}ForImageClassification", f"{kind}Config", square)
    yield _row("msn without its head", "ViTMSNModel", "ViTMSNConfig", {**WIDE, **OBLONG}, HIDDEN, image_size=oblong)
    for size in ((16, 40), (40, 16)):
        options = {**WIDE, "image_size": size, "patch_size": 8}
        yield _row(f"vit of {size[0]}x{size[1]}", "ViTModel", "ViTConfig", options, HIDDEN, image_size=size)
    dinov2 = ("Dinov2Model", "Dinov2Config")
    yield _row("dinov2 without layer scale", *dinov2, {**RATIO, "layerscale_value": 1e-5}, HIDDEN)
    yield _row("dinov2 with another activation", *dinov2, {**RATIO, "hidden_act": "silu"}, HIDDEN)
    yield _row("dinov2 without a mask token", *dinov2, {**RATIO, "use_mask_token": False}, HIDDEN)
    yield _row("dinov2 gated", *dinov2, {**RATIO, "use_swiglu_ffn": True}, HIDDEN)
    backbone = {**RATIO, "reshape_hidden_states": False}
    for kind, config in (("Dinov2", "Dinov2Config"), ("Dinov2WithRegisters", "Dinov2WithRegistersConfig")):
        yield _row(f"{kind} backbone", f"{kind}Backbone", config, backbone, _tokens_of_the_map(config))
        early = {**backbone, "out_features": ["stage1"]}
        yield _row(
            f"{kind} backbone of an early stage", f"{kind}Backbone", config, early, _tokens_of_the_map(config, 1)
        )
        several = {**backbone, "out_features": ["stage1", "stage2"]}
        yield _row(f"{kind} backbone of two stages", f"{kind}Backbone", config, several, None,
                   refused="a backbone of 2 feature maps; expected one")  # fmt: skip
        bare = {**backbone, "apply_layernorm": False}
        yield _row(f"{kind} backbone without its norm", f"{kind}Backbone", config, bare, _last_tokens)
    clip = {**WIDE, **SQUARE}
    for name in ("gelu", "gelu_new"):
        yield _row(f"clip with {name}", "CLIPVisionModel", "CLIPVisionConfig", {**clip, "hidden_act": name}, POOLED)
    yield _row(
        "clip of another epsilon", "CLIPVisionModel", "CLIPVisionConfig", {**clip, "layer_norm_eps": 1e-3}, POOLED
    )
    yield _row("siglip with gelu", "SiglipVisionModel", "SiglipVisionConfig", {**clip, "hidden_act": "gelu"}, POOLED)
    yield _row(
        "clip classifier", "CLIPForImageClassification", "CLIPConfig",
        {"vision_config": VISION, "text_config": TEXT, "projection_dim": 7, **LABELS}, LOGITS,
    )  # fmt: skip
    yield _row(
        "clip classifier without labels", "CLIPForImageClassification", "CLIPConfig",
        {"vision_config": VISION, "text_config": TEXT, "projection_dim": 7, "num_labels": 0}, LOGITS,
    )  # fmt: skip
    yield _row(
        "metaclip 2 classifier", "MetaClip2ForImageClassification", "MetaClip2Config",
        {"vision_config": VISION, "text_config": TEXT, "projection_dim": 7, **LABELS}, LOGITS,
    )  # fmt: skip
    yield _row("siglip classifier", "SiglipForImageClassification", "SiglipConfig",
               {"vision_config": VISION, "text_config": TEXT, **LABELS}, LOGITS)  # fmt: skip
    cut = {**WIDE, "image_size": 20, "patch_size": 8}
    for kind in ("Siglip", "CLIP"):
        yield _row(f"{kind} of images that patches do not divide", f"{kind}VisionModel", f"{kind}VisionConfig", cut,
                   _of_the_first_pixels)  # fmt: skip
    for name in ("ViTForImageClassification", "Dinov2ForImageClassification"):
        options = {**(RATIO if name.startswith("D") else {**WIDE, **SQUARE}), "num_labels": 0}
        yield _row(f"{name} without labels", name, name.replace("ForImageClassification", "Config"), options, LOGITS)


def _last_tokens(model: Any, pixels: Any) -> Any:
    """The tokens as the last block leaves them."""
    return model(pixels, output_hidden_states=True).hidden_states[-1]


def _of_the_first_pixels(model: Any, pixels: Any) -> Any:
    """The vector of images with pixels beyond whole patches, which a convolution leaves unread."""
    import torch

    return model(torch.nn.functional.pad(pixels, (0, 4, 0, 4), value=9.0)).pooler_output


def _tokens_of_the_map(config: str, stage: int = -1) -> Callable[[Any, Any], Any]:
    """The whole sequence that a backbone ends with, normalised: its map leaves the prefix out."""
    import_of = {"Dinov2Config": 0, "Dinov2WithRegistersConfig": 4}[config]

    def read(model: Any, pixels: Any) -> Any:
        hidden = model(pixels, output_hidden_states=True).hidden_states[stage]
        tokens = model.layernorm(hidden)
        assert tokens.shape[1] == 1 + import_of + 4
        return tokens

    return read


def _weights_alone(folder: Path) -> Path:
    (folder / "config.json").unlink()
    return folder / "model.safetensors"


def _as_torch(folder: Path) -> Path:
    import torch
    from safetensors.torch import load_file

    state = load_file(folder / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def _in_the_hubs_cache(folder: Path) -> Path:
    snapshot = folder / "models--org--vit" / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    for file in [path for path in folder.iterdir() if path.is_file()]:
        shutil.move(file, snapshot / file.name)
    refs = folder / "models--org--vit" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0123456789abcdef")
    return folder / "models--org--vit"


def _in_a_training(folder: Path) -> Path:
    checkpoint = folder / "checkpoint-500"
    checkpoint.mkdir()
    for file in [path for path in folder.iterdir() if path.is_file()]:
        shutil.move(file, checkpoint / file.name)
    (checkpoint / "trainer_state.json").write_text('{"global_step": 500}')
    (checkpoint / "optimizer.pt").write_bytes(b"")
    return folder


def _older_config(folder: Path) -> Path:
    """As versions before 4.30 wrote it: only what differs."""
    path = folder / "config.json"
    document = json.loads(path.read_text())
    for name in ("layer_norm_eps", "hidden_act", "num_channels", "qkv_bias", "dtype", "transformers_version"):
        document.pop(name, None)
    path.write_text(json.dumps(document))
    return folder


def ways_of_saving() -> Iterator[Row]:
    """One model, saved in other ways."""
    vit = ("ViTForImageClassification", "ViTConfig", {**WIDE, **OBLONG, **LABELS})
    rest = {"image_size": (16, 24)}
    stated = {"num_heads": 3, "image_size": [16, 24]}
    ways: Mapping[str, tuple[str, Change, Mapping[str, Any]]] = {
        "weights alone": ("model.safetensors without its config", _weights_alone, stated),
        "a .bin of torch": ("safe_serialization=False", _as_torch, {}),
        "the hub's cache": ("huggingface_hub.snapshot_download", _in_the_hubs_cache, {}),
        "a training of Trainer": ("Trainer.save_model", _in_a_training, {}),
        "a config that says what differs": ("transformers before 4.30", _older_config, {}),
    }
    for name, (how, change, said) in ways.items():
        yield _row(f"vit, {name}", *vit, **rest, how=how, change=change, stated=said)
    for kind, options, answer in (
        ("Dinov2Model", RATIO, HIDDEN),
        ("CLIPVisionModel", VISION, POOLED),
        ("SiglipVisionModel", VISION, POOLED),
    ):
        config = kind.replace("Model", "Config")
        yield _row(
            f"{kind}, weights alone", kind, config, options, answer, change=_weights_alone, stated={"num_heads": 3}
        )
        yield _row(f"{kind}, a .bin of torch", kind, config, options, answer, change=_as_torch)


OTHERS: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "swin": ("SwinModel", "SwinConfig", {
        "image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}),
    "swinv2": ("Swinv2Model", "Swinv2Config", {
        "image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}),
    "convnext": ("ConvNextModel", "ConvNextConfig", {"hidden_sizes": [4, 4, 8, 8], "depths": [1, 1, 1, 1]}),
    "convnextv2": ("ConvNextV2Model", "ConvNextV2Config", {"hidden_sizes": [4, 4, 8, 8], "depths": [1, 1, 1, 1]}),
    "resnet": ("ResNetModel", "ResNetConfig", {
        "embedding_size": 4, "hidden_sizes": [4, 4, 8, 8], "depths": [1, 1, 1, 1]}),
    "regnet": ("RegNetModel", "RegNetConfig", {
        "embedding_size": 4, "hidden_sizes": [4, 4, 8, 8], "depths": [1, 1, 1, 1], "groups_width": 4}),
    "sam_vision_model": ("SamVisionModel", "SamVisionConfig", {
        **WIDE, "image_size": 16, "patch_size": 8, "output_channels": 4, "window_size": 2, "global_attn_indexes": [1]}),
    "hiera": ("HieraModel", "HieraConfig", {
        "embed_dim": 8, "image_size": [32, 32], "depths": [1, 1], "num_heads": [1, 2], "query_stride": [2, 2],
        "masked_unit_size": [2, 2], "num_query_pool": 1}),
    "segformer": ("SegformerModel", "SegformerConfig", {
        "hidden_sizes": [4, 8], "depths": [1, 1], "num_attention_heads": [1, 2], "num_encoder_blocks": 2,
        "sr_ratios": [2, 1], "patch_sizes": [3, 3], "strides": [2, 2], "mlp_ratios": [2, 2]}),
    "pvt_v2": ("PvtV2Model", "PvtV2Config", {
        "hidden_sizes": [4, 8], "depths": [1, 1], "num_attention_heads": [1, 2], "num_encoder_blocks": 2,
        "sr_ratios": [2, 1], "patch_sizes": [3, 3], "strides": [2, 2], "mlp_ratios": [2, 2]}),
    "vitdet": ("VitDetModel", "VitDetConfig", {**TOWER, "image_size": 16, "patch_size": 8, "pretrain_image_size": 16}),
    "vivit": ("VivitModel", "VivitConfig", {**WIDE, "image_size": 16, "num_frames": 2, "tubelet_size": [2, 8, 8]}),
    "timesformer": ("TimesformerModel", "TimesformerConfig", {
        **WIDE, "image_size": 16, "patch_size": 8, "num_frames": 2}),
    "videomae": ("VideoMAEModel", "VideoMAEConfig", {**WIDE, "image_size": 16, "patch_size": 8, "num_frames": 2}),
    "groupvit_vision_model": ("GroupViTVisionModel", "GroupViTVisionConfig", {
        **WIDE, "image_size": 16, "patch_size": 8, "depths": [1, 1], "num_group_tokens": [2, 0],
        "num_output_groups": [2, 1]}),
    "efficientnet": ("EfficientNetModel", "EfficientNetConfig", {"width_coefficient": 0.1, "depth_coefficient": 0.1}),
    "mobilenet_v2": ("MobileNetV2Model", "MobileNetV2Config", {"depth_multiplier": 0.1}),
    "bit": ("BitModel", "BitConfig", {"embedding_size": 32, "hidden_sizes": [128, 128], "depths": [1, 1]}),
    "levit": ("LevitModel", "LevitConfig", {
        "image_size": 64, "hidden_sizes": [16, 16, 16], "num_attention_heads": [1, 1, 1], "depths": [1, 1, 1],
        "key_dim": [4, 4, 4]}),
    "bert": ("BertModel", "BertConfig", {**WIDE, "vocab_size": 9}),
}  # fmt: skip
"""Networks that are no such ViT, by model type."""


def other_networks() -> Iterator[Row]:
    """Each is refused by its model type."""
    for model_type, (model, config, options) in OTHERS.items():
        yield _row(f"{model_type}", model, config, options, None, refused=f"model_type '{model_type}'")


def rows() -> Iterator[Row]:
    """All of them."""
    yield from variants()
    yield from ways_of_saving()
    yield from other_networks()
