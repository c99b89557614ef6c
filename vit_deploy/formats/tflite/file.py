"""Facts that a TFLite file states about itself, read without any engine.

A TFLite file is a flatbuffer (the schema is TensorFlow Lite's `schema.fbs`); weights past 2 GB lie behind it, at
offsets that count from the start of the file. Labels are packed as a zip archive at the very end, as the metadata
standard has it (https://www.tensorflow.org/lite/models/convert/metadata).
"""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vit_deploy.errors import ArtifactError
from vit_deploy.formats.tflite.schema import Model, Signature

IDENTIFIER = b"TFL3"
STANDARD_ENTRY = "TFLITE_METADATA"
OWN_ENTRY = "vit_deploy"
LABELS_FILE = "labels.txt"


def root(data: Any) -> Model:
    """The `Model` table of a file's bytes."""
    return Model(data, int(struct.unpack_from("<I", data, 0)[0]))


@contextmanager
def opened(path: Path) -> Iterator[Model]:
    """The `Model` table of a file, without reading its weights.

    Raises:
        ArtifactError: it is no TFLite file, or a damaged one.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[4:8] != IDENTIFIER:
                raise ArtifactError(f"{path} is not a TFLite file", fix="give a .tflite file")
            yield root(data)
    except (ValueError, struct.error, IndexError) as error:
        raise ArtifactError(f"{path} is a damaged TFLite file: {error}", fix="export the model again") from error


def with_graph_first(path: Path, signature: str) -> bytes | None:
    """A file's bytes with the graph of a signature in front of the others; None where it is the first.

    Engines tell what runs where, and run by the indices of tensors, of the first graph alone.

    Raises:
        ArtifactError: it is no TFLite file, a damaged one, or has no such signature.
    """
    with opened(path) as model:
        wanted = next((one for one in model.signatures if one.key == signature), None)
        if wanted is None:
            raise ArtifactError(f"{path} has no signature {signature}", fix="export the model again")
        if wanted.graph == 0:
            return None
        start = model.target(Model.GRAPHS) + 4
        first, other = start, start + 4 * wanted.graph
        changed = bytearray(model.data[:])
        targets = [slot + int(struct.unpack_from("<I", changed, slot)[0]) for slot in (first, other)]
        struct.pack_into("<I", changed, first, targets[1] - first)
        struct.pack_into("<I", changed, other, targets[0] - other)
        struct.pack_into("<I", changed, wanted.field(Signature.GRAPH), 0)
        return bytes(changed)


def read_metadata(path: Path) -> dict[str, bytes]:
    """All metadata entries by name: the standard's `TFLITE_METADATA`, our `vit_deploy` (a JSON object), and others.

    Raises:
        ArtifactError: it is no TFLite file, or a damaged one.
    """
    with opened(path) as model:
        return metadata_of(model)


def metadata_of(model: Model) -> dict[str, bytes]:
    """The metadata entries of an open file, by name."""
    buffers = model.buffers
    return {entry.name: bytes(buffers[entry.buffer].content) for entry in model.metadata}


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels that are packed into a TFLite file; empty without."""
    if not zipfile.is_zipfile(path):
        return ()
    with zipfile.ZipFile(path) as packed:
        if LABELS_FILE not in packed.namelist():
            return ()
        return tuple(packed.read(LABELS_FILE).decode().splitlines())
