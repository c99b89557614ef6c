"""Image processors of transformers in terms of one resize, one crop and one normalization, or their refusal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vit_deploy.checkpoints.documents import STATED_PREPROCESS
from vit_deploy.checkpoints.source import TensorFile, TensorView
from vit_deploy.checkpoints.timm.named import Documents
from vit_deploy.core.config_checks import is_count
from vit_deploy.errors import CheckpointError

FILE = "preprocessor_config.json"
OF_A_PROCESSOR = "processor_config.json"  # of several modalities, with the same thing inside
WHOLE = frozenset({"mean", "std", "resize"})  # with these stated, nothing of a processor is left to be read

READ = frozenset(
    {
        *("do_resize", "size", "resample", "do_center_crop", "crop_size"),
        *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std"),
    }
)
"""Fields that say what is done to pixels, in every processor."""

WITHOUT_EFFECT = frozenset(
    {
        *("image_processor_type", "feature_extractor_type", "processor_class", "_processor_class", "auto_map"),
        *("do_convert_rgb", "data_format", "input_data_format", "return_tensors", "device", "disable_grouping"),
        *("_valid_processor_keys", "default_to_square", "model_input_names", "do_reduce_labels", "reduce_labels"),
        *("image_seq_length", "transformers_version", "num_labels", "do_convert_annotations", "format"),
    }
)
"""Fields that change nothing where images are in the model's own channels."""

OF_ANOTHER_INPUT = ("codebook_", "mask_group_", "total_mask_patches", "input_size_patches")
"""Beginnings of fields about what FLAVA is given beside the image."""

OF_ANY_SIZE: Mapping[str, tuple[str, ...]] = {
    "Siglip2": ("max_num_patches", "patch_size"),
    "GotOcr2": ("min_patches", "max_patches"),
    "Pixtral": ("size", "patch_size", "do_pad"),
}
"""Fields that say how large an image may be, of processors that keep its proportions; here it has the model's size."""

OTHERWISE: Mapping[str, str] = {
    "Levit": "resizes to 256/224 of the size that it records",
    "Perceiver": "crops before it resizes",
}
"""Processors whose fields are the same and mean something else."""

ANTIALIAS = "antialias"  # in resizing, which every one here does

WARPED_EDGE = 384  # from this edge on ConvNeXt's images are stretched, not cropped


def without_processor(file: TensorFile, stated: object) -> TensorFile:
    """The file without what is recorded of its image processor, where the user states the whole preprocessing."""
    whole = isinstance(stated, Mapping) and set(stated) >= WHOLE
    return Unprocessed(file) if whole else file


@dataclass(frozen=True)
class Unprocessed(TensorView):
    """A `TensorFile` beside which nothing is recorded of an image processor."""

    @property
    def documents(self) -> Mapping[str, Any]:
        """Of the file, but for the processor's, and that what is recorded elsewhere does not count either."""
        return Documents(OtherDocuments(self.file.documents), STATED_PREPROCESS, "yes")


class OtherDocuments(Mapping[str, Any]):
    """Documents but for those of an image processor."""

    def __init__(self, documents: Mapping[str, Any]) -> None:
        self._documents = documents

    def __getitem__(self, name: str) -> Any:
        if name in (FILE, OF_A_PROCESSOR):
            raise KeyError(name)
        return self._documents[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._documents if name not in (FILE, OF_A_PROCESSOR))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))


def plain_settings(word: str, filled: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a processor as fields of `READ` alone.

    Args:
        word: the first word of the processor's class; empty where the file does not say it.
        filled: what the file says, and the defaults for what it leaves out.

    Raises:
        CheckpointError: it does something to pixels that is not one resize, one crop and one normalization.
    """
    if word in OTHERWISE:
        raise CheckpointError(
            f"{FILE} is of a {word}ImageProcessor, which {OTHERWISE[word]}",
            fix=f"write what it does into {FILE} with the fields of a ViTImageProcessor",
        )
    settings = {name: value for name, value in filled.items() if name not in OF_ANY_SIZE.get(word, ())}
    if word == "ConvNext":
        settings = _convnext(settings)
    elif word == "EfficientNet":
        settings = _efficientnet(settings)
    unknown = [f"{name} {value!r}" for name, value in settings.items() if _has_effect(name, value)]
    if unknown:
        raise CheckpointError(
            f"{FILE} says {', '.join(unknown)}, which no preprocessing here does",
            fix=f"take out of {FILE} what changes no pixels of your images, or say all of it with --config: "
            '{"preprocess": {"mean": …, "std": …, "resize": …, "crop": …}}',
        )
    return settings


def _has_effect(name: str, value: Any) -> bool:
    """Whether a field beyond those that are read can change pixels."""
    if name == ANTIALIAS:
        return value is False
    if name in READ or name in WITHOUT_EFFECT or name.startswith(OF_ANOTHER_INPUT) or value is None or value is False:
        return False
    return not (name == "ensure_multiple_of" and value == 1)


def _convnext(settings: dict[str, Any]) -> dict[str, Any]:
    """Liu et al. 2022: small images are cut from larger ones, others stretched."""
    fraction = settings.pop("crop_pct", None)
    size = settings.get("size")
    edge = size.get("shortest_edge") if isinstance(size, Mapping) else size
    if not settings.get("do_resize", True) or not is_count(edge):
        return settings
    cut = {"height": edge, "width": edge}
    if edge >= WARPED_EDGE:
        return settings | {"size": cut}
    if not isinstance(fraction, float | int) or not 0 < fraction <= 1:
        raise ValueError(f"crop_pct is {fraction!r}; expected a part of 1")
    return settings | {"size": {"shortest_edge": int(edge / fraction)}, "do_center_crop": True, "crop_size": cut}


def _efficientnet(settings: dict[str, Any]) -> dict[str, Any]:
    """A byte less one where `rescale_offset` is set, and a second division by the deviation with `include_top`."""
    offset, twice = settings.pop("rescale_offset", False), settings.pop("include_top", True)
    deviation = settings.get("image_std")
    stds = [float(value) for value in deviation] if isinstance(deviation, list | tuple) else [float(deviation or 1)]
    means, once = [0.0] * len(stds), [1.0] * len(stds)
    if settings.get("do_normalize", True):
        given = settings.get("image_mean")
        means = (
            [float(value) for value in given] if isinstance(given, list | tuple) else [float(given or 0)] * len(stds)
        )
        once = stds
    shift = 1.0 if offset and settings.get("do_rescale", True) else 0.0
    return settings | {
        "do_normalize": True,
        "image_mean": [mean + shift for mean in means],
        "image_std": [std * (second if twice else 1.0) for std, second in zip(once, stds, strict=True)],
    }
