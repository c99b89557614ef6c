"""A ViT of timm as somebody else exports it: `foreign_exports.py CHECKPOINT FOLDER` writes ONNX files there."""

from __future__ import annotations

import sys
from pathlib import Path

import timm_models
import torch

from tests import torchvision_stand_in
from vit_deploy import checkpoints


def main(checkpoint: Path, folder: Path) -> None:
    """With both exporters of torch, for one image, for any number, and with one weight altered."""
    torchvision_stand_in.install()
    import timm

    model = timm_models.timm_model(timm, checkpoints.load(checkpoint)).float().eval()
    image = torch.zeros(1, 3, 24, 32)
    torch.onnx.export(model, (image,), folder / "dynamo.onnx", input_names=["pixel_values"], output_names=["scores"])
    open_batch = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n"}}}
    torch.onnx.export(model, (image,), folder / "script.onnx", dynamo=False, **open_batch)
    with torch.no_grad():
        model.blocks[1].mlp.fc1.weight[3, 4] += 0.25
    torch.onnx.export(model, (image,), folder / "altered.onnx", dynamo=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
