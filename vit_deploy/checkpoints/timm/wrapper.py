"""timm's models in transformers: `TimmWrapper`, alone or as the tower of images of a larger model.

PerceptionLM and PE-AV have Perception Encoder so. The file is shown as timm keeps it on its hub: names of the model
alone, and a `config.json` of its architecture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vit_deploy.checkpoints.documents import explained
from vit_deploy.checkpoints.source import TensorFile, TensorView
from vit_deploy.checkpoints.timm.config import ASSUMED_PIXELS, CONFIG
from vit_deploy.checkpoints.timm.named import Documents
from vit_deploy.checkpoints.timm.names import STEM, TOKENS
from vit_deploy.errors import CheckpointError

MODEL_TYPE = "timm_wrapper"
ALONE = "TimmWrapperModel"  # without a head, whatever number of classes its config says
OF_OTHERS = ("global_pool",)  # which this program leaves unread where timm's own does not
POOLS = ("fc_norm.", "attn_pool.", "head.")  # parts behind the tokens
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
PERCEPTION_ENCODER: Mapping[str, Any] = {"mean": [0.5] * 3, "std": [0.5] * 3}  # of its published models
ONE_TILE: Mapping[str, Any] = {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bicubic"}


@dataclass(frozen=True)
class Wrapped(TensorView):
    """A `TensorFile` of transformers' wrapper as timm's own.

    Args:
        file: that is read.
        document: config.json as timm writes it.
        prefix: what the names of the model begin with.
        tokens: whether all tokens are what it gives.
        whole: the model type of what is around it, or "".
    """

    document: Mapping[str, Any]
    prefix: str
    tokens: bool
    whole: str

    @property
    def documents(self) -> Mapping[str, Any]:
        """Of the file, with the other config.json."""
        replaced = Documents(self.file.documents, CONFIG, self.document)
        return Documents(replaced, TOKENS, "yes") if self.tokens else replaced

    def names(self) -> Iterable[str]:
        """Names of the model alone, as far as what it gives depends on them."""
        hidden = tuple(self.prefix + part for part in POOLS) if self.tokens else ()
        return [name for name in self.file.names() if name.startswith(self.prefix) and not name.startswith(hidden)]

    @property
    def left_out(self) -> tuple[str, ...]:
        """What is not shown, in words."""
        return (f"rest of a {self.whole}",) if self.whole else ()


def as_timm_keeps_it(file: TensorFile) -> TensorFile:
    """The file as timm's own, where its config.json has a `TimmWrapper` of transformers; else the one given.

    Raises:
        CheckpointError: several such towers, or one that is asked for what no ViT here gives.
    """
    prefixes = [found["prefix"] for name in file.names() if (found := STEM.match(name))]
    document = file.documents.get(CONFIG) if prefixes else None  # which may be of others where no weights are timm's
    if not isinstance(document, Mapping) or "model_type" not in document:
        return file
    with explained(CONFIG):
        towers = list(_towers(document))
        if not towers:
            return file
        if any(tower != towers[0] for tower in towers):
            names = ", ".join(str(tower.get("architecture")) for tower in towers)
            raise CheckpointError(
                f"its config.json has several towers of timm's: {names}",
                fix="put the weights of one of them into a folder of their own, with its config",
            )
        whole = "" if document.get("model_type") == MODEL_TYPE else str(document["model_type"])
        return _wrapped(file, towers[0], min(prefixes, key=len), whole)


def _towers(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if document.get("model_type") == MODEL_TYPE:
        yield document
        return
    for inner in document.values():
        if isinstance(inner, Mapping):
            yield from _towers(inner)


def _wrapped(file: TensorFile, tower: Mapping[str, Any], prefix: str, whole: str) -> Wrapped:
    names = set(file.names())
    headless = ALONE in (tower.get("architectures") or ()) or (bool(whole) and f"{prefix}head.weight" not in names)
    tokens = headless and (bool(whole) or tower.get("do_pooling") is False)
    if tokens and f"{prefix}dist_token" in names:
        raise CheckpointError(
            f"its config.json asks for all tokens of {tower.get('architecture')}, which is read for its classes alone",
            fix="say do_pooling true in its config.json",
        )
    said = {name: value for name, value in tower.items() if name not in (*OF_OTHERS, "model_type", "architectures")}
    if headless:
        said = {name: value for name, value in said.items() if name not in ("num_classes", "label_names")}
    if all(str(label).startswith("LABEL_") for label in said.get("label_names") or ()):
        said.pop("label_names", None)
    if tokens:
        said["global_pool"] = ""
        said["model_args"] = {**(said.get("model_args") or {}), "global_pool": ""}
    if whole and "pretrained_cfg" not in said:
        pixels = _pixels(file)
        said["pretrained_cfg"] = {**ONE_TILE, **(pixels or PERCEPTION_ENCODER), ASSUMED_PIXELS: not pixels}
    return Wrapped(file, said, prefix, tokens, whole)


def _pixels(file: TensorFile) -> Mapping[str, Any]:
    """Mean and standard deviation that a processor beside it says, by timm's names; empty without one."""
    for name in PROCESSORS:
        document = file.documents.get(name)
        if not isinstance(document, Mapping):
            continue
        inner = document.get("image_processor")
        said = inner if isinstance(inner, Mapping) else document
        if said.get("image_mean") and said.get("image_std"):
            return {"mean": said["image_mean"], "std": said["image_std"]}
    return {}
