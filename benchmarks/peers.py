"""What does one export by another tool do? Run as a whole process: `python -m benchmarks.peers WAY SIZE FILE [SOURCE]`.

Each way is called as its own documentation says, on the same architecture, with a batch that stays open.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

from benchmarks.sizes import SIZES, Size

OPSET = 20


def keras_export(size: Size, target: Path, format: str) -> None:
    """`keras.Model.export`."""
    import numpy as np

    import vit_deploy

    config = size.config
    model = vit_deploy.ViT(
        input_shape=(*config.image_size, config.channels),
        num_classes=config.num_classes,
        scale=size.scale,
        patch_size=config.patch_size,
    )
    model(np.zeros((1, *config.image_size, config.channels), np.float32))  # Keras exports what was called once
    model.export(target, format=format, verbose=False)


def timm_export(size: Size, target: Path, *, dynamo: bool) -> None:
    """`torch.onnx.export` of timm's model with the same options."""
    from tests.torchvision_stand_in import install

    install()
    import torch
    from timm.models.vision_transformer import VisionTransformer

    config = size.config
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=config.embed_dim,
        depth=config.num_layers,
        num_heads=config.num_heads,
        mlp_ratio=config.mlp_dim / config.embed_dim,
        num_classes=config.num_classes,
    ).eval()
    # timm's head starts at zero, and kernels that multiply by zeros are no fair comparison.
    torch.nn.init.normal_(model.head.weight, std=0.02)
    images = torch.zeros(1, config.channels, *config.image_size)
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"], "opset_version": OPSET}
    with torch.no_grad():
        if dynamo:
            batch = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(
                model, (images,), target, dynamo=True, dynamic_shapes=batch, external_data=False, verbose=False, **names
            )
        else:
            axes = {"images": {0: "batch"}, "logits": {0: "batch"}}
            torch.onnx.export(model, (images,), str(target), dynamo=False, dynamic_axes=axes, **names)


def optimize(size: Size, target: Path, source: Path) -> None:
    """onnxruntime's optimizer for transformers, which fuses norms and activations into operators of its own."""
    from onnxruntime.transformers import optimizer

    config = size.config
    model = optimizer.optimize_model(
        str(source), model_type="vit", num_heads=config.num_heads, hidden_size=config.embed_dim
    )
    model.save_model_to_file(str(target))


def main() -> None:
    """Write one file."""
    way, size, target = sys.argv[1], SIZES[sys.argv[2]], Path(sys.argv[3])
    if way.startswith("keras-"):
        keras_export(size, target, way.removeprefix("keras-"))
    elif way.endswith("-optimized"):
        optimize(size, target, Path(sys.argv[4]))
    else:
        timm_export(size, target, dynamo=way == "timm-dynamo")


if __name__ == "__main__":
    main()
