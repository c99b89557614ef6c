"""TFLite's standard metadata for a ViT.

The flatbuffer follows the public `metadata_schema.fbs` of tflite-support, whose package has no wheels for
today's Pythons; the numbers below are its field positions.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence

import flatbuffers

from vit_deploy.core.artifact import Artifact
from vit_deploy.formats.tflite.file import LABELS_FILE, OWN_ENTRY, STANDARD_ENTRY

IDENTIFIER = b"M001"
MIN_PARSER_VERSION = "1.0.0"  # nothing newer than the first schema is used

IMAGE_PROPERTIES = 2  # in the union ContentProperties
NORMALIZATION_OPTIONS = 1  # in the union ProcessUnitOptions
COLOR_SPACES = {3: 1, 1: 2}  # channels to ColorSpaceType: RGB, GRAYSCALE, else UNKNOWN
TENSOR_AXIS_LABELS = 2  # AssociatedFileType
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip archive can hold


def metadata_entries(artifact: Artifact) -> dict[str, bytes]:
    """The entries of a model file by their names: the standard's, and the essentials as JSON in one of our own."""
    own = json.dumps(artifact.essentials(), sort_keys=True).encode()
    return {STANDARD_ENTRY: standard_metadata(artifact), OWN_ENTRY: own}


def standard_metadata(artifact: Artifact) -> bytes:
    """The `TFLITE_METADATA` flatbuffer: image size, normalization in pixel values 0..255, and the label file."""
    builder = _Builder()
    config, preprocess = artifact.config, artifact.preprocess
    height, width = config.image_size
    size = builder.table({0: width, 1: height}, kind="Uint32")
    properties = builder.table({0: COLOR_SPACES.get(config.channels, 0)}, {1: size}, kind="Int8")
    content = builder.table({0: IMAGE_PROPERTIES}, {1: properties}, kind="Uint8")
    # The standard's formula is (pixel - mean) / std; a model that normalises by itself takes pixels as they are.
    inside = artifact.input.preprocessing_inside
    mean = [0.0 if inside else 255 * value for value in preprocess.mean]
    std = [1.0 if inside else 255 * value for value in preprocess.std]
    options = builder.table(offsets={0: builder.floats(mean), 1: builder.floats(std)})
    unit = builder.table({0: NORMALIZATION_OPTIONS}, {1: options}, kind="Uint8")
    image = builder.tensor(artifact.input.name, "Images in NHWC.", {3: content, 4: builder.vector([unit])})
    files: dict[int, int] = {}
    if artifact.labels:
        label_file = builder.table(
            {2: TENSOR_AXIS_LABELS},
            {0: builder.text(LABELS_FILE), 1: builder.text("Name of each class, one a line.")},
            kind="Int8",
        )
        files = {6: builder.vector([label_file])}
    kind = "Logits, before the softmax." if config.include_top else "Features."
    output = builder.tensor(config.output_name, kind, files)
    graph = builder.table(offsets={2: builder.vector([image]), 3: builder.vector([output])})
    model = builder.table(
        offsets={
            0: builder.text("Vision Transformer"),
            1: builder.text(f"ViT for images of {height}x{width}x{config.channels} (height, width, channels)."),
            3: builder.vector([graph]),
            7: builder.text(MIN_PARSER_VERSION),
        }
    )
    return builder.finish(model)


def packed_labels(labels: Sequence[str]) -> bytes:
    """The zip archive that the standard puts at the end of the file; empty without labels."""
    if not labels:
        return b""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(LABELS_FILE, EPOCH), "".join(f"{label}\n" for label in labels))
    return packed.getvalue()


class _Builder:
    """The few shapes of flatbuffer that the metadata consist of."""

    def __init__(self) -> None:
        self._builder = flatbuffers.Builder(1024)

    def text(self, value: str) -> int:
        return int(self._builder.CreateString(value))

    def floats(self, values: Sequence[float]) -> int:
        self._builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self._builder.PrependFloat32(value)
        return int(self._builder.EndVector())

    def vector(self, tables: Sequence[int]) -> int:
        self._builder.StartVector(4, len(tables), 4)
        for table in reversed(tables):
            self._builder.PrependUOffsetTRelative(table)
        return int(self._builder.EndVector())

    def table(
        self, numbers: Mapping[int, int] | None = None, offsets: Mapping[int, int] | None = None, kind: str = "Uint32"
    ) -> int:
        """A table of scalars of one kind and of offsets, by field position."""
        numbers, offsets = numbers or {}, offsets or {}
        self._builder.StartObject(1 + max([*numbers, *offsets]))
        for index, target in offsets.items():
            self._builder.PrependUOffsetTRelativeSlot(index, target, 0)
        for index, number in numbers.items():
            getattr(self._builder, f"Prepend{kind}Slot")(index, number, 0)
        return int(self._builder.EndObject())

    def tensor(self, name: str, description: str, others: Mapping[int, int]) -> int:
        return self.table(offsets={0: self.text(name), 1: self.text(description), **others})

    def finish(self, root: int) -> bytes:
        self._builder.Finish(root, IDENTIFIER)
        return bytes(self._builder.Output())
