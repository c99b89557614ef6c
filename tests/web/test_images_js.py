"""Image files are read by JavaScript as `predict` reads them, or what differs is said."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib

import numpy as np
import pytest
from node import module, needs_node, run
from PIL import Image, ImageCms
from png_files import KINDS, chunk, png

from vit_deploy.core.images import load_pixels
from vit_deploy.core.preprocess import Preprocess

pytestmark = needs_node
LAB = ImageCms.createProfile("LAB")

READ = f"""
import {{headerFacts, orientationIn, readImage}} from {json.dumps(module("images.mjs"))};
import fs from "node:fs";
const answers = [];
for (const name of JSON.parse(fs.readFileSync(process.argv[1]))) {{
  try {{
    const {{image, notes}} = await readImage(new Uint8Array(fs.readFileSync(name)));
    answers.push([image.height, image.width, Buffer.from(image.data.buffer).toString("base64"), notes]);
  }} catch (error) {{
    answers.push(error.message);
  }}
}}
process.stdout.write(JSON.stringify(answers));
"""
FACTS = f"""
import {{headerFacts}} from {json.dumps(module("images.mjs"))};
import fs from "node:fs";
const answers = JSON.parse(fs.readFileSync(process.argv[1])).map((name) => {{
  const {{kind, orientation, neutral, notes}} = headerFacts(new Uint8Array(fs.readFileSync(name)));
  return [kind, orientation, Buffer.from(neutral).toString("base64"), notes];
}});
process.stdout.write(JSON.stringify(answers));
"""


def exif(orientation: int, order: str = "<") -> bytes:
    """An Exif block of a TIFF header, another entry and the orientation."""
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(order + "HIH", 42, 8, 2)
    entries = struct.pack(order + "HHII", 0x0110, 2, 1, 0) + struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return head + entries + struct.pack(order + "I", 0)


def asked(folder, script: str, contents: dict[str, bytes]):
    names = []
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        names.append(str(folder / name))
    (folder / "names.json").write_text(json.dumps(names))
    return json.loads(run(script, str(folder / "names.json")))


def same_as_predict(folder, contents: dict[str, bytes]) -> list[str]:
    """The names of the files that JavaScript reads otherwise."""
    wrong = []
    for name, answer in zip(contents, asked(folder, READ, contents), strict=True):
        assert isinstance(answer, list), f"{name}: {answer}"
        height, width, data, notes = answer
        expected = load_pixels(folder / name, Preprocess(), (height, width))
        assert notes == []
        if base64.b64decode(data) != expected.tobytes():
            wrong.append(name)
    return wrong


def test_png_files_of_every_colour_depth_and_order_are_read_to_the_byte(tmp_path):
    files = {
        f"{colour}-{depth}-{height}x{width}{'-interlaced' * interlaced}.png": png(
            height, width, colour, depth, interlaced=interlaced
        )
        for colour, depth in KINDS
        for height, width in ((13, 11), (1, 3))
        for interlaced in (False, True)
    }
    assert not same_as_predict(tmp_path, files)


def test_colours_under_transparency_stay_and_profiles_and_gamma_change_nothing(tmp_path):
    faint = chunk(b"tRNS", bytes([0, 3, 0, 3, 0, 3]))
    dark = chunk(b"gAMA", struct.pack(">I", 100000))
    profile = chunk(b"iCCP", b"a profile\0\0" + zlib.compress(ImageCms.ImageCmsProfile(LAB).tobytes()))
    files = {"faint.png": png(9, 7, 2, 8, extra=faint), "dark.png": png(9, 7, 6, 16, extra=dark)}
    files |= {f"{colour}-{depth}.png": png(9, 7, colour, depth, extra=profile) for colour, depth in KINDS}
    assert not same_as_predict(tmp_path, files)


@pytest.mark.parametrize("order", ["<", ">"])
def test_png_files_are_turned_upright(tmp_path, order):
    files = {f"{turn}.png": png(9, 7, 2, 8, extra=chunk(b"eXIf", exif(turn, order))) for turn in range(10)}
    assert not same_as_predict(tmp_path, files)


def test_damaged_png_files_are_named(tmp_path):
    whole = png(40, 30, 2, 8)
    at = whole.index(b"IDAT") + 10
    files = {
        "short.png": whole[:80],
        "bent.png": whole[:at] + bytes([whole[at] ^ 0xFF] * 30) + whole[at + 30 :],
        "odd.png": whole[:24] + bytes([3]) + whole[25:],
        "huge.png": whole[:16] + struct.pack(">II", 60000, 60000) + whole[24:],
    }
    short, bent, odd, huge = asked(tmp_path, READ, files)
    assert short == "the PNG file is cut off"
    assert bent.startswith("the PNG file is damaged: ")
    assert odd == "the PNG file has colours of type 2 with 3 bits, which do not exist"
    assert huge == "the PNG file has 60000x60000 pixels (height x width), which are too many"


def jpeg(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def test_the_orientation_and_the_profile_of_a_jpeg_are_taken_out_of_its_bytes(tmp_path):
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (16, 24, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="8"/></x:xmpmeta>'
    files = {
        "exif.jpg": jpeg(picture, exif=turned, icc_profile=b"profile" * 9000),
        "xmp.jpg": jpeg(picture, xmp=xmp),
        "plain.jpg": jpeg(picture),
    }
    answers = asked(tmp_path, FACTS, files)
    assert [answer[:2] for answer in answers] == [["JPEG", 6], ["JPEG", 8], ["JPEG", 1]]
    for name, (_, turn, neutral, notes) in zip(files, answers, strict=True):
        found = Image.open(io.BytesIO(base64.b64decode(neutral)))
        assert notes == [] and "icc_profile" not in found.info and "exif" not in found.info
        assert np.array_equal(np.asarray(found), np.asarray(Image.open(tmp_path / name))), turn


def test_a_webp_loses_both_as_well(tmp_path):
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (16, 24, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 5
    picture.save(tmp_path / "made.webp", lossless=True, exif=turned, icc_profile=b"profile" * 9)
    files = {"image.webp": (tmp_path / "made.webp").read_bytes()}
    [[kind, orientation, neutral, notes]] = asked(tmp_path, FACTS, files)
    assert (kind, orientation, notes) == ("WebP", 5, [])
    found = Image.open(io.BytesIO(base64.b64decode(neutral)))
    found.load()
    assert "icc_profile" not in found.info and "exif" not in found.info
    assert np.array_equal(np.asarray(found.convert("RGB")), np.asarray(picture))


def test_colours_that_a_browser_converts_in_its_own_way_are_named(tmp_path):
    picture = Image.fromarray(np.zeros((16, 24, 3), np.uint8))
    files = {"cmyk.jpg": jpeg(picture.convert("CMYK")), "gray.jpg": jpeg(picture.convert("L"))}
    cmyk, gray = asked(tmp_path, FACTS, files)
    assert cmyk[3] == ["its colours are CMYK, which browsers turn into RGB in their own way: save it as RGB"]
    assert gray[3] == []


def test_a_file_of_another_decoder_is_named_and_one_of_more_bits_is_refused(tmp_path):
    plain = jpeg(Image.fromarray(np.zeros((16, 24, 3), np.uint8)))
    deep = bytearray(plain)
    deep[plain.index(b"\xff\xc0") + 4] = 12
    [[*_, notes]] = asked(tmp_path, FACTS, {"image.avif": b"\0\0\0\x1cftypavif" + bytes(40)})
    assert notes == ["the browser decodes this kind of file in its own way; PNG and JPEG are read exactly"]
    [refusal] = asked(tmp_path, READ, {"deep.jpg": bytes(deep)})
    assert refusal == "the JPEG file has 12 bits a channel, which is not read; save it as PNG or JPEG of 8 bits"
