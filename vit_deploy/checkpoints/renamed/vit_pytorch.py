"""lucidrains' vit-pytorch: `ViT` with the class token, and `SimpleViT` with its positions of sines and cosines."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from vit_deploy.checkpoints.renamed.monai import patch_of
from vit_deploy.checkpoints.renamed.names import Common, Known, Table
from vit_deploy.checkpoints.renamed.source import Dialect, RenamedSource
from vit_deploy.checkpoints.source import Stated, TensorFile
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Pooling
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

TEMPERATURE = 10_000  # of the positions of SimpleViT
STEM = "patch_embed.weight"


def _known(view: Common, stated: Stated) -> Known:
    """The norm in front of the head is that of the pooled vector in older versions, and of the tokens in later ones."""
    refused = []
    embed_dim, _ = view.common_shape(STEM, 2)
    inner = view.common_shape("blocks.*.attention.packed.weight", 2)[0] // 3
    if inner != embed_dim:
        refused.append(f"an attention of {inner} features in a ViT of {embed_dim}")
    if stated.get("pooling") == Pooling.MEAN and view.has("cls_token"):
        refused.append("a mean that takes the class token in")
    of_the_mean = any(VECTOR_NORM.search(name) for name in view.stored.values()) and not view.has("cls_token")
    return Known(fixed={"norm_after_pooling": True} if of_the_mean else {}, refused=refused)


def _flattened(view: Common, stated: Stated) -> tuple[int, int] | None:
    return patch_of(view.common_shape(STEM, 2)[1], stated)


def _table(view: Common) -> Table | None:
    return None if view.has("pos_embed") else sines_and_cosines


def sines_and_cosines(grid: tuple[int, int], embed_dim: int) -> Float32:
    """Positions `(patches, dim)`: sine and cosine of the column, then of the row (Beyer et al. 2022, `SimpleViT`).

    Raises:
        CheckpointError: the embed dim is no multiple of four.
    """
    if embed_dim % 4 or embed_dim < 8:
        raise CheckpointError(
            f"its positions are computed, and its embed dim {embed_dim} is no multiple of 4 from 8 on",
            fix="the file is damaged: get it again",
        )
    quarter = embed_dim // 4
    frequencies = 1.0 / TEMPERATURE ** (np.arange(quarter, dtype=np.float64) / (quarter - 1))
    rows, columns = np.indices(grid, np.float64).reshape(2, -1, 1)
    parts = [wave(axis * frequencies) for axis in (columns, rows) for wave in (np.sin, np.cos)]
    table: Float32 = np.concatenate(parts, axis=1).astype(np.float32)
    return table


VECTOR_NORM = re.compile(r"(^|\.)(mlp_head|linear_head)\.0\.")

BEFORE_1_0 = Dialect(
    name="vit-pytorch",
    mark=re.compile(r"(?P<prefix>(?:.*\.)?)to_patch_embedding\.1\.weight$"),
    names=(
        (r"^to_patch_embedding\.1\.", "patch_embed."),
        (r"^pos_embedding$", "pos_embed"),
        (r"^transformer\.layers\.(\d+)\.", r"blocks.\1."),
        (r"^transformer\.norm\.", "norm."),
        (r"^(blocks\.\d+)\.0\.(fn\.)?to_qkv\.", r"\1.attention.packed."),
        (r"^(blocks\.\d+)\.0\.(fn\.)?to_out\.(0\.)?(?=weight$|bias$)", r"\1.attention.out."),
        (r"^(blocks\.\d+)\.0\.norm\.", r"\1.norm1."),
        (r"^(blocks\.\d+)\.1\.norm\.", r"\1.norm2."),
        (r"^(blocks\.\d+)\.1\.fn\.net\.0\.", r"\1.ffn.up."),
        (r"^(blocks\.\d+)\.1\.fn\.net\.[23]\.", r"\1.ffn.down."),
        (r"^(blocks\.\d+)\.1\.net\.0\.", r"\1.norm2."),
        (r"^(blocks\.\d+)\.1\.net\.1\.", r"\1.ffn.up."),
        (r"^(blocks\.\d+)\.1\.net\.[34]\.", r"\1.ffn.down."),
        (r"^(?:mlp_head|linear_head)\.0\.", "norm."),
        (r"^(?:mlp_head|linear_head)\.1\.", "head."),
        (r"^(?:mlp_head|linear_head)\.(?=weight$|bias$)", "head."),
    ),
    heads=re.compile(r"(^|\.)(mlp_head|linear_head)\.(1\.)?(weight|bias)$"),
    epsilon=1e-5,
    refused={r"^conv_stem|^patch_to_emb|^spatial_transformer": "a network of its own around the blocks"},
    known=_known,
    biasless=("attention.out",),
    pools_as_named=False,
    flattened=_flattened,
    table=_table,
)

# A norm of each patch's pixels comes first, and another behind the embedding.
SINCE_1_0 = replace(
    BEFORE_1_0,
    mark=re.compile(r"(?P<prefix>(?:.*\.)?)to_patch_embedding\.2\.weight$"),
    names=(
        (r"^to_patch_embedding\.1\.", "pixel_norm."),
        (r"^to_patch_embedding\.2\.", "patch_embed."),
        (r"^to_patch_embedding\.3\.", "patch_norm."),
        *BEFORE_1_0.names,
    ),
)


@dataclass(frozen=True)
class VitPytorch:
    """A `Source` of the versions before 1.0 and since."""

    @property
    def heads(self) -> re.Pattern[str]:
        """Found in the names of a head's tensors."""
        return BEFORE_1_0.heads

    def detects(self, file: TensorFile) -> bool:
        """By the name of the patches' kernel."""
        return RenamedSource(BEFORE_1_0).detects(file) or RenamedSource(SINCE_1_0).detects(file)

    def read(self, file: TensorFile, stated: Stated) -> Checkpoint:
        """The checkpoint, by the names of its version."""
        later = RenamedSource(SINCE_1_0)
        return (later if later.detects(file) else RenamedSource(BEFORE_1_0)).read(file, stated)


def vit_pytorch() -> VitPytorch:
    """The source."""
    return VitPytorch()
