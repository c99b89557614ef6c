"""PNG files of every kind there is, written by the specification: Pillow writes few of them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
KINDS = (
    *((0, depth) for depth in (1, 2, 4, 8, 16)),
    *((3, depth) for depth in (1, 2, 4, 8)),
    *((colour, depth) for colour in (2, 4, 6) for depth in (8, 16)),
)
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(height: int, width: int, colour: int, depth: int, *, interlaced: bool = False, extra: bytes = b"") -> bytes:
    """A file of random samples, in which every line has another filter than the one above it."""
    rng = np.random.default_rng([height, width, colour, depth])
    samples = rng.integers(0, 1 << depth, (height, width, SAMPLES[colour]))
    data = b""
    for left, top, across, down in PASSES if interlaced else ((0, 0, 1, 1),):
        part = samples[top::down, left::across]
        data += b"".join(_filtered(part, depth)) if part.size else b""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    palette = chunk(b"PLTE", rng.integers(0, 256, 3 << depth, dtype=np.uint8).tobytes()) if colour == 3 else b""
    body = zlib.compress(data)
    parts = chunk(b"IDAT", body[:50]) + chunk(b"IDAT", body[50:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + palette + parts + chunk(b"IEND", b"")


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _filtered(samples: np.ndarray, depth: int) -> Iterator[bytes]:
    height, width, count = samples.shape
    flat = samples.reshape(height, width * count)
    if depth == 16:
        lines = flat.astype(">u2").view(np.uint8).reshape(height, -1)
    else:
        bits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        lines = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    step = max(1, count * depth // 8)
    above = np.zeros(lines.shape[1], int)
    for index, line in enumerate(lines.astype(int)):
        left, corner = (np.concatenate([np.zeros(step, int), row])[: line.size] for row in (line, above))
        guesses = (np.zeros(line.size, int), left, above, (left + above) // 2, _paeth(left, above, corner))
        kind = (index + 4) % 5
        yield bytes([kind]) + ((line - guesses[kind]) % 256).astype(np.uint8).tobytes()
        above = line


def _paeth(left: np.ndarray, up: np.ndarray, corner: np.ndarray) -> np.ndarray:
    guess = left + up - corner
    to_left, to_up, to_corner = (np.abs(guess - value) for value in (left, up, corner))
    nearest_two = np.where(to_up <= to_corner, up, corner)
    return np.where((to_left <= to_up) & (to_left <= to_corner), left, nearest_two)
