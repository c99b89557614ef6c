"""What a ViT sees: a picture of three principal components of its patch tokens and of its class token's attention.

The picture is drawn from the exported file alone, with ONNX Runtime, NumPy and Pillow. Without a file, a small ViT
learns the digits first and is exported with the outputs that are drawn.

python samples/05_dense_features.py [-o artifacts/dense] [--epochs 4]
python samples/05_dense_features.py --file artifacts/dinov2/onnx-fp32/model.onnx photo.jpg
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageOps

Array = NDArray[np.float32]

SIDE = 256  # pixels of each part of the picture


def draw(file: Path, photo: Path) -> Image.Image:
    """The image, the components of its patches as colours, and the attention of its class token, side by side."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    features = next((name for name in names if name.endswith("map")), None)
    attention = next((name for name in names if name.endswith("attention")), None)
    if features is None or attention is None:
        raise SystemExit(f"{file} gives {', '.join(names)}: export it with --output map --output block_11.attention")

    # The file says itself how an image becomes its input.
    _, height, width, channels = session.get_inputs()[0].shape
    preprocess = json.loads(session.get_modelmeta().custom_metadata_map["vit_deploy.preprocess"])
    image = ImageOps.exif_transpose(Image.open(photo)).convert("L" if channels == 1 else "RGB")
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, np.float32).reshape(1, height, width, channels)
    images = np.asarray((pixels / 255 - preprocess["mean"]) / preprocess["std"], np.float32)
    (grid,), (shares,) = session.run([features, attention], {"images": images})

    colours, held = components(grid)
    print(f"{features} {grid.shape}: three components hold {held:.2f} of the variance")
    rows, columns, _ = grid.shape
    looks = shares[:, 0, -rows * columns :].mean(axis=0).reshape(rows, columns)
    print(f"{attention} {shares.shape}: {looks.sum():.2f} of the class token's attention is on the patches")

    parts = [image.convert("RGB"), as_image(colours), as_image(np.repeat(looks[..., None], 3, axis=-1))]
    picture = Image.new("RGB", (SIDE * len(parts), SIDE * height // width))
    for place, part in enumerate(parts):
        picture.paste(part.resize((SIDE, picture.height), Image.Resampling.NEAREST), (SIDE * place, 0))
    return picture


def components(grid: Array) -> tuple[Array, float]:
    """The first three principal components of the patches `(rows, columns, 3)`, and their part of the variance."""
    tokens = grid.reshape(-1, grid.shape[-1]).astype(np.float64)
    centred = tokens - tokens.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    held = float((sizes[:3] ** 2).sum() / (sizes**2).sum())
    return (left[:, :3] * sizes[:3]).reshape(*grid.shape[:2], 3).astype(np.float32), held


def as_image(values: Array) -> Image.Image:
    """Each channel from its lowest value to its highest."""
    low, high = values.min(axis=(0, 1)), values.max(axis=(0, 1))
    return Image.fromarray(np.uint8(np.rint(255 * (values - low) / np.maximum(high - low, 1e-12))))


def make_file(directory: Path, epochs: int) -> tuple[Path, Path]:
    """A ViT that has learned the digits, exported with the outputs that are drawn, and an image of a digit."""
    import digits
    import keras

    import vit_deploy

    keras.utils.set_random_seed(0)
    vit = vit_deploy.ViT(
        input_shape=(32, 32, 1),
        patch_size=4,
        scale="pico",
        num_classes=10,
        embed_dim=64,
        num_heads=4,
        num_layers=2,
        kernel_initializer="glorot_uniform",
    )
    data = digits.load()
    larger = [pixels.repeat(4, axis=1).repeat(4, axis=2) for pixels in (data.train_pixels, data.test_pixels)]
    vit.compile(keras.optimizers.AdamW(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    vit.fit(vit.preprocess.normalize(larger[0]), data.train_digits, batch_size=64, epochs=epochs, verbose=2)

    outputs = ("logits", "map", "block_1.attention")
    [bundle] = vit_deploy.export(vit, directory, formats="onnx", outputs=outputs, force=True)
    photo = directory / "digit.png"
    Image.fromarray(larger[1][0, ..., 0]).save(photo)
    return bundle.model_path, photo


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path, nargs="?")
    parser.add_argument("--file", type=Path, help="an ONNX file with a map and an attention among its outputs")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("-o", "--output", type=Path, default=Path("artifacts/dense"))
    options = parser.parse_args()
    if (options.file is None) != (options.photo is None):
        parser.error("give --file and an image, or neither")
    file, photo = (options.file, options.photo) if options.file else make_file(options.output, options.epochs)
    options.output.mkdir(parents=True, exist_ok=True)
    draw(file, photo).save(options.output / "dense.png")
    print(options.output / "dense.png")
