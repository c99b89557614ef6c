"""TFLite's standard metadata for a ViT.

The flatbuffer follows the public `metadata_schema.fbs` of tflite-support, whose package has no wheels for
today's Pythons.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence

import flatbuffers

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.outputs import Kind
from vit_deploy.formats.tflite.file import LABELS_FILE, OWN_ENTRY, STANDARD_ENTRY
from vit_deploy.formats.tflite.schema import Model

IDENTIFIER = b"M001"
MIN_PARSER_VERSION = "1.0.0"  # nothing newer than the first schema is used

# The positions of its fields, by table.
MODEL_NAME, MODEL_DESCRIPTION, MODEL_GRAPHS, MODEL_MIN_PARSER_VERSION = 0, 1, 3, 7
GRAPH_INPUTS, GRAPH_OUTPUTS = 2, 3
TENSOR_NAME, TENSOR_DESCRIPTION, TENSOR_CONTENT, TENSOR_PROCESS_UNITS, TENSOR_FILES = 0, 1, 3, 4, 6
CONTENT_KIND, CONTENT_PROPERTIES = 0, 1
IMAGE_COLOR_SPACE, IMAGE_SIZE = 0, 1
SIZE_WIDTH, SIZE_HEIGHT = 0, 1
UNIT_KIND, UNIT_OPTIONS = 0, 1
NORMALIZATION_MEAN, NORMALIZATION_STD = 0, 1
FILE_NAME, FILE_DESCRIPTION, FILE_TYPE = 0, 1, 2

IMAGE_PROPERTIES = 2  # in the union ContentProperties
NORMALIZATION_OPTIONS = 1  # in the union ProcessUnitOptions
COLOR_SPACES = {3: 1, 1: 2}  # channels to ColorSpaceType: RGB, GRAYSCALE, else UNKNOWN
TENSOR_AXIS_LABELS = 2  # AssociatedFileType
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip archive can hold


WORDS: Mapping[Kind, str] = {
    Kind.LOGITS: "Logits, before the softmax.",
    Kind.PROBABILITIES: "Probabilities of the classes.",
    Kind.VECTOR: "Features.",
    Kind.TOKENS: "Tokens and their features.",
    Kind.MAP: "Rows and columns of patches, with their features.",
    Kind.ATTENTION: "Attention probabilities: heads, tokens that ask, tokens that answer.",
}


def metadata_entries(artifact: Artifact, order: Sequence[str] = ()) -> dict[str, bytes]:
    """The entries of a model file by their names: the standard's, and the essentials as JSON in one of our own.

    Args:
        artifact: the artifact.
        order: the names of its outputs as the graph lists them; none for a single output.
    """
    own = json.dumps(artifact.essentials(), sort_keys=True).encode()
    return {STANDARD_ENTRY: standard_metadata(artifact, order), OWN_ENTRY: own}


def output_order(model: Model) -> tuple[str, ...]:
    """The names of the outputs as the graph lists them."""
    names = {output.tensor: output.name for output in model.signatures[0].outputs}
    return tuple(names[tensor] for tensor in model.graph.outputs)


def standard_metadata(artifact: Artifact, order: Sequence[str] = ()) -> bytes:
    """The `TFLITE_METADATA` flatbuffer: image size, normalization in pixel values 0..255, and the label file."""
    builder = _Builder()
    config, preprocess = artifact.config, artifact.preprocess
    height, width = config.image_size
    size = builder.table({SIZE_WIDTH: width, SIZE_HEIGHT: height}, kind="Uint32")
    properties = builder.table(
        {IMAGE_COLOR_SPACE: COLOR_SPACES.get(config.channels, 0)}, {IMAGE_SIZE: size}, kind="Int8"
    )
    content = builder.table({CONTENT_KIND: IMAGE_PROPERTIES}, {CONTENT_PROPERTIES: properties}, kind="Uint8")
    # The standard's formula is (pixel - mean) / std; a model that normalises by itself takes pixels as they are.
    inside = artifact.input.preprocessing_inside
    mean = [0.0 if inside else 255 * value for value in preprocess.mean]
    std = [1.0 if inside else 255 * value for value in preprocess.std]
    options = builder.table(offsets={NORMALIZATION_MEAN: builder.floats(mean), NORMALIZATION_STD: builder.floats(std)})
    unit = builder.table({UNIT_KIND: NORMALIZATION_OPTIONS}, {UNIT_OPTIONS: options}, kind="Uint8")
    image = builder.tensor(
        artifact.input.name, "Images in NHWC.", {TENSOR_CONTENT: content, TENSOR_PROCESS_UNITS: builder.vector([unit])}
    )
    files: dict[int, int] = {}
    if artifact.labels:
        label_file = builder.table(
            {FILE_TYPE: TENSOR_AXIS_LABELS},
            {
                FILE_NAME: builder.text(LABELS_FILE),
                FILE_DESCRIPTION: builder.text("Name of each class, one a line."),
            },
            kind="Int8",
        )
        files = {TENSOR_FILES: builder.vector([label_file])}
    classes = (Kind.LOGITS, Kind.PROBABILITIES)
    kinds = {output.name: output.kind for output in artifact.named_outputs} or {
        config.output_name: Kind.LOGITS if config.include_top else Kind.VECTOR
    }
    outputs = [
        builder.tensor(name, WORDS[kinds[name]], files if not artifact.outputs or kinds[name] in classes else {})
        for name in (order if artifact.outputs else kinds)
    ]
    graph = builder.table(offsets={GRAPH_INPUTS: builder.vector([image]), GRAPH_OUTPUTS: builder.vector(outputs)})
    model = builder.table(
        offsets={
            MODEL_NAME: builder.text("Vision Transformer"),
            MODEL_DESCRIPTION: builder.text(
                f"ViT for images of {height}x{width}x{config.channels} (height, width, channels)."
            ),
            MODEL_GRAPHS: builder.vector([graph]),
            MODEL_MIN_PARSER_VERSION: builder.text(MIN_PARSER_VERSION),
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
        return self.table(offsets={TENSOR_NAME: self.text(name), TENSOR_DESCRIPTION: self.text(description), **others})

    def finish(self, root: int) -> bytes:
        self._builder.Finish(root, IDENTIFIER)
        return bytes(self._builder.Output())
