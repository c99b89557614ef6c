"""Writes golden/mlx/: a CLIP tower quantized by MLX, and what it answers with the weights that MLX makes of it.

Run from the repository's root where torch, transformers and mlx are installed (mlx-cpu on Linux):
python -m tests.peers.make_mlx_golden
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.peers import huggingface_models

TARGET = Path(__file__).with_name("golden") / "mlx"
EXPECTED = "expected.npz"
PARTS = ("weight", "scales", "biases")
USUAL = {"group_size": 32, "bits": 4}
OWN: Mapping[str, Mapping[str, int]] = {
    "vision_model.encoder.layers.0.mlp.fc1": {"group_size": 64, "bits": 3},
    "vision_model.encoder.layers.0.mlp.fc2": {"group_size": 32, "bits": 5},
    "vision_model.encoder.layers.1.mlp.fc1": {"group_size": 32, "bits": 6},
    "vision_model.encoder.layers.1.mlp.fc2": {"group_size": 32, "bits": 8},
    "vision_model.encoder.layers.1.self_attn.out_proj": {"group_size": 32, "bits": 1},
    "vision_model.embeddings.position_embedding": {"group_size": 64, "bits": 8},
    "visual_projection": {"group_size": 32, "bits": 2},
}
"""Layers that are quantized otherwise than the rest, as `config.json` has them."""


def model() -> Any:
    import torch

    library = huggingface_models.library()
    torch.manual_seed(1)
    config = library.CLIPVisionConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=8,
        projection_dim=7,
    )  # fmt: skip
    made = library.CLIPVisionModelWithProjection(config).eval()
    generator = torch.Generator().manual_seed(5)
    for name, parameter in made.named_parameters():
        spread = 0.2 * torch.randn(parameter.shape, generator=generator)
        parameter.data = spread + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return made


def main() -> None:
    import mlx.core as mx
    import torch

    made = model()
    tensors: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for name, tensor in made.state_dict().items():
        values, module = tensor.numpy(), name.removesuffix(".weight")
        if not tensor.is_floating_point():
            continue
        if values.ndim == 4:
            tensors[name] = mx.array(values.transpose(0, 2, 3, 1))
        elif values.ndim == 2:
            how = OWN.get(module, USUAL)
            packed = mx.quantize(mx.array(values), **how)
            tensors |= {f"{module}.{part}": each for part, each in zip(PARTS, packed, strict=True)}
            floats = mx.dequantize(*packed, **how)
            drawn = mx.array(np.random.default_rng(0).standard_normal((3, values.shape[1])).astype(np.float32))
            product = mx.quantized_matmul(drawn, *packed, transpose=True, **how)
            assert float(mx.abs(product - drawn @ floats.T).max()) < 1e-4  # it computes with these very floats
            plain[name] = torch.from_numpy(np.array(floats))
        else:
            tensors[name] = mx.array(values)
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir()
    mx.save_safetensors(str(TARGET / "model.safetensors"), tensors, metadata={"format": "mlx"})
    document = json.loads(made.config.to_json_string(use_diff=False))
    document |= {"architectures": [type(made).__name__], "quantization": {**USUAL, **OWN}}
    (TARGET / "config.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    made.load_state_dict(plain, strict=False)
    images = np.random.default_rng(3).standard_normal((2, 16, 16, 3)).astype(np.float32)
    with torch.no_grad():
        answer = made(torch.from_numpy(images).permute(0, 3, 1, 2)).image_embeds.numpy()
    np.savez_compressed(TARGET / EXPECTED, images=images, answer=answer)


if __name__ == "__main__":
    main()
