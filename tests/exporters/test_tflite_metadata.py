import dataclasses
import json
import zipfile

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import number_types
from flatbuffers.table import Table

from tests.exporters.variants import exported, pixels, trained
from vit_deploy.errors import ArtifactError
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.tflite.export import TFLiteExporter
from vit_deploy.exporters.tflite.repack import write_model
from vit_deploy.formats.tflite.file import opened, read_labels, read_metadata

LABELS = ("cat", "dog", "größe", "a, b", "last")


def entries(path):
    """Metadata entries, read by the generated code of the public schema."""
    data = path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    found = {}
    for entry in model.metadata:
        buffer = model.buffers[entry.buffer]
        inside = bytes(buffer.data) if buffer.data is not None else data[buffer.offset : buffer.offset + buffer.size]
        found[entry.name.decode()] = inside
    return found


class Node:
    """A table of the metadata schema by field position, read with the flatbuffers package."""

    def __init__(self, data, position):
        self.table = Table(data, position)

    @classmethod
    def root(cls, data):
        assert flatbuffers.util.BufferHasIdentifier(data, 0, b"M001")
        return cls(data, flatbuffers.encode.Get(flatbuffers.packer.uoffset, data, 0))

    def _at(self, field):
        offset = self.table.Offset(4 + 2 * field)
        assert offset, f"field {field} is absent"
        return offset

    def text(self, field):
        return self.table.String(self._at(field) + self.table.Pos).decode()

    def number(self, field, flags):
        return self.table.Get(flags, self._at(field) + self.table.Pos)

    def child(self, field):
        return Node(self.table.Bytes, self.table.Indirect(self._at(field) + self.table.Pos))

    def union(self, field):
        union = Table(bytearray(), 0)
        self.table.Union(union, self._at(field))
        return Node(union.Bytes, union.Pos)

    def children(self, field):
        offset = self._at(field)
        start = self.table.Vector(offset)
        return [
            Node(self.table.Bytes, self.table.Indirect(start + 4 * index))
            for index in range(self.table.VectorLen(offset))
        ]

    def floats(self, field):
        return self.table.GetVectorAsNumpy(number_types.Float32Flags, self._at(field))


@pytest.fixture(scope="module", params=[2_000_000_000, 0], ids=["weights inside", "weights outside"])
def artifact(request, tmp_path_factory):
    """Not to be changed."""
    checkpoint = dataclasses.replace(trained(), labels=LABELS)
    return exported(TFLiteExporter(request.param), checkpoint, tmp_path_factory.mktemp("made"), ExportOptions(batch=1))


def test_the_standard_metadata_say_size_normalization_and_labels(artifact):
    model = Node.root(entries(artifact.model_path)["TFLITE_METADATA"])

    assert model.text(7) == "1.0.0"
    (graph,) = model.children(3)
    (images,), (logits,) = graph.children(2), graph.children(3)
    assert (images.text(0), logits.text(0)) == ("images", "logits")

    content = images.child(3)
    assert content.number(0, number_types.Uint8Flags) == 2, "ImageProperties"
    image = content.union(1)
    assert image.number(0, number_types.Int8Flags) == 1, "RGB"
    size = image.child(1)
    assert size.number(0, number_types.Uint32Flags) == 32, "width"
    assert size.number(1, number_types.Uint32Flags) == 24, "height"

    (unit,) = images.children(4)
    assert unit.number(0, number_types.Uint8Flags) == 1, "NormalizationOptions"
    options = unit.union(1)
    mean, std = options.floats(0), options.floats(1)
    np.testing.assert_allclose(mean, [0.485 * 255, 0.456 * 255, 0.406 * 255], rtol=1e-6)
    np.testing.assert_allclose(std, [0.229 * 255, 0.224 * 255, 0.225 * 255], rtol=1e-6)

    (file,) = logits.children(6)
    assert file.text(0) == "labels.txt"
    assert file.number(2, number_types.Int8Flags) == 2, "TENSOR_AXIS_LABELS"


def test_the_standards_formula_gives_what_the_model_takes(artifact):
    checkpoint = trained()
    raw = pixels(checkpoint, 1)
    (graph,) = Node.root(entries(artifact.model_path)["TFLITE_METADATA"]).children(3)
    options = graph.children(2)[0].children(4)[0].union(1)

    normalised = (raw - options.floats(0)) / options.floats(1)

    np.testing.assert_allclose(normalised, checkpoint.preprocess.normalize(raw), rtol=0, atol=1e-5)


def test_a_model_that_normalises_by_itself_asks_for_nothing(tmp_path):
    options = ExportOptions(batch=1, include_preprocessing=True)
    artifact = exported(TFLiteExporter(), trained(channels=1), tmp_path, options)

    (graph,) = Node.root(entries(artifact.model_path)["TFLITE_METADATA"]).children(3)
    images = graph.children(2)[0]
    asked = images.children(4)[0].union(1)
    assert (asked.floats(0).tolist(), asked.floats(1).tolist()) == ([0.0], [1.0])
    assert images.child(3).union(1).number(0, number_types.Int8Flags) == 2, "GRAYSCALE"


def test_labels_are_a_zip_archive_at_the_end_of_the_file(artifact):
    with zipfile.ZipFile(artifact.model_path) as packed:
        assert packed.namelist() == ["labels.txt"]
        assert packed.testzip() is None
        assert packed.read("labels.txt").decode() == "cat\ndog\ngröße\na, b\nlast\n"
    assert read_labels(artifact.model_path) == LABELS


def test_without_labels_there_is_no_archive(tmp_path):
    artifact = exported(TFLiteExporter(), trained(), tmp_path, ExportOptions(batch=1))

    assert not zipfile.is_zipfile(artifact.model_path)
    assert read_labels(artifact.model_path) == ()


def test_the_essentials_are_one_json_object_in_an_entry_of_our_own(artifact):
    assert json.loads(entries(artifact.model_path)["vit_deploy"]) == artifact.essentials()


def test_our_reader_finds_what_the_public_schema_finds(artifact):
    found = read_metadata(artifact.model_path)

    assert found == entries(artifact.model_path)
    assert {"TFLITE_METADATA", "vit_deploy", "min_runtime_version"} <= set(found)


def test_metadata_are_added_to_a_written_file_without_losing_its_weights(artifact, tmp_path):
    images = trained().preprocess.normalize(pixels(trained(), 1))
    added = tmp_path / "added.tflite"
    outputs = []

    with opened(artifact.model_path) as model:
        write_model(added, model, {}, {"vit_deploy": b"{}", "more": b"x" * 1000})
    for path in (artifact.model_path, added):
        interpreter = Interpreter(model_path=str(path))
        outputs.append(interpreter.get_signature_runner("serving_default")(images=images)["logits"])

    np.testing.assert_array_equal(outputs[0], outputs[1])
    found = entries(added)
    assert added.stat().st_size < artifact.model_path.stat().st_size + 10_000, "nothing was written twice"
    assert (found["vit_deploy"], found["more"]) == (b"{}", b"x" * 1000)
    assert found["TFLITE_METADATA"] == entries(artifact.model_path)["TFLITE_METADATA"]


@pytest.mark.parametrize("content", [b"", b"no flatbuffer at all", b"\xff\xff\xff\x00TFL3" + b"\xff" * 40])
def test_a_file_that_is_no_model_is_refused(content, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)

    with pytest.raises(ArtifactError, match=r"model\.tflite is (not a|a damaged) TFLite file"):
        read_metadata(path)
