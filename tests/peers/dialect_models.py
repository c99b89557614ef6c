"""Small models of programs that are seldom installed beside each other, and what they answer.

Each is made by its own program's code. Packages are imported by name; what is no package is imported from a clone, in a
folder that holds the clones by their names.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIM, DEPTH, HEADS, HIDDEN, CLASSES = 16, 2, 2, 20, 5
OBLONG, SQUARE, PATCH = (16, 24), (16, 16), (8, 6)


@dataclass(frozen=True)
class Case:
    """One model.

    Args:
        make: takes the folder of clones, gives the torch model.
        image_size: (height, width) of the images that it is given.
        stated: what has to be said when it is loaded, besides the number of heads.
        wrapped: gives the names that its program writes, of those of the model.
        answer: takes model and images `(batch, channels, height, width)`, gives what is compared.
        channels: of the images.
        beside: a JSON document beside the weights, by its file's name.
        more: what its program writes besides the model's weights.
    """

    make: Callable[[Path], Any]
    image_size: tuple[int, int] = OBLONG
    stated: Mapping[str, Any] = field(default_factory=dict)
    wrapped: Callable[[str], str] = lambda name: name
    answer: Callable[[Any, Any], Any] = lambda model, images: model(images)
    channels: int = 3
    beside: Mapping[str, Any] = field(default_factory=dict)
    more: Callable[[Any], Mapping[str, Any]] = lambda model: {}


def _torchvision(sources: Path, **options: Any) -> Any:
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=16, patch_size=8, num_layers=DEPTH, num_heads=HEADS, hidden_dim=DIM, mlp_dim=HIDDEN,
        **{"num_classes": CLASSES, **options},
    )  # fmt: skip


def _before_0_13(name: str) -> str:
    """The names of torchvision 0.12, whose MLP had names where later ones have numbers."""
    return name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2.")


def _openai_clip(sources: Path) -> Any:
    from clip.model import CLIP, VisionTransformer

    model = CLIP(
        embed_dim=6, image_resolution=16, vision_layers=1, vision_width=64, vision_patch_size=8,
        context_length=4, vocab_size=7, transformer_width=8, transformer_heads=1, transformer_layers=1,
    )  # fmt: skip
    # Its heads are 64 wide, which would make the fixture large.
    model.visual = VisionTransformer(16, 8, DIM, DEPTH, HEADS, 6)
    return model


def _openai_entries(model: Any) -> Mapping[str, Any]:
    """What the TorchScript files hold besides the weights."""
    sizes = {"input_resolution": 16, "context_length": 4, "vocab_size": 7}
    return {name: np.array(size, np.int32) for name, size in sizes.items()}


OPEN_CLIP = {"image_size": OBLONG, "layers": DEPTH, "width": DIM, "head_width": DIM // HEADS, "patch_size": PATCH}
OPEN_CLIP_TEXT = {"context_length": 4, "vocab_size": 7, "width": 8, "heads": 2, "layers": 1}


def _open_clip_config(model: Mapping[str, Any] = {}, preprocess: Mapping[str, Any] = {}, **vision: Any) -> Any:
    config = {
        "embed_dim": 6,
        "vision_cfg": {**OPEN_CLIP, "mlp_ratio": 2.0, **vision},
        "text_cfg": OPEN_CLIP_TEXT,
        **model,
    }
    said = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], **preprocess}
    return {"open_clip_config.json": {"model_cfg": config, "preprocess_cfg": said}}


def _open_clip(sources: Path, document: Mapping[str, Any], kind: str = "CLIP") -> Any:
    import open_clip.coca_model
    import open_clip.model

    config = {
        name: value for name, value in document["open_clip_config.json"]["model_cfg"].items() if name != "custom_text"
    }
    if kind == "CoCa":
        return open_clip.coca_model.CoCa(**config)
    return getattr(open_clip.model, kind)(**config)


def _open_clip_of_timm(name: str, sources: Path, document: Mapping[str, Any]) -> Any:
    """OpenCLIP makes a tower by its name alone: here as small as the others."""
    import timm

    sizes = {
        "depth": DEPTH,
        "embed_dim": DIM,
        "num_heads": HEADS,
        "mlp_ratio": 2,
        "img_size": OBLONG,
        "patch_size": PATCH,
    }
    whole = timm.create_model
    timm.create_model = lambda name, **options: whole(name, **{**options, **sizes})
    try:
        return _open_clip(sources, document, "CustomTextCLIP")
    finally:
        timm.create_model = whole


def _open_clip_timm_case(name: str, pool: str, projection: str, **options: Any) -> Case:
    tower = {"timm_model_name": name, "timm_pool": pool, "timm_proj": projection, "image_size": OBLONG, **options}
    document = {
        "open_clip_config.json": {
            "model_cfg": {"embed_dim": 6, "vision_cfg": tower, "text_cfg": OPEN_CLIP_TEXT, "custom_text": True},
            "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "resize_mode": "squash"},
        }
    }
    return Case(
        lambda sources: _open_clip_of_timm(name, sources, document),
        stated={"num_heads": HEADS},
        answer=lambda model, images: model.encode_image(images),
        beside=document,
    )


def _open_clip_case(kind: str = "CLIP", **options: Any) -> Case:
    document = _open_clip_config(**options)
    return Case(
        lambda sources: _open_clip(sources, document, kind),
        answer=lambda model, images: model.encode_image(images),
        beside=document,
    )


def coca_case(embed_dim: int = 6, **vision: Any) -> Case:
    """CoCa, whose decoder of words is left out; it divides by the length unless it is told not to."""
    words = {"context_length": 4, "vocab_size": 7, "width": 8, "heads": 2, "layers": 1}
    document = _open_clip_config(
        model={"embed_dim": embed_dim, "multimodal_cfg": words}, attentional_pool=True, attn_pooler_queries=3,
        attn_pooler_heads=2, output_tokens=True, **vision,
    )  # fmt: skip
    return Case(
        lambda sources: _open_clip(sources, document, "CoCa"),
        stated={"pool_heads": 2},
        answer=lambda model, images: model.encode_image(images, normalize=False),
        beside=document,
    )


def _vit_pytorch(sources: Path, kind: str = "ViT", **options: Any) -> Any:
    module = importlib.import_module({"ViT": "vit_pytorch.vit", "SimpleViT": "vit_pytorch.simple_vit"}[kind])
    made = getattr(module, kind)
    sizes = {"image_size": OBLONG, "patch_size": PATCH, "num_classes": CLASSES, "dim": DIM, "depth": DEPTH}
    return made(**{**sizes, "heads": HEADS, "dim_head": DIM // HEADS, "mlp_dim": HIDDEN, **options})


def _monai(sources: Path, **options: Any) -> Any:
    from monai.networks.nets import ViT

    sizes = {"img_size": OBLONG, "patch_size": PATCH, "hidden_size": DIM, "mlp_dim": HIDDEN, "num_layers": DEPTH}
    return ViT(in_channels=2, **sizes, **{"num_heads": HEADS, "spatial_dims": 2, **options})


def _mmpretrain(sources: Path, head: Mapping[str, Any] | None = None, **options: Any) -> Any:
    import torch
    from mmpretrain.models.backbones.vision_transformer import VisionTransformer
    from mmpretrain.models.heads import LinearClsHead, VisionTransformerClsHead

    arch = {"embed_dims": DIM, "num_layers": DEPTH, "num_heads": HEADS, "feedforward_channels": HIDDEN}
    model = torch.nn.Module()
    model.backbone = VisionTransformer(arch=arch, img_size=OBLONG, patch_size=PATCH, **options)
    if head is not None:
        kind = {"vit": VisionTransformerClsHead, "linear": LinearClsHead}[head["kind"]]
        said = {name: value for name, value in head.items() if name != "kind"}
        model.head = kind(num_classes=CLASSES, in_channels=DIM, **said)
    return model


def _mmpretrain_answer(model: Any, images: Any) -> Any:
    tokens = model.backbone(images)
    return model.head(tokens) if hasattr(model, "head") else tokens[-1]


def _jeonsworld(sources: Path) -> Any:
    from ml_collections import ConfigDict

    folder = sources / "ViT-pytorch"
    _module("models.configs", folder / "models" / "configs.py", package=folder / "models")
    _module("models.modeling_resnet", folder / "models" / "modeling_resnet.py")
    modeling = _module("models.modeling", folder / "models" / "modeling.py")
    transformer = {"mlp_dim": HIDDEN, "num_heads": HEADS, "num_layers": DEPTH}
    rates = {"attention_dropout_rate": 0.0, "dropout_rate": 0.0}
    config = ConfigDict(
        {"patches": {"size": PATCH}, "hidden_size": DIM, "transformer": {**transformer, **rates}, "classifier": "token"}
    )
    return modeling.VisionTransformer(config, OBLONG, num_classes=CLASSES)


def _lukemelas(sources: Path) -> Any:
    from pytorch_pretrained_vit import model

    # It makes no model without a name.
    sizes = {"patches": PATCH, "dim": DIM, "ff_dim": HIDDEN, "num_heads": HEADS, "num_layers": DEPTH}
    rest = {"attention_dropout_rate": 0.0, "dropout_rate": 0.0, "representation_size": 7, "classifier": "token"}
    model.PRETRAINED_MODELS["small"] = {"config": sizes | rest, "image_size": OBLONG, "num_classes": CLASSES}
    return model.ViT("small", load_repr_layer=False)


def _module(name: str, path: Path, package: Path | None = None) -> ModuleType:
    """A module of a clone, which is no package."""
    if package is not None:
        parent = ModuleType(name.rpartition(".")[0])
        parent.__path__ = [str(package)]
        sys.modules[parent.__name__] = parent
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _of_the_facebookresearch_kind(sources: Path, path: str, **options: Any) -> Any:
    import torch

    folder = sources / Path(path).parts[0]
    for name in [each for each in sys.modules if each.split(".")[0] in ("utils", "src", "vision_transformer")]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        module = _module("vision_transformer", sources / path)
    finally:
        sys.path.remove(str(folder))
    sizes = {"img_size": [16], "patch_size": 8, "embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS, "mlp_ratio": 2}
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    return module.VisionTransformer(**{**sizes, "qkv_bias": True, "norm_layer": norm, **options})


def _in_monai(model: Any, images: Any) -> Any:
    return model(images)[0]


CASES: Mapping[str, Case] = {
    "torchvision": Case(_torchvision, SQUARE),
    "torchvision-0.12": Case(_torchvision, SQUARE, wrapped=_before_0_13),
    "torchvision-in-lightning": Case(_torchvision, SQUARE, wrapped=lambda name: f"model.{name}"),
    "torchvision-new-head": Case(
        partial(_torchvision, num_classes=3), SQUARE, wrapped=lambda name: name.replace("heads.head", "heads")
    ),
    "torchvision-pre-logits": Case(partial(_torchvision, representation_size=7), SQUARE),
    "openai-clip": Case(
        _openai_clip, SQUARE, answer=lambda model, images: model.visual(images), more=_openai_entries
    ),
    "openai-clip-visual": Case(
        lambda sources: _openai_clip(sources).visual, SQUARE, stated={"activation": "quick_gelu"}
    ),
    "open_clip": _open_clip_case(),
    "open_clip-quickgelu": _open_clip_case(model={"quick_gelu": True}),
    "open_clip-custom-text": _open_clip_case("CustomTextCLIP", model={"custom_text": True}),
    "open_clip-clipa": _open_clip_case(no_ln_pre=True, pool_type="avg", final_ln_after_pool=True),
    "open_clip-layer-scale": _open_clip_case(ls_init_value=0.1, pool_type="avg"),
    "open_clip-custom-blocks": _open_clip_case(qk_norm=True, scale_heads=True, scale_attn_inner=True, scale_fc=True),
    "open_clip-coca": coca_case(),
    "open_clip-coca-of-one-width": coca_case(embed_dim=DIM),
    "open_clip-siglip": _open_clip_timm_case("vit_base_patch16_siglip_224", "map", "none"),
    "open_clip-siglip2": _open_clip_timm_case("vit_base_patch32_siglip_256", "map", "none"),
    "open_clip-timm-projected": _open_clip_timm_case("vit_base_patch16_224", "", "linear"),
    "open_clip-timm-averaged": _open_clip_timm_case("vit_base_patch16_224", "avg", "linear", timm_proj_bias=True),
    "open_clip-timm-eva": _open_clip_timm_case("eva_large_patch14_196", "token", ""),
    "vit-pytorch": Case(_vit_pytorch, stated={"patch_size": PATCH}),
    "vit-pytorch-mean": Case(partial(_vit_pytorch, pool="mean"), stated={"patch_size": PATCH}),
    "vit-pytorch-simple": Case(partial(_vit_pytorch, kind="SimpleViT"), stated={"patch_size": PATCH}),
    "vit-pytorch-0.24": Case(_vit_pytorch, stated={"patch_size": PATCH}),
    "vit-pytorch-simple-0.35": Case(partial(_vit_pytorch, kind="SimpleViT"), stated={"patch_size": PATCH}),
    "monai": Case(partial(_monai, classification=True, num_classes=CLASSES), channels=2, answer=_in_monai),
    "monai-linear-head": Case(
        partial(_monai, classification=True, num_classes=CLASSES, post_activation="", qkv_bias=True),
        channels=2, answer=_in_monai,
    ),
    "monai-perceptron": Case(
        partial(_monai, proj_type="perceptron"), channels=2, answer=_in_monai, stated={"patch_size": PATCH}
    ),
    "mmpretrain": Case(partial(_mmpretrain, head={"kind": "vit"}), answer=_mmpretrain_answer),
    "mmpretrain-hidden": Case(partial(_mmpretrain, head={"kind": "vit", "hidden_dim": 7}), answer=_mmpretrain_answer),
    "mmpretrain-linear": Case(
        partial(_mmpretrain, head={"kind": "linear"}, layer_scale_init_value=0.1, pre_norm=True),
        answer=_mmpretrain_answer,
    ),
    "mmpretrain-mean": Case(
        partial(_mmpretrain, head={"kind": "linear"}, out_type="avg_featmap", final_norm=False),
        answer=_mmpretrain_answer,
    ),
    "mmpretrain-backbone": Case(_mmpretrain, answer=_mmpretrain_answer),
    "jeonsworld": Case(_jeonsworld, answer=lambda model, images: model(images)[0]),
    "pytorch_pretrained_vit": Case(_lukemelas),
    "dino": Case(lambda sources: _of_the_facebookresearch_kind(sources, "dino/vision_transformer.py"), SQUARE),
    "ibot": Case(
        lambda sources: _of_the_facebookresearch_kind(sources, "ibot/models/vision_transformer.py"), SQUARE
    ),
    "ijepa": Case(
        lambda sources: _of_the_facebookresearch_kind(sources, "ijepa/src/models/vision_transformer.py"), SQUARE,
        stated={"pooling": None}, wrapped=lambda name: f"module.{name}",
    ),
    "msn": Case(
        lambda sources: _of_the_facebookresearch_kind(sources, "msn/src/deit.py"), SQUARE,
        wrapped=lambda name: f"module.{name}",
    ),
}  # fmt: skip


def build(case: Case, sources: Path) -> Any:
    """The model, every parameter drawn again: norms about one, layer scales about a half, all else about zero."""
    import torch

    torch.manual_seed(1)
    model = case.make(sources).float().eval()
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        spread = 0.25 * torch.randn(parameter.shape, generator=generator)
        norm = parameter.ndim == 1 and name.endswith("weight") and "gamma" not in name
        scale = parameter.ndim == 1 and ("gamma" in name)
        parameter.data = spread + (1.0 if norm else 0.5 if scale else 0.0)
    return model


def state_of(case: Case, model: Any) -> dict[str, NDArray[Any]]:
    """What its program saves, by the names in the file."""
    stored = {case.wrapped(name): tensor.numpy() for name, tensor in model.state_dict().items()}
    return {**stored, **case.more(model)}


def images_for(case: Case) -> NDArray[np.float32]:
    """Two normalised images `(batch, height, width, channels)`."""
    shape = (2, *case.image_size, case.channels)
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def answer_of(case: Case, model: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the model says to images `(batch, height, width, channels)`."""
    import torch

    with torch.no_grad():
        found = case.answer(model, torch.from_numpy(images).permute(0, 3, 1, 2))
    result: NDArray[np.float32] = found.numpy()
    return result
