"""The config of a transformers checkpoint, from its shapes and its `config.json`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from vit_deploy.checkpoints.documents import explained
from vit_deploy.checkpoints.heads import missing_head, ordered_labels
from vit_deploy.checkpoints.huggingface import aimv2
from vit_deploy.checkpoints.huggingface import names as hf
from vit_deploy.checkpoints.huggingface.backbone import backbone_depth, is_backbone
from vit_deploy.checkpoints.huggingface.families import (
    AIMV2,
    BEIT,
    CLIP,
    DINOV3,
    INTERNVL,
    PIXTRAL,
    QUERY_NORMS,
    ROTARY,
    VITPOSE,
    Family,
)
from vit_deploy.checkpoints.huggingface.names import Names
from vit_deploy.checkpoints.huggingface.relative import (
    POOLED_NORM,
    has_relative_positions,
    size_of_table,
)
from vit_deploy.checkpoints.huggingface.shapes import fields_from_shapes, more_tokens, shape_of
from vit_deploy.checkpoints.importing import Facts, default_heads, image_size_of, known_heads, without_rest
from vit_deploy.checkpoints.source import Stated, TensorFile
from vit_deploy.core.choices import Activation, FFNType, Pooling, Probabilities
from vit_deploy.core.config_checks import as_pair
from vit_deploy.core.rotary import CONVENTIONS, Rotary, RotaryConvention
from vit_deploy.errors import CheckpointError

WITH_HEADS = ("ForImageClassification", "ForImageClassificationWithTeacher", "ModelWithProjection")  # architectures
IMAGE_SIZE = 224  # of every model type, unless its config says otherwise
NUM_HEADS = 12  # likewise


ACTIVATIONS: Mapping[str, Activation] = {
    **dict.fromkeys(("gelu", "gelu_python"), Activation.GELU),
    **dict.fromkeys(
        ("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate"), Activation.GELU_TANH
    ),
    **dict.fromkeys(("silu", "swish"), Activation.SILU),
    "quick_gelu": Activation.QUICK_GELU,
    "relu": Activation.RELU,
    "relu6": Activation.RELU6,
    **{"hardswish": Activation.HARD_SILU, "mish": Activation.MISH, "leaky_relu": Activation.LEAKY_RELU_TORCH},
    **{"relu2": Activation.SQUARED_RELU, "gelu_10": Activation.GELU_CLIPPED},
    "sigmoid": Activation.SIGMOID,
    "tanh": Activation.TANH,
}

VITPOSE_PADDING = 2  # of its convolution, whatever its patches are

MULTI_LABEL = "multi_label_classification"

SAME_FIELDS: Mapping[str, str] = {
    "hidden_size": "embed_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "mlp_dim",
    "num_channels": "channels",
    "layer_norm_eps": "epsilon",
    "rms_norm_eps": "epsilon",
    "qkv_bias": "qkv_bias",
    "num_register_tokens": "register_tokens",
}


def vision_config(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of config.json that is about images; all of it where there is no other part."""
    with explained("config.json"):
        # Files of early CLIPs have the same thing twice, and the second counts.
        inner = document.get("vision_config_dict") or document.get("vision_config")
        return dict(inner) if inner else document


def facts_of(
    file: TensorFile, names: Names, family: Family, document: Mapping[str, Any], stated: Stated
) -> tuple[Facts, list[str]]:
    """What is known of the config, and labels of the classes where there are any, be it those for nameless ones.

    Raises:
        CheckpointError: shapes that no ViT has, or a config.json that says what cannot be.
        ConfigError: nobody says how many heads there are.
    """
    vision = vision_config(document)
    shapes = fields_from_shapes(file, names, vision)
    _refuse(names, family, document)
    pooler = vision.get("pooler_act", "tanh")
    if stated.get("pre_logits_dim") and pooler != "tanh":
        raise CheckpointError(
            f"its config.json says pooler_act {pooler!r}; a pooler here has tanh",
            fix="leave pre_logits_dim out, for the tokens before the pooler",
        )
    shapes |= _head(file, names, family, document)
    labels = [] if hf.PROJECTION in _heads(names) else _labels(document, in_order=shapes["include_top"])
    if not shapes["include_top"] and (promise := _promised_head(document, labels)):
        raise missing_head(promise)
    beside: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    told = beside if document else defaults  # without a config, what transformers does otherwise is an assumption
    heads = {"num_heads": NUM_HEADS} if document else _usual_heads(shapes["embed_dim"], family)
    told |= {**heads, "epsilon": family.epsilon}
    if family in (DINOV3, AIMV2, PIXTRAL) and shapes["ffn_type"] is not FFNType.MLP:
        shapes["ffn_type"] = _gated(vision, family)
    if shapes["ffn_type"] is FFNType.MLP:
        told["activation"] = _activation(vision, family)
    said = {ours: vision[theirs] for theirs, ours in SAME_FIELDS.items() if theirs in vision}
    beside |= {name: value for name, value in said.items() if value is not None or name not in shapes}
    if shapes["include_top"] and "num_labels" in document and not labels:
        beside["num_classes"] = document["num_labels"]
    if shapes["include_top"] and document.get("problem_type") == MULTI_LABEL:
        beside["probabilities"] = Probabilities.SIGMOID
    if "patch_size" in vision:
        beside["patch_size"] = as_pair(vision["patch_size"], "patch_size")
    if is_backbone(document):
        num_layers = beside.pop("num_layers", shapes["num_layers"])
        if num_layers != shapes["num_layers"]:
            raise CheckpointError(
                f"it holds {shapes['num_layers']} blocks, and its config.json says num_hidden_layers {num_layers}",
                fix="correct config.json, or get the file again",
            )
        shapes["num_layers"] = backbone_depth(document, num_layers)
        beside["last_norm"] = document.get("apply_layernorm") is not False
    if _pools_unnormalized(family, document) or (family is INTERNVL and vision.get("use_mean_pooling", True)):
        beside["last_norm"] = False
    shapes |= _query_norm(names, family)
    beside |= {"qk_norm": bool(vision.get("use_qk_norm"))} if vision and family in QUERY_NORMS else {}
    facts = Facts(shapes, beside, defaults)
    with known_heads(facts, stated, shapes["embed_dim"]):
        # ViTPose's first row is that of a class token which is not there, and is added to every patch instead.
        placed = more_tokens(file, names)[1] + (family is VITPOSE)
        shapes["patch_padding"] = VITPOSE_PADDING if family is VITPOSE else 0
        if family in ROTARY:
            with explained("config.json: rope_parameters"):
                beside["rotary"] = _rotary(vision, ROTARY[family])
        told["image_size"] = _image_size(file, names, {**shapes, "placed": placed}, vision, stated)
    if not shapes["include_top"] and "pooling" not in stated:
        pooling = _headless_pooling(names, family, document)
        beside["pooling"] = pooling and str(pooling)
    return facts, labels


def _query_norm(names: Names, family: Family) -> dict[str, Any]:
    """The norm of queries and keys over the whole width, where the blocks of the family have one."""
    norms = [names.within(block, hf.WITHIN["attention.query_norm"]) for block in names.blocks]
    if family not in QUERY_NORMS or not any(f"{norm}.weight" in names.stored for norm in norms):
        return {"qk_norm": False}
    kind, epsilon = QUERY_NORMS[family]
    return {"qk_norm": True, "qk_norm_across_heads": True, "qk_norm_type": kind, "qk_norm_epsilon": epsilon}


def _usual_heads(embed_dim: int, family: Family) -> dict[str, int]:
    """Heads as the family's published models have them, as a default; none where that does not go."""
    if family is AIMV2 and embed_dim % aimv2.HEAD_WIDTH == 0:
        return {"num_heads": embed_dim // aimv2.HEAD_WIDTH}
    return default_heads(embed_dim)


def _heads(names: Names) -> list[str]:
    return [
        head for head in (hf.CLASSIFIER, *hf.TWO_HEADS, hf.PROJECTION) if f"{names.head(head)}.weight" in names.stored
    ]


def _head(file: TensorFile, names: Names, family: Family, document: Mapping[str, Any]) -> dict[str, Any]:
    heads = _heads(names)
    of_any_tower = bool(document.get("projects_pooled"))
    if heads == [hf.PROJECTION] and family.headless is None and not of_any_tower:
        heads = []  # what it projects is pooled as no ViT here does
    if not heads:
        return {"include_top": False}
    classes = shape_of(file, f"{names.head(heads[0])}.weight", 2)[0]
    found: dict[str, Any] = {"include_top": True, "num_classes": classes, "pooling": family.head}
    if heads[0] == hf.PROJECTION:
        found["pooling"] = family.headless or Pooling.CLS
        if of_any_tower and names.has(f"{hf.POOLER}.weight"):
            found["pre_logits_dim"] = shape_of(file, f"{names.prefix}{hf.POOLER}.weight", 2)[0]
    elif heads[0] in hf.TWO_HEADS:
        found["pooling"] = Pooling.CLS_DISTILLATION
    elif (family is BEIT and names.has(f"{POOLED_NORM}.weight")) or _pools_unnormalized(family, document):
        found["pooling"] = Pooling.MEAN
    return found


def _headless_pooling(names: Names, family: Family, document: Mapping[str, Any]) -> Pooling | None:
    if family.headless is Pooling.MAP and not (names.has(f"{hf.MAP_HEAD}.probe") or names.has(aimv2.PROBE)):
        if vision_config(document).get("vision_use_head") is True and not _says_no_head(document):
            raise missing_head("its config.json says vision_use_head")
        return None
    if family is BEIT:
        return Pooling.MEAN if names.has(f"{POOLED_NORM}.weight") else None
    if _pools_unnormalized(family, document):
        return Pooling.MEAN
    classifier = any(architecture.endswith("ForImageClassification") for architecture in _architectures(document))
    return family.head if classifier else family.headless  # a classifier of no classes gives what it pools


def _refuse(names: Names, family: Family, document: Mapping[str, Any]) -> None:
    """What is computed otherwise than by any ViT here, though its weights look the same."""
    if family is CLIP and hf.CLASSIFIER in _heads(names) and not _pools_unnormalized(family, document):
        raise CheckpointError(
            "it holds a classifier on a CLIP, and no config.json of a CLIPForImageClassification says what it reads",
            fix="give it with that config.json, or leave the head out: --no-head",
        )


def _pools_unnormalized(family: Family, document: Mapping[str, Any]) -> bool:
    """Whether it is CLIP's own classifier, which takes the mean of the patches as the last block leaves them."""
    return family is CLIP and any(name.endswith("ForImageClassification") for name in _architectures(document))


def _architectures(document: Mapping[str, Any]) -> list[str]:
    found = document.get("architectures")
    return [str(label) for label in found] if isinstance(found, list) else []


def _activation(vision: Mapping[str, Any], family: Family) -> str:
    name = vision.get("hidden_act", family.activation)
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise CheckpointError(
            f"its config.json says hidden_act {name!r}; expected one of {', '.join(ACTIVATIONS)}",
            fix="models with other activations cannot be converted",
        )
    return str(ACTIVATIONS[name])


def _image_size(
    file: TensorFile, names: Names, shapes: Mapping[str, Any], vision: Mapping[str, Any], stated: Stated
) -> tuple[int, int]:
    """The size that the position table is for.

    transformers lets a size be no multiple of the patch and leaves the rest of the pixels unread (SigLIP's 384 with
    patches of 14): the size without the rest stands for it.
    """
    table = names.tensor(hf.POSITIONS)
    if table not in names.stored and has_relative_positions(names):
        said = vision.get("image_size", IMAGE_SIZE if vision else stated.get("image_size"))
        return size_of_table(file, names, shapes["patch_size"], None if said is None else as_pair(said, "image_size"))
    computed = names.has(hf.CLASS_ANGLES) or names.may_do_without_biases
    if computed and table not in names.stored:
        return _stated_size(vision, shapes["patch_size"], stated)
    tokens = shape_of(file, table, 2 if table.endswith(".weight") else 3)[-2]
    patches = tokens - shapes["class_token"] - shapes["distillation_token"] - shapes["placed"]
    patch = shapes["patch_size"]
    said = vision.get("image_size", IMAGE_SIZE if vision else None)
    whole = None if said is None else without_rest(as_pair(said, "image_size"), patch)
    if whole is None:
        return image_size_of(patches, patch, [stated.get("image_size")])
    if math.prod(side // of for side, of in zip(whole, patch, strict=True)) != patches:
        raise CheckpointError(
            f"its position table is for {patches} patches, and its config.json says image_size {said}",
            fix="correct config.json, or get the file again",
        )
    return whole


def _stated_size(vision: Mapping[str, Any], patch: tuple[int, int], stated: Stated) -> tuple[int, int]:
    """The size that the user or config.json says, of a model whose positions are computed for whatever size."""
    said = stated.get("image_size") or vision.get("image_size")
    if said is None:
        raise CheckpointError(
            "its positions are computed for the image size, and nothing says that size",
            fix='give the size it was made for: --config FILE.json with {"image_size": [height, width]}',
        )
    return without_rest(as_pair(said, "image_size"), patch)


def _rotary(vision: Mapping[str, Any], convention: RotaryConvention) -> dict[str, Any]:
    """Rotary positions whose base some files do not say."""
    said = vision.get("rope_parameters") or vision
    base = said.get("rope_theta", CONVENTIONS[convention].base)
    return Rotary(convention, float(base)).to_dict()


def _gated(vision: Mapping[str, Any], family: Family) -> FFNType:
    """The kind of a gated feed-forward, whose activation is that of its gate."""
    gates = {"silu": FFNType.SWIGLU, "swish": FFNType.SWIGLU, "gelu": FFNType.GEGLU, "sigmoid": FFNType.GLU}
    name = vision.get("hidden_act", "silu" if not vision else family.activation)
    if name not in gates:
        raise CheckpointError(
            f"its config.json says hidden_act {name!r}; expected one of {', '.join(gates)} of a gate",
            fix="models with other activations cannot be converted",
        )
    return gates[name]


def whole_size(vision: Mapping[str, Any]) -> tuple[int, int] | None:
    """(height, width) of the images that a model is for, by its config.json, with what its patches leave unread."""
    if "image_size" not in vision:
        return (IMAGE_SIZE, IMAGE_SIZE) if vision else None
    with explained("config.json"):
        return as_pair(vision["image_size"], "image_size")


def _labels(document: Mapping[str, Any], *, in_order: bool) -> list[str]:
    """Names of the classes, in order where there is a head; transformers' own for nameless ones begin with LABEL_."""
    with explained("config.json: id2label"):
        by_number = {int(number): str(label) for number, label in (document.get("id2label") or {}).items()}
    return list(ordered_labels(by_number, "id2label of config.json") if in_order else by_number.values())


def are_nameless(labels: list[str]) -> bool:
    """Whether these are what transformers calls classes that nobody has named."""
    return all(label.startswith("LABEL_") for label in labels)


def _says_no_head(document: Mapping[str, Any]) -> bool:
    return document.get("id2label") == {} or document.get("num_labels") == 0


def _promised_head(document: Mapping[str, Any], labels: list[str]) -> str:
    """The head that config.json says there is, in words; empty if it says there is none, or nothing."""
    if _says_no_head(document):
        return ""
    architectures = _architectures(document)
    said = f"its config.json says {', '.join(architectures)}" + (f" with {len(labels)} labels" if labels else "")
    if any(architecture.endswith(WITH_HEADS) for architecture in architectures):
        return said
    return "" if architectures or are_nameless(labels) else f"its config.json says {len(labels)} labels"


def parts_unread(vision: Mapping[str, Any], patch: tuple[int, int]) -> Iterator[str]:
    """What of the images is left unread, in words."""
    if "image_size" in vision:
        size = as_pair(vision["image_size"], "image_size")
        if size != (read := without_rest(size, patch)):
            yield f"all but {read[0]}x{read[1]} of {size[0]}x{size[1]} pixels"
