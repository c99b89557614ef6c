"""The JavaScript preprocessing gives the bytes that Pillow gives, for every filter, crop and size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from node import module, needs_node, run
from packaging.version import Version
from PIL import Image
from PIL import __version__ as pillow

from vit_deploy.core.images import load_image, load_pixels
from vit_deploy.core.preprocess import Preprocess

# Earlier versions round some bytes of tall images to their neighbour.
pytestmark = [needs_node, pytest.mark.skipif(Version(pillow) < Version("13"), reason="needs Pillow 13")]

FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
# (height, width): up, down, one side alone, a single pixel, sides without a common divisor.
SOURCES = ((40, 57), (57, 40), (1, 1), (1, 90), (33, 7), (150, 200))
TARGETS = ((24, 32), (1, 1), (40, 13), (61, 57), (97, 89))
INPUT = (24, 32)

RESIZE = """
const out = [];
let at = 0;
for (const [height, width] of cases) {
  const image = {width, height, channels: 3, data: bytes.subarray(at, at + height * width * 3)};
  at += height * width * 3;
  for (const [tall, wide] of targets) for (const filter of filters) out.push(...resize(image, wide, tall, filter).data);
}
"""
IN_NODE = f"""
import {{resize}} from {json.dumps(module("preprocess.mjs"))};
import fs from "node:fs";
const {{cases, targets, filters}} = JSON.parse(fs.readFileSync(process.argv[1]));
const bytes = fs.readFileSync(process.argv[2]);
{RESIZE}
fs.writeSync(1, Buffer.from(out));
"""

APPLY = f"""
import {{normalize, toPixels}} from {json.dumps(module("preprocess.mjs"))};
import fs from "node:fs";
const answers = JSON.parse(fs.readFileSync(process.argv[1])).map(([height, width, file, recorded, size]) => {{
  try {{
    const pixels = toPixels({{width, height, channels: 3, data: fs.readFileSync(file)}}, recorded, size).data;
    const input = Buffer.from(normalize(pixels, recorded).buffer);
    return [Buffer.from(pixels.buffer).toString("hex"), input.toString("hex")];
  }} catch (error) {{
    return [error.message];
  }}
}});
process.stdout.write(JSON.stringify(answers));
"""


def noise(height: int, width: int) -> np.ndarray:
    pixels = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[::3] = 255 * (pixels[::3] > 127)  # the cubic filters overshoot there, which has to be cut off
    return pixels


def differences(answer: bytes) -> list[tuple[object, ...]]:
    """The cases in which Pillow makes other bytes."""
    found, at, wrong = np.frombuffer(answer, np.uint8), 0, []
    for source in SOURCES:
        image = Image.fromarray(noise(*source))
        for tall, wide in TARGETS:
            for name in FILTERS:
                expected = np.asarray(image.resize((wide, tall), Image.Resampling[name.upper()]))
                given = found[at : at + expected.size].reshape(expected.shape)
                at += expected.size
                if not np.array_equal(given, expected):
                    wrong.append((source, (tall, wide), name, int((given != expected).sum())))
    assert at == found.size
    return wrong


def test_every_filter_gives_pillows_bytes_at_every_size(tmp_path):
    cases = {"cases": SOURCES, "targets": TARGETS, "filters": FILTERS}
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    (tmp_path / "bytes").write_bytes(b"".join(noise(*size).tobytes() for size in SOURCES))
    assert not differences(run(IN_NODE, str(tmp_path / "cases.json"), str(tmp_path / "bytes")))


RECORDED = {
    "straight to the input": Preprocess((0.1, 0.5, 0.8), (0.2, 0.25, 0.4)),
    "shorter edge and crop": Preprocess(resize=29, crop=True, interpolation="bicubic"),
    "two sides and crop": Preprocess(resize=(28, 51), crop=True, interpolation="lanczos"),
    "aspect kept": Preprocess(resize=(27, 36), crop=True, keep_aspect=True, interpolation="bicubic"),
    "crop larger than the image": Preprocess(resize=(20, 28), crop=True, interpolation="nearest"),
    "part of what is made": Preprocess(resize=40, crop=True, input_size=(30, 35)),
    "gray": Preprocess.for_channels(1),
}
SIZES = ((41, 56), (55, 38))
REFUSED = {
    "the recorded resize gives 28x39 pixels (height x width), the model takes 24x32": ((40, 57), Preprocess(resize=28)),
    "the image has 1x30000 pixels (height x width), and the resize would make 256x7680000 of them; "
    "cut out what is to be seen first": ((1, 30000), Preprocess(resize=256, crop=True)),
    "the model takes 5 channels, and images have 1 or 3": ((4, 4), Preprocess.for_channels(5)),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[tuple[int, int], Preprocess], list[str]]:
    """What JavaScript makes of every image and recorded preprocessing, in hexadecimal digits, or why it refuses."""
    folder: Path = tmp_path_factory.mktemp("images")
    asked = [(size, recorded) for size in SIZES for recorded in RECORDED.values()] + list(REFUSED.values())
    cases = []
    for size, recorded in asked:
        file = folder / f"{size[0]}x{size[1]}"
        file.write_bytes(noise(*size).tobytes())
        cases.append((*size, str(file), recorded.to_dict(), INPUT))
    (folder / "cases.json").write_text(json.dumps(cases))
    return dict(zip(asked, json.loads(run(APPLY, str(folder / "cases.json"))), strict=True))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("recorded", RECORDED.values(), ids=RECORDED)
def test_what_is_recorded_makes_the_input_that_predict_makes(tmp_path, answers, recorded, size):
    file = tmp_path / "image.png"
    Image.fromarray(noise(*size)).save(file)
    pixels, images = answers[size, recorded]
    assert pixels == load_pixels(file, recorded, INPUT).tobytes().hex()
    assert images == load_image(file, recorded, INPUT).tobytes().hex()


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_become_the_input_is_refused_with_the_sizes(answers, message):
    assert answers[REFUSED[message]] == [message]
