"""The tensors of a state dict in timm's layout, by today's names."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vit_deploy.checkpoints.source import TensorFile, TensorView
from vit_deploy.checkpoints.timm.architectures import unsupported
from vit_deploy.errors import CheckpointError

STEM = re.compile(r"(?P<prefix>(?:.*\.)?)patch_embed\.(?:proj|backbone|conv\d*|stem|\d+)\.")
PATCHES = "patch_embed.proj.weight"
NAFLEX_PATCHES = "embeds.proj.weight"  # the same of a NaFlexViT
NAFLEX = "naflex"  # the document that says that a file was a NaFlexViT's, and the family of its checkpoint
TOKENS = "tokens"  # the document that says that a file is read for its tokens, without what pools them
BLOCK = re.compile(r"^blocks\.(\d{1,6})\.")
# Older names of the same tensors: DINOv2's blocks in chunks, DeiT III's layer scale, DINOv2's SwiGLU and registers.
RENAMES = (
    (re.compile(r"^blocks\.\d+\.(\d+\.)"), r"blocks.\1"),
    (re.compile(r"\.gamma_([12])$"), r".ls\1.gamma"),
    (re.compile(r"\.mlp\.w12\."), ".mlp.fc1."),
    (re.compile(r"\.mlp\.w3\."), ".mlp.fc2."),
    (re.compile(r"^(register|storage)_tokens$"), "reg_token"),
    # DINOv3's SwiGLU as Meta keeps it.
    (re.compile(r"\.mlp\.w1\."), ".mlp.fc1_g."),
    (re.compile(r"\.mlp\.w2\."), ".mlp.fc1_x."),
    (re.compile(r"^pre_logits\.fc\."), "pre_logits."),
    # EVA-02's norms inside, as its authors call them.
    (re.compile(r"\.mlp\.ffn_ln\."), ".mlp.norm."),
    (re.compile(r"\.attn\.inner_attn_ln\."), ".attn.norm."),
)
# What MAE, iBOT, DINOv2 and MSN train with, and the other tower of open_clip's models.
TEXT = re.compile(
    r"^(text\.|text_decoder\.|logit_(scale|bias)$|transformer\.resblocks\.|token_embedding\.|positional_embedding$"
    r"|ln_final\.|text_projection(\.|$)|attn_mask$)"
)
IGNORED = re.compile(rf"^(mask_token$|lm_head\.|decoder_|fc\.(fc|bn)\d\.)|{TEXT.pattern}")
TRUNK, PROJECTION = "trunk.", "head.proj."  # of OpenCLIP's towers, whose head is the projection
WITHOUT_LAST_NORM = frozenset(
    {
        *(f"vit_{size}_patch16_radio_v3" for size in ("base", "large", "huge", "giant")),
        *(f"vit_{size}_patch16_radio_v4" for size in ("so400m", "huge")),
        "vit_intern300m_patch14_448",
    }
)
"""Architectures whose last tokens are pooled as they are."""

# What tells another network, by the names of its tensors.
UNSUPPORTED: Mapping[str, str] = {
    r"^(layers|stages)\.\d+\.": "stages of several resolutions, as Swin has",
    r"^patch_embed\.(backbone|conv\d*|stem|\d+)\.": "a convolutional stem",
    r"^(?!(blocks\.\d+\.attn\.(rel_pos\.)?|rel_pos_bias\.|shared_rel_pos\.)"
    r"(relative_position_(bias_table|index)|mlp\.fc[12]\.(weight|bias))$)"
    r".*(relative_position|rel_pos)": "relative positions of another kind, as SAM has",
    r"(^|\.)rope\b|\.freqs|\.periods$": "rotary positions",
    r"^blocks\.\d+\.(attns|ffns)\.\d+\.(attn\.([qk]_)?norm|mlp\.norm)\.": "norms inside of several attentions",
    r"\.lambda_[qk]\d$": "differential attention",
    r"\.attn\.gate\.": "gated attention",
    r"\.attn\.[qkv]_proj\.": "query, key and value that are not packed, as EVA has",
    r"^(blocks_token_only|cls_attn_layers|norm_embed)\b": "class attention",
}


@dataclass(frozen=True)
class Renamed(TensorView):
    """A `TensorFile` under other names.

    Args:
        file: that is read.
        stored: name in the file, by the name here.
    """

    stored: Mapping[str, str]

    @property
    def documents(self) -> Mapping[str, Any]:
        """The documents of the file."""
        return self.file.documents

    def names(self) -> Iterable[str]:
        """Names here."""
        return self.stored.keys()

    def stored_name(self, name: str) -> str:
        """The name in the file of a tensor."""
        return self.stored[name]

    @functools.cached_property
    def kinds(self) -> Mapping[str, list[str]]:
        """Names by what they are in every block, `blocks.*.norm1.bias`."""
        kinds: dict[str, list[str]] = {}
        for name in self.stored:
            kinds.setdefault(kind_of(name), []).append(name)
        return kinds

    def common_shape(self, kind: str, axes: int) -> tuple[int, ...]:
        """The shape that most tensors of a kind have; one that has another is then found to be wrong.

        Raises:
            CheckpointError: there is none with as many axes.
        """
        found = [self.shape(name) for name in self.kinds.get(kind, ())]
        fitting = Counter(shape for shape in found if len(shape) == axes and 0 not in shape)
        if not fitting:
            raise CheckpointError(
                f"{kind} {found[0]} has not {axes} axes" if found else f"it has no {kind}",
                fix="the file is damaged or of another network: get it again",
            )
        return fitting.most_common(1)[0][0]


def kind_of(name: str) -> str:
    """A tensor's name without the number of its block."""
    return BLOCK.sub("blocks.*.", name)


def is_timm(names: Iterable[str]) -> bool:
    """Whether a file with tensors of these names has timm's stem."""
    return any(map(STEM.match, names))


def renamed(file: TensorFile) -> Renamed:
    """The file under today's names and without the prefix that a model around it has put there.

    A tensor whose new name is taken keeps its own, and is then unexpected.
    """
    names = list(file.names())
    prefix = min((found["prefix"] for name in names if (found := STEM.match(name))), key=len)
    projection = prefix.removesuffix(TRUNK) + PROJECTION if prefix.endswith(TRUNK) else None
    stored: dict[str, str] = {}
    for name in names:
        today = name.removeprefix(prefix)
        if projection and name.startswith(projection):
            today = name.replace(projection, "head.", 1)
        for pattern, replacement in RENAMES:
            today = pattern.sub(replacement, today)
        stored[name if today in stored else today] = name
    return Renamed(file, stored)


def family_of(view: Renamed) -> str:
    """Whose program wrote the file: `dinov2` by tensors that only its own files have, else timm."""
    origin = set(view.stored.values())
    # MAE has a `mask_token` as well, of three axes.
    masks = "mask_token" in view.stored and len(view.shape("mask_token")) == 2
    of_dinov2 = masks or any(name.endswith("register_tokens") or ".mlp.w12." in name for name in origin)
    return "dinov2" if of_dinov2 else "timm"


def has_last_norm(view: Renamed) -> bool:
    """Whether a norm follows the last block, or the pooling."""
    return "norm.weight" in view.stored or "fc_norm.weight" in view.stored


def _may_lack_it(documents: Mapping[str, Any]) -> bool:
    """Whether a file without a last norm is whole: of an architecture that has none."""
    config = documents.get("config.json")
    said = documents.get("--architecture") or (config.get("architecture") if isinstance(config, Mapping) else None)
    return NAFLEX in documents or TOKENS in documents or str(said).partition(".")[0] in WITHOUT_LAST_NORM


def check_supported(view: Renamed) -> None:
    """Refuse a network that shares names with this ViT and computes something else.

    Raises:
        CheckpointError: says what it has that no ViT of this kind has.
    """
    problems = []
    for pattern, what in UNSUPPORTED.items():
        if found := next((name for name in view.stored if re.search(pattern, name)), None):
            problems.append(f"{what} ({found})")
    if PATCHES in view.stored and len(view.shape(PATCHES)) != 4:
        problems.append(f"patches of another kind ({PATCHES} {view.shape(PATCHES)})")
    if "pos_embed" not in view.stored and not any("rel_pos" in name or "relative_" in name for name in view.stored):
        problems.append("no position table (pos_embed)")
    if not has_last_norm(view) and not _may_lack_it(view.documents):
        problems.append("no last norm (norm.weight or fc_norm.weight)")
    if not any(map(BLOCK.match, view.stored)):
        problems.append("no blocks (blocks.0)")
    if problems:
        raise unsupported("it", problems)
