"""What the page reads and resizes in a browser is what Pillow reads and resizes."""

from __future__ import annotations

import base64
import io
import json
import struct

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from PIL import Image, ImageCms
from test_preprocess_js import FILTERS, RESIZE, SOURCES, TARGETS, differences, noise

from vit_deploy.core.images import load_pixels
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.web.scripts import joined

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    script = joined("preprocess.mjs", "png.mjs", "images.mjs")
    head = '<!doctype html><meta charset="utf-8"><title>Images</title>'
    path.write_text(f"{head}<script>{script}</script>", encoding="utf-8")
    with Browser() as browser:
        browser.open(path, width=800, height=600)
        yield browser


def smooth(height: int = 40, width: int = 56) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    bands = [255 * rows / height, 255 * columns / width, 255 * (rows + columns) / (height + width)]
    return Image.fromarray(np.stack(bands, axis=-1).astype(np.uint8))


def faint() -> Image.Image:
    """With colours under transparency."""
    made = smooth().convert("RGBA")
    made.putalpha(Image.fromarray(np.tile(np.arange(56, dtype=np.uint8) * 4, (40, 1))))
    return made


def deep() -> Image.Image:
    """Gray, of 16 bits."""
    return Image.fromarray((np.arange(40 * 56, dtype=np.uint16) * 29).reshape(40, 56))


def saved(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def swapped_profile() -> bytes:
    """A profile of sRGB whose red and blue primaries have changed places."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    places = {}
    for index in range(struct.unpack_from(">I", data, 128)[0]):
        at = 132 + 12 * index
        places[bytes(data[at : at + 4])] = at
    red, blue = (slice(places[name] + 4, places[name] + 12) for name in (b"rXYZ", b"bXYZ"))
    data[red], data[blue] = data[blue], data[red]
    return bytes(data)


def read(page: Browser, content: bytes) -> tuple[np.ndarray, list[str]]:
    found = page.run(
        f"""(async () => {{
          const bytes = Uint8Array.from(atob({json.dumps(base64.b64encode(content).decode())}), (c) => c.charCodeAt(0));
          const {{image, notes}} = await readImage(bytes);
          return [image.height, image.width, btoa(String.fromCharCode(...image.data)), notes];
        }})()"""
    )
    height, width, data, notes = found
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 3), notes


EXACT = {
    "jpeg": lambda: saved(smooth(), "JPEG", quality=95),
    "jpeg with fewer colours": lambda: saved(smooth(41, 55), "JPEG", quality=60, subsampling=2),
    "progressive jpeg": lambda: saved(smooth(41, 55), "JPEG", progressive=True),
    "gray jpeg": lambda: saved(smooth().convert("L"), "JPEG"),
    "jpeg with a profile": lambda: saved(smooth(), "JPEG", icc_profile=swapped_profile()),
    "gray jpeg with a profile": lambda: saved(smooth().convert("L"), "JPEG", icc_profile=swapped_profile()),
    "progressive jpeg with a profile and turned": lambda: saved(
        smooth(41, 55), "JPEG", progressive=True, icc_profile=swapped_profile(), exif=turned(6)
    ),
    "jpeg with a profile in several parts": lambda: saved(
        smooth(), "JPEG", icc_profile=swapped_profile() + bytes(70_000)
    ),
    "png with a profile": lambda: saved(smooth(), "PNG", icc_profile=swapped_profile()),
    "png with a profile, transparent": lambda: saved(faint(), "PNG", icc_profile=swapped_profile()),
    "png with a profile and a palette": lambda: saved(smooth().quantize(64), "PNG", icc_profile=swapped_profile()),
    "gray png with a profile, of 16 bits": lambda: saved(deep(), "PNG", icc_profile=swapped_profile()),
    "jpeg without a transform": lambda: saved(smooth(), "JPEG", keep_rgb=True),
    "webp without loss, with a profile": lambda: saved(smooth(), "WEBP", lossless=True, icc_profile=swapped_profile()),
    "turned webp": lambda: saved(smooth(), "WEBP", lossless=True, exif=turned(6)),
    "webp": lambda: saved(smooth(), "WEBP", quality=80),
    "webp with a profile": lambda: saved(smooth(), "WEBP", quality=80, icc_profile=swapped_profile()),
    "turned webp with a profile": lambda: saved(
        smooth(), "WEBP", quality=80, icc_profile=swapped_profile(), exif=turned(8)
    ),
    "gif": lambda: saved(smooth().quantize(64), "GIF"),
    "bmp": lambda: saved(smooth(), "BMP"),
    **{f"orientation {n}": lambda n=n: saved(smooth(), "JPEG", exif=turned(n)) for n in range(1, 9)},
}


@pytest.mark.parametrize("make", EXACT.values(), ids=EXACT)
def test_a_file_is_read_to_the_byte(page, tmp_path, make):
    (tmp_path / "image").write_bytes(make())
    pixels, notes = read(page, make())
    assert notes == []
    np.testing.assert_array_equal(pixels, load_pixels(tmp_path / "image", Preprocess(), pixels.shape[:2]))


def test_what_the_browser_reads_in_another_way_is_named(page):
    [note] = read(page, saved(faint(), "WEBP", lossless=True))[1]
    assert note == "some pixels are transparent, whose colours the browser does not keep: save it as PNG"
    for profile in ({}, {"icc_profile": swapped_profile()}):
        [note] = read(page, saved(smooth().convert("CMYK"), "JPEG", **profile))[1]
        assert note.startswith("its colours are CMYK")


def test_a_profile_changes_what_a_browser_shows_by_itself(page):
    """The profile of these tests is one that matters: without care the browser gives other pixels."""
    found = page.run(
        f"""(async () => {{
          const bytes = Uint8Array.from(atob({json.dumps(base64.b64encode(EXACT["png with a profile"]()).decode())}),
            (c) => c.charCodeAt(0));
          return [...pixelsOf(await createImageBitmap(new Blob([bytes]))).image.data];
        }})()"""
    )
    assert np.abs(np.array(found) - np.asarray(smooth()).ravel().astype(int)).max() > 50


@pytest.mark.parametrize(("form", "kind"), [("TIFF", " (TIFF)"), ("PPM", " (PPM)")])
def test_what_no_browser_reads_is_refused_with_what_to_do(page, form, kind):
    said = page.run(
        f"""readImage(Uint8Array.from(atob({json.dumps(base64.b64encode(saved(smooth(), form)).decode())}),
        (c) => c.charCodeAt(0))).then(() => "read", (error) => error.message)"""
    )
    assert said == f"this browser cannot read the file{kind}, or it is no image; save it as PNG or JPEG"


def test_every_filter_gives_pillows_bytes_at_every_size(page):
    pixels = b"".join(noise(*size).tobytes() for size in SOURCES)
    answer = page.run(
        f"""(() => {{
          const bytes = Uint8Array.from(atob({json.dumps(base64.b64encode(pixels).decode())}), (c) => c.charCodeAt(0));
          const [cases, targets, filters] = {json.dumps([SOURCES, TARGETS, FILTERS])};
          {RESIZE}
          let binary = "";
          for (const value of out) binary += String.fromCharCode(value);
          return btoa(binary);
        }})()"""
    )
    assert not differences(base64.b64decode(answer))
