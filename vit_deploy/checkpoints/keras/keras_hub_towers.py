"""Image towers of keras-hub, read without keras-hub: DINOv3, and those of CLIP, MetaCLIP 2 and SigLIP.

Each stands alone, or in the model of images and texts that it belongs to, whose projection is then its head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.checkpoints.documents import STATED_PREPROCESS, explained
from vit_deploy.checkpoints.gathering import check_layers, gather
from vit_deploy.checkpoints.importing import Settled, imported, without_rest
from vit_deploy.checkpoints.keras.image_converter import FILE as CONVERTER
from vit_deploy.checkpoints.keras.image_converter import preprocess_of, supposed_of
from vit_deploy.checkpoints.keras.keras_hub import FAMILY, TRAINING
from vit_deploy.checkpoints.keras.keras_hub_tower_names import Places, origins, places_in
from vit_deploy.checkpoints.keras.source import STATES
from vit_deploy.checkpoints.renamed.open_clip import usual
from vit_deploy.checkpoints.renamed.torchvision import IMAGENET
from vit_deploy.checkpoints.source import Stated, TensorFile, settled_config, whole_numbers
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation, FFNType, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.config_checks import as_pair
from vit_deploy.core.image_sizes import resized_preprocess
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.rotary import Rotary, RotaryConvention
from vit_deploy.errors import CheckpointError

PREFIX = "keras_hub>"
DINOV3, CLIP, METACLIP_2, SIGLIP = "DINOV3", "CLIP", "MetaCLIP2", "SigLIP"
ALONE: Mapping[str, str] = MappingProxyType(
    {
        f"{PREFIX}{DINOV3}Backbone": DINOV3,
        **{f"{PREFIX}{name}VisionEncoder": name for name in (CLIP, METACLIP_2, SIGLIP)},
    }
)
WHOLE: Mapping[str, str] = MappingProxyType({f"{PREFIX}{name}Backbone": name for name in (CLIP, METACLIP_2, SIGLIP)})
CLIP_EPSILON, SIGLIP_EPSILON = 1e-5, 1e-6  # which keras-hub has in its code; SigLIP's is of the last norm alone
SIZES = ("image_shape", "patch_size", "num_layers", "num_heads", "hidden_dim", "intermediate_dim")
BIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **{role: (f"attention.{role}",) for role in ("query", "key", "value")},
        **{"proj": ("attention.out",), "mlp": ("ffn.gate", "ffn.up", "ffn.down")},
    }
)
"""The parts of a block that each switch of DINOv3 gives a bias."""
OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        DINOV3: (
            *("num_register_tokens", "use_mask_token", "hidden_activation", "use_gated_mlp", "layer_norm_eps"),
            *(f"use_{part}_bias" for part in BIASES),
            # Of training; and of outputs of single blocks.
            *("rope_theta", "layer_scale_init_value", "drop_path_rate", "apply_layernorm"),
        ),
        **dict.fromkeys((CLIP, METACLIP_2), ("intermediate_activation", "intermediate_output_index")),
        SIGLIP: ("intermediate_activation", "layer_norm_epsilon"),
    }
)
GATES: Mapping[str, FFNType] = MappingProxyType(
    {"silu": FFNType.SWIGLU, "swish": FFNType.SWIGLU, "gelu": FFNType.GEGLU, "sigmoid": FFNType.GLU}
)
ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        **{str(kind): kind for kind in (Activation.GELU, Activation.RELU, Activation.RELU6, Activation.LEAKY_RELU)},
        **{str(kind): kind for kind in (Activation.SILU, Activation.HARD_SILU, Activation.ELU, Activation.MISH)},
        **{str(kind): kind for kind in (Activation.SIGMOID, Activation.TANH)},
        **{"swish": Activation.SILU, "hard_swish": Activation.HARD_SILU},
    }
)
"""Keras's own."""
OWN_ACTIVATIONS: Mapping[str, Mapping[str, Activation]] = MappingProxyType(
    {
        **{name: {"quick_gelu": Activation.QUICK_GELU} for name in (CLIP, METACLIP_2)},
        SIGLIP: {"gelu_approximate": Activation.GELU_TANH},
    }
)
WINDOWS, RESOLUTIONS = "attention in windows", "stages of several resolutions"
CONVOLUTIONS, FRAMES = "convolutions instead of attention", "frames of a video"
UNLIKE: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("SAM", "ViTDet"), WINDOWS),
        **dict.fromkeys(("Swin", "MiT", "SegFormer", "HGNetV2", "DFine"), RESOLUTIONS),
        **dict.fromkeys(("ResNet", "DenseNet", "EfficientNet", "MobileNet", "CSPNet", "VGG", "Xception"), CONVOLUTIONS),
        "VideoPrism": FRAMES,
    }
)
"""What models of keras-hub have that are no such ViT, for the message, by how their names begin."""


@dataclass(frozen=True)
class _Tower:
    """A tower by the options that it was made with.

    Args:
        family: key of `OPTIONS`.
        values: its options.
        whole: those of the model that it stands in; None where it stands alone.
        converter: what is recorded of the image converter, class and config; None where nothing of it counts.
    """

    family: str
    values: Mapping[str, Any]
    whole: Mapping[str, Any] | None
    converter: Mapping[str, Any] | None


class KerasHubTowerSource:
    """A tower of images, alone or with the texts' beside it; any other model of keras-hub is refused by its name."""

    heads = None

    def detects(self, file: TensorFile) -> bool:
        """Whether the model's registered name is keras-hub's."""
        if file.container not in ("keras", "h5"):
            return False
        return str(file.documents.get("config.json", {}).get("registered_name")).startswith(PREFIX)

    def read(self, file: TensorFile, stated: Stated) -> Checkpoint:
        """The checkpoint; without a pooling of its own a tower gives its whole sequence.

        Raises:
            CheckpointError: a model of another kind, options that no ViT here has, or weights that do not fit.
        """
        with explained("the config of its model"):
            tower = _tower(file)
            config = _config(tower)
            whole = as_pair(tower.values["image_shape"][:2], "image_shape")
            preprocess = preprocess_of(tower.converter, config) or _usual(tower.family, config)
            preprocess = preprocess and resized_preprocess(preprocess, config.image_size, whole)
        config = settled_config(config, stated)
        check_layers(file, config)
        states = [name for name in file.names() if STATES & set(name.split("/"))]
        places = places_in(file.names(), tower.family, whole=tower.whole is not None)
        table = origins(places, config, _without_bias(tower), _rows(file, places, tower, config))
        weights = gather(file, table, config, ignored=[*states, *_unused(places, tower)])
        return imported(
            Settled(config, {}),
            weights,
            family=FAMILY,
            preprocess=preprocess,
            preprocess_assumed=tower.converter is None,
            input_size=whole,
            supposed=supposed_of(tower.converter, whole),
            left_out=["text tower"] if places.beside else [],
        )


def _tower(file: TensorFile) -> _Tower:
    document = file.documents["config.json"]
    name = str(document["registered_name"])
    recorded = file.container == "h5" and STATED_PREPROCESS not in file.documents
    converter = file.documents.get(CONVERTER) if recorded else None
    if name in ALONE:
        return _Tower(ALONE[name], document["config"], None, converter)
    if name not in WHOLE:
        raise _not_read(name)
    inner = document["config"]["vision_encoder"]
    if inner.get("registered_name") != f"{PREFIX}{WHOLE[name]}VisionEncoder":
        raise CheckpointError(
            f"its {name} is on a {inner.get('registered_name') or inner.get('class_name')}, which is no "
            f"{WHOLE[name]}VisionEncoder, and no code of the file is run",
            fix="save one on keras-hub's own encoder of images",
        )
    return _Tower(WHOLE[name], inner["config"], document["config"], converter)


def _not_read(name: str) -> CheckpointError:
    kind = name.removeprefix(PREFIX)
    known = next((what for start, what in UNLIKE.items() if kind.startswith(start)), None)
    has = f", with {known}" if known else ""
    return CheckpointError(
        f"it holds a {name}, which is not a ViT of vit-deploy{has}, and no code of the file is run",
        fix="give a ViT, DeiT, DINOv2 or DINOv3 of keras-hub, or a CLIP, MetaCLIP 2 or SigLIP, whose tower is read",
    )


def _config(tower: _Tower) -> ViTConfig:
    values, family = tower.values, tower.family
    if problems := list(_problems(tower)):
        raise CheckpointError(
            f"its model has {'; '.join(problems)}", fix="a model can be imported if it does without what is named above"
        )
    *size, channels = values["image_shape"]
    patch = as_pair(values["patch_size"], "patch_size")
    fields: dict[str, Any] = {
        "image_size": without_rest(as_pair(size, "image_shape"), patch),
        "patch_size": patch,
        "channels": channels,
        "embed_dim": values["hidden_dim"],
        "num_heads": values["num_heads"],
        "num_layers": values["num_layers"],
        "mlp_dim": values["intermediate_dim"],
        "num_classes": 0,
        "include_top": False,
    }
    if family == DINOV3:
        return ViTConfig(**fields | _dinov3(values))
    fields["activation"] = _activations(family)[values["intermediate_activation"]]
    if family == SIGLIP:
        fields |= {"epsilon": SIGLIP_EPSILON, "class_token": False, "pooling": Pooling.MAP}
        return ViTConfig(**fields)
    fields |= {"epsilon": CLIP_EPSILON, "pre_norm": True}
    if tower.whole is None:
        return ViTConfig(**fields, last_norm=family == CLIP)
    projected = {"include_top": True, "num_classes": tower.whole["projection_dim"], "pooling": Pooling.CLS}
    return ViTConfig(**fields | projected)


def _dinov3(values: Mapping[str, Any]) -> dict[str, Any]:
    gated, activation = values["use_gated_mlp"], values["hidden_activation"]
    return {
        "ffn_type": GATES[activation] if gated else FFNType.MLP,
        "activation": Activation.GELU if gated else ACTIVATIONS[activation],
        "epsilon": values["layer_norm_eps"],
        "qkv_bias": any(values[f"use_{role}_bias"] for role in ("query", "key", "value")),
        "register_tokens": values["num_register_tokens"],
        "layer_scale": True,
        "rotary": Rotary(RotaryConvention.DINOV3_FLOAT32, float(values["rope_theta"])),
    }


def _activations(family: str) -> Mapping[str, Activation]:
    return {**ACTIVATIONS, **OWN_ACTIVATIONS.get(family, {})}


def _problems(tower: _Tower) -> Iterator[str]:
    """What stands in the way of the import, in words."""
    values, family = tower.values, tower.family
    known = {*SIZES, *TRAINING, *OPTIONS[family]}
    yield from (f"the option {name}, which is not known" for name in sorted(set(values) - known))
    if family == DINOV3:
        gated, activation = values["use_gated_mlp"], values["hidden_activation"]
        choices: tuple[str, ...] = (*GATES,) if gated else (*ACTIVATIONS,)
        what = "a gate of" if gated else "the activation"
    else:
        activation, choices, what = values["intermediate_activation"], (*_activations(family),), "the activation"
    if not isinstance(activation, str) or activation not in choices:
        yield f"{what} {activation!r}, not one of {', '.join(choices)}"
    if family == SIGLIP and values["layer_norm_epsilon"] != SIGLIP_EPSILON:
        yield (
            f"norms of epsilon {values['layer_norm_epsilon']}, the last of which has {SIGLIP_EPSILON} in keras-hub "
            "whatever the others have"
        )


def _without_bias(tower: _Tower) -> list[str]:
    switches = BIASES if tower.family == DINOV3 else {}
    return [part for switch, parts in switches.items() if not tower.values[f"use_{switch}_bias"] for part in parts]


def _unused(places: Places, tower: _Tower) -> list[str]:
    """Variables that no weight is made of."""
    mask = tower.family == DINOV3 and bool(tower.values["use_mask_token"])
    numbers = None if tower.family == DINOV3 else places.rows
    return [*places.beside, *(places.named(f"{places.embedding}.1") if mask else []), *([numbers] if numbers else [])]


def _rows(file: TensorFile, places: Places, tower: _Tower, config: ViTConfig) -> NDArray[np.uint32] | None:
    """Which row of the position table each token has, where that is not its own.

    A CLIP that keras-hub has not loaded from a preset gives all tokens the first row.

    Raises:
        CheckpointError: not a row of the table for every token.
    """
    if tower.family == DINOV3 or places.rows is None:
        return None
    rows = whole_numbers(file, places.rows).ravel()
    if len(rows) != config.sequence_length or rows.max() >= config.sequence_length:
        raise CheckpointError(
            f"{places.rows} has {len(rows)} rows of the position table up to row {rows.max()}; expected "
            f"{config.sequence_length} rows",
            fix="the file is damaged: get it again",
        )
    return None if np.array_equal(rows, np.arange(len(rows))) else rows


def _usual(family: str, config: ViTConfig) -> Preprocess | None:
    """The preprocessing of the published models, where a file records none."""
    if config.channels != 3 or family == SIGLIP:
        return None
    return Preprocess(*IMAGENET) if family == DINOV3 else usual(config)
