"""Every precision of every format, of models unlike a plain ViT in their positions, norms, scores or pooling."""

from __future__ import annotations

from pathlib import Path

import pytest

import vit_deploy
from tests.exporters.variants import trained
from tests.features import FAMILIES
from vit_deploy.core.format import Target
from vit_deploy.core.format_table import FORMATS

WIDER = {"embed_dim": 48, "num_heads": 4, "mlp_dim": 96, "include_top": True, "pooling": "cls"}
AS_THEY_ARE = (
    "AIMv2",
    "AugReg with pre-logits",
    "CLIP",
    "CoCa",
    "DINOv2 with registers",
    "DeiT",
    "EVA-02",
    "PIXIO",
    "Perception Encoder",
    "RoPE-ViT, mixed",
    "SigLIP",
    "ViT-22B",
    "averaged patches, norm after",
    "sequence behind registers",
)
MODELS: dict[str, dict[str, object]] = {
    "InternViT": WIDER,
    "Sapiens 2": WIDER,
    "prefix of five, class token": WIDER,  # whose class token tells too little of the image where it is 12 wide
    "Janus, feed-forwards scaled": {**WIDER, "head_width": 16},
    **{family: {} for family in ("DINOv3", "BEiT", *AS_THEY_ARE)},
}


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "tflite", "savedmodel"])
@pytest.mark.parametrize("family", MODELS)
def test_every_precision_is_proven(family: str, format: str, tmp_path: Path) -> None:
    precisions = [str(precision) for precision in FORMATS[format].precisions[Target.CPU]]
    checkpoint = trained(**{**FAMILIES[family], **MODELS[family]})

    made = vit_deploy.export(checkpoint, tmp_path / "made", formats=[format], precisions=precisions)

    assert [str(artifact.precision) for artifact in made] == precisions
    assert [record["parity"]["verdict"] for record in made.records] == ["same"] * len(precisions)
