"""The config that OpenMMLab's trainings keep as a text of Python beside the weights, read without running it."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vit_deploy.checkpoints.assumed import Assumed
from vit_deploy.checkpoints.documents import PREPROCESS
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.config_checks import is_count
from vit_deploy.core.preprocess import Interpolation, Preprocess

DEEPEST = 32  # levels of lists and dictionaries; a config has a dozen
HEADS = {"s": 8, "small": 8}  # of its architectures, where they are of another width than 64
FULL = 255.0  # means and deviations are of pixels up to this
BILINEAR = "bilinear"
# Steps of a pipeline that leave the pixels as they are, or whose numbers are read elsewhere.
NEUTRAL = (
    *("LoadImageFromFile", "Normalize", "ImageToTensor", "ToTensor", "Collect", "DefaultFormatBundle"),
    *("PackInputs", "PackClsInputs"),
)
RESIZES = ("ResizeEdge", "Resize")


@dataclass(frozen=True)
class Said:
    """What a config says of a model.

    Args:
        fields: of the config.
        mean: of the channels as the weights have them, in 0..1; empty where it is silent.
        std: likewise.
        blue_first: whether the model takes blue, green and red in this order.
        steps: of the pipeline that makes its inputs while it is tested.
    """

    fields: Mapping[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    blue_first: bool
    steps: tuple[Mapping[str, Any], ...]

    def preprocess(self, config: ViTConfig) -> Preprocess:
        """The preprocessing, for red first: of the weights too, where they are for blue first."""
        order = slice(None, None, -1 if self.blue_first else 1)
        resize, crop, filter = _sizes(self.steps, config) or (None, False, Interpolation.BILINEAR)
        return Preprocess(self.mean[order], self.std[order], resize, crop, filter)

    def supposed(self, config: ViTConfig) -> list[Assumed]:
        """What of the pipeline is not taken as it is said."""
        if _sizes(self.steps, config) is None:
            why = "its training's pipeline resizes and crops in a way that is not read here; --config says another"
            return [Assumed(PREPROCESS, "resized to the model's input", why)]
        if any(_kind(step) in RESIZES and step.get("backend", "cv2") != "pillow" for step in self.steps):
            why = "its training resized with OpenCV, whose filters are others than Pillow's of the same names"
            return [Assumed("interpolation", "of Pillow", why)]
        return []


def said_in(text: object) -> Said | None:
    """What the text of a config says of mean and std, and more; None where it says neither or is no such text."""
    whole = _dictionary(text)
    model = _mapping(whole.get("model"))
    steps = _test_steps(whole)
    normalize: Mapping[str, Any] = next((step for step in steps if _kind(step) == "Normalize"), {})
    found = [_mapping(source) for source in (model.get("data_preprocessor"), whole.get("data_preprocessor"), normalize)]
    pixels = next((values for values in found if values.get("mean") is not None and values.get("std") is not None), {})
    mean, std = _numbers(pixels.get("mean")), _numbers(pixels.get("std"))
    if not mean or len(mean) != len(std) or not all(value > 0 for value in std):
        return None
    turned = any(pixels.get(name) is True for name in ("to_rgb", "bgr_to_rgb"))
    return Said(_fields(_mapping(model.get("backbone"))), mean, std, len(mean) == 3 and not turned, steps)


def _fields(backbone: Mapping[str, Any]) -> dict[str, Any]:
    arch, norm = backbone.get("arch"), _mapping(backbone.get("norm_cfg"))
    heads = HEADS.get(arch.lower()) if isinstance(arch, str) else _mapping(arch).get("num_heads")
    fields: dict[str, Any] = {"num_heads": int(heads)} if is_count(heads) and heads > 0 else {}
    epsilon = norm.get("eps")
    return fields | ({"epsilon": epsilon} if isinstance(epsilon, float) and 0 < epsilon < 1 else {})


def _test_steps(whole: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The pipeline of the test data, of mmengine's configs and of mmcv's."""
    datasets = [_mapping(_mapping(whole.get(name)).get("dataset")) for name in ("test_dataloader", "val_dataloader")]
    datasets += [_mapping(_mapping(whole.get("data")).get(name)) for name in ("test", "val")]
    pipelines = [*(dataset.get("pipeline") for dataset in datasets), whole.get("test_pipeline")]
    found = next((pipeline for pipeline in pipelines if isinstance(pipeline, list) and pipeline), [])
    return tuple(step for step in found if isinstance(step, Mapping))


def _sizes(
    steps: Sequence[Mapping[str, Any]], config: ViTConfig
) -> tuple[int | tuple[int, int] | None, bool, Interpolation] | None:
    """Resize, crop and filter; None where a step is of another kind, or for another size than the model's."""
    resize: int | tuple[int, int] | None = None
    crop, filter = False, Interpolation.BILINEAR
    for step in steps:
        kind = _kind(step)
        if kind in RESIZES:
            resize = _resize(step)
            name = step.get("interpolation", BILINEAR)
            if resize is None or crop or name not in list(Interpolation):
                return None
            filter = Interpolation(name)
        elif kind == "CenterCrop":
            size = step.get("crop_size")
            crop = (size if isinstance(size, tuple) else (size, size)) == config.image_size
            if not crop or resize is None:
                return None
        elif kind not in NEUTRAL:
            return None
    if resize == config.image_size and not crop:
        resize = None
    if isinstance(resize, tuple) and resize != config.image_size and not crop:
        return None
    plain = resize is None and not any(_kind(step) in RESIZES for step in steps)  # nothing resizes at all
    return None if plain or (isinstance(resize, int) and not crop) else (resize, crop, filter)


def _resize(step: Mapping[str, Any]) -> int | tuple[int, int] | None:
    """What an image is resized to, as `Preprocess` says it; None for another way."""
    scale = step.get("scale", step.get("size"))
    if _kind(step) == "ResizeEdge":
        return scale if is_count(scale) and scale > 0 and step.get("edge", "short") == "short" else None
    if step.get("keep_ratio"):
        return None
    if is_count(scale) and scale > 0:
        return (scale, scale)
    if not isinstance(scale, tuple | list) or len(scale) != 2 or not all(map(is_count, scale)):
        return None
    first, second = scale
    if "size" in step:  # (height, width) of mmcls, -1 for a shorter edge alone
        return first if second == -1 and first > 0 else (first, second) if min(scale) > 0 else None
    return (second, first) if min(scale) > 0 else None  # (width, height)


def _kind(step: Mapping[str, Any]) -> str:
    return str(step.get("type", "")).rpartition(".")[2]


def _numbers(values: object) -> tuple[float, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, int | float) for value in values):
        return ()
    return tuple(float(value) / FULL for value in values)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _dictionary(text: object) -> dict[str, Any]:
    """The assignments of a text of Python, of which nothing is run: literals, and `dict` with keywords."""
    if not isinstance(text, str):
        return {}
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    return {
        statement.targets[0].id: _value(statement.value, 0)
        for statement in tree.body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }


def _value(node: ast.expr, depth: int) -> Any:
    """What an expression stands for; None for one that is no plain value."""
    if depth > DEEPEST:
        return None
    match node:
        case ast.Constant():
            return node.value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.List():
            return [_value(element, depth + 1) for element in node.elts]
        case ast.Tuple():
            return tuple(_value(element, depth + 1) for element in node.elts)
        case ast.Dict():
            pairs = zip(node.keys, node.values, strict=True)
            return {key.value: _value(value, depth + 1) for key, value in pairs if isinstance(key, ast.Constant)}
        case ast.Call(func=ast.Name(id="dict"), args=[]):
            return {keyword.arg: _value(keyword.value, depth + 1) for keyword in node.keywords if keyword.arg}
    return None
