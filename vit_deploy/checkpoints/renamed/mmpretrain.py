"""OpenMMLab's `VisionTransformer`: files of mmpretrain and of mmcls, whole classifiers and their backbones."""

from __future__ import annotations

import re
from dataclasses import replace

from vit_deploy.checkpoints.containers.torch_training import CONFIG
from vit_deploy.checkpoints.gathering import Origin, same
from vit_deploy.checkpoints.renamed.mmpretrain_config import Said, said_in
from vit_deploy.checkpoints.renamed.names import Common, Known
from vit_deploy.checkpoints.renamed.source import Dialect, RenamedSource
from vit_deploy.checkpoints.source import TRAINING, Stated
from vit_deploy.core.choices import Pooling
from vit_deploy.core.weights import Float32

HEAD = (r"(^|.*\.)head\.(?:layers\.head|fc|head)\.(weight|bias)$", r"head.\2")
PRE_LOGITS = (r"(^|.*\.)head\.layers\.pre_logits\.", "pre_logits.")


def _known(view: Common, stated: Stated) -> Known:
    """The mean of the patches has a norm of its own, behind that of the tokens unless it is told otherwise."""
    after, before = view.has("mean_norm.weight"), view.has("norm.weight")
    if after and before:
        return Known(refused=["a norm of the tokens and another of their mean"], fix="train it with final_norm=False")
    known = Known()
    if after:
        known = Known(
            fixed={"pooling": Pooling.MEAN, "norm_after_pooling": True},
            origins={"norm.scale": same("mean_norm.weight"), "norm.bias": same("mean_norm.bias")},
        )
    said = said_in((view.documents.get(TRAINING) or {}).get(CONFIG))
    return known if said is None else _as_said(known, said, stated)


def _as_said(known: Known, said: Said, stated: Stated) -> Known:
    """What the config of the training says too; a model for blue, green and red becomes one for red, green and blue."""
    kernel = {"patch_embed.kernel": Origin(("patch_embed.weight",), _red_first)} if said.blue_first else {}
    return replace(
        known,
        fixed={**known.fixed, **{name: value for name, value in said.fields.items() if name not in stated}},
        origins={**known.origins, **kernel},
        preprocess=said.preprocess,
        supposed=said.supposed,
    )


def _red_first(kernel: Float32) -> Float32:
    return kernel.transpose(2, 3, 1, 0)[:, :, ::-1]


DIALECT = Dialect(
    name="mmpretrain",
    mark=re.compile(r"(?P<prefix>(?:.*\.)?)patch_embed\.projection\.weight$"),
    names=(
        (r"^patch_embed\.projection\.", "patch_embed."),
        (r"^layers\.(\d+)\.", r"blocks.\1."),
        (r"^ln1\.", "norm."),
        (r"^ln2\.", "mean_norm."),
        (r"\.ln([12])\.", r".norm\1."),
        (r"\.attn\.qkv\.", ".attention.packed."),
        (r"\.attn\.proj\.", ".attention.out."),
        (r"\.attn\.gamma1\.weight$", ".scale1"),
        (r"\.ffn\.gamma2\.weight$", ".scale2"),
        (r"\.ffn\.layers\.0\.0\.", ".ffn.up."),
        (r"\.ffn\.layers\.1\.", ".ffn.down."),
        (r"\.ffn\.w12\.", ".ffn.packed."),
        (r"\.ffn\.w3\.", ".ffn.down."),
        HEAD,
        PRE_LOGITS,
    ),
    outside=(HEAD, PRE_LOGITS),
    heads=re.compile(r"(^|\.)head\."),
    epsilon=1e-6,
    num_heads={1280: 16, 1408: 16},
    left_out={r"^data_preprocessor\.": "data preprocessor"},
    refused={
        r"^stages\.": "stages of several resolutions",
        r"relative_position|rel_pos": "relative positions",
        r"^patch_embed\.norm\.": "a norm of the patches",
        r"^dist_token$": "a distillation token",
    },
    known=_known,
)


def mmpretrain() -> RenamedSource:
    """The source."""
    return RenamedSource(DIALECT)
