from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import shutil
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from vit_deploy.core import format_table
from vit_deploy.core.artifact import describe, versions
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.config_checks import CHOICES
from vit_deploy.core.format import Target
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.manifest import read_artifact, sha256, write_manifest
from vit_deploy.core.preprocess import Interpolation, Preprocess
from vit_deploy.core.resize import Convention
from vit_deploy.core.rotary import Rotary, RotaryConvention
from vit_deploy.errors import ArtifactError, ConfigError
from vit_deploy.exporters import EXPORTERS
from vit_deploy.verification.verifying import verify

FORMATS = list(format_table.FORMATS.of_artifacts())
MADE_ANYWHERE = list(EXPORTERS)  # the others need a GPU to be proven on


@pytest.fixture(scope="module")
def schema():
    return json.loads(resources.files("vit_deploy.core").joinpath("artifact.schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def bundle(checkpoint, tmp_path):
    """An ONNX artifact whose files hold no model: enough for whatever reads no graph."""
    directory = tmp_path / "onnx-fp32"
    directory.mkdir()
    (directory / "model.onnx").write_bytes(b"graph")
    (directory / "golden.npz").write_bytes(b"data")
    spec = InputSpec((None, *checkpoint.config.image_size, checkpoint.config.channels))
    labelled = dataclasses.replace(checkpoint, labels=("a", "b", "c", "d", "é"))
    return write_manifest(
        describe(labelled, directory, format="onnx", precision="fp32", input=spec, producer=versions("typer"))
    )


def manifest(bundle):
    return json.loads((bundle.directory / "artifact.json").read_text(encoding="utf-8"))


def rewrite(bundle, **changes):
    (bundle.directory / "artifact.json").write_text(json.dumps({**manifest(bundle), **changes}), encoding="utf-8")


def refusal(bundle):
    with pytest.raises(ArtifactError) as caught:
        read_artifact(bundle.directory)
    assert str(bundle.directory) in caught.value.message
    assert caught.value.fix
    return caught.value.message


def test_a_bundle_reads_back_as_it_was_written(bundle):
    back = read_artifact(bundle.directory)
    assert vars(back) == vars(dataclasses.replace(bundle, model="model.onnx"))
    assert read_artifact(bundle.directory / "artifact.json").to_dict() == back.to_dict()


def test_the_manifest_digests_every_file_but_itself(bundle):
    (bundle.directory / "deep").mkdir()
    (bundle.directory / "deep" / "artifact.json").write_bytes(b"another")
    files = write_manifest(bundle).files
    assert files == {
        "model.onnx": (hashlib.sha256(b"graph").hexdigest(), 5),
        "golden.npz": (hashlib.sha256(b"data").hexdigest(), 4),
        "deep/artifact.json": (hashlib.sha256(b"another").hexdigest(), 7),
    }
    assert sha256(bundle.directory / "model.onnx") == hashlib.sha256(b"graph").hexdigest()


def test_the_manifest_names_no_folder_of_the_machine_that_made_it(bundle):
    assert str(bundle.directory) not in (bundle.directory / "artifact.json").read_text()


def test_only_the_model_counts_as_its_size(bundle):
    assert bundle.model_bytes == 5
    (bundle.directory / "model.onnx.data").write_bytes(bytes(100))
    assert bundle.model_bytes == 105


@pytest.mark.parametrize("format", MADE_ANYWHERE)
def test_a_bundle_works_wherever_it_is_moved(bundles, format, tmp_path):
    moved = shutil.copytree(bundles[format], tmp_path / "else where" / "renamed [red] *")
    assert verify(read_artifact(moved)).parity.ok


@pytest.mark.parametrize("format", MADE_ANYWHERE)
def test_real_manifests_are_valid_under_the_published_schema(bundles, schema, format):
    jsonschema.Draft202012Validator.check_schema(schema)
    real = json.loads((bundles[format] / "artifact.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(real)
    assert real == read_artifact(bundles[format]).to_dict()


def test_the_schema_knows_every_field_and_every_choice(schema, bundle):
    config = schema["$defs"]["config"]["properties"]
    assert list(config) == [field.name for field in dataclasses.fields(ViTConfig)]
    for name, choices in CHOICES.items():
        default = ViTConfig.__dataclass_fields__[name].default  # of which fields that came later say nothing
        assert {*config[name]["enum"], default} == {*choices, default}, name
    rotary = schema["$defs"]["rotary"]
    assert rotary["required"] == list(rotary["properties"]) == [field.name for field in dataclasses.fields(Rotary)]
    assert rotary["properties"]["convention"]["enum"] == list(RotaryConvention)
    preprocess = schema["$defs"]["preprocess"]
    assert list(preprocess["properties"]) == [field.name for field in dataclasses.fields(Preprocess)]
    assert preprocess["required"] == list(Preprocess().to_dict())
    assert preprocess["properties"]["interpolation"]["enum"] == list(Interpolation)
    assert set(schema["$defs"]["input"]["required"]) == {field.name for field in dataclasses.fields(InputSpec)}
    assert set(schema["required"]) == set(schema["properties"]) - {"outputs", "sizes"} == set(bundle.to_dict())
    assert schema["properties"]["format"]["enum"] == FORMATS
    had = {precision for record in format_table.FORMATS.values() for precision in record.every_precision}
    assert set(schema["properties"]["precision"]["enum"]) == had
    assert schema["properties"]["options"]["properties"]["like"]["enum"] == list(Convention)
    made_for = schema["properties"]["options"]["properties"]["for"]["enum"]
    assert {*made_for, Target.CPU} == set(Target), "of the usual ones the manifest says nothing"


WRONG_FIELDS = {
    "a schema to come": (("schema",), 2),
    "a schema that is true": (("schema",), True),
    "a format that there is not": (("format",), "torchscript"),
    "a precision that there is not": (("precision",), "fp31"),
    "a model elsewhere": (("model",), "../model.onnx"),
    "an absolute model": (("model",), "/model.onnx"),
    "labels that are no list": (("labels",), "abc"),
    "a label that is a number": (("labels",), [1, 2, 3, 4, 5]),
    "a digest that is none": (("weights_digest",), 7),
    "a config field too many": (("config", "depth"), 3),
    "an unknown norm": (("config", "normalization_type"), "batch_norm"),
    "no heads": (("config", "num_heads"), 0),
    "a size that is a text": (("config", "image_size"), "24x32"),
    "an input of five axes": (("input", "shape"), [None, 1, 24, 32, 3]),
    "an input of half a pixel": (("input", "shape"), [None, 24, 32.5, 3]),
    "an unknown layout": (("input", "layout"), "chwn"),
    "an unknown type": (("input", "dtype"), "float31"),
    "a negative scale": (("input", "scale"), -1.0),
    "a broken zero point": (("input", "zero_point"), 0.5),
    "preprocessing maybe": (("input", "preprocessing_inside"), "yes"),
    "an input field too many": (("input", "mean"), 0),
    "a mean too many": (("preprocess", "means"), [0.5]),
    "a spread of zero": (("preprocess", "std"), [0.5, 0.0, 0.5]),
    "an unknown filter": (("preprocess", "interpolation"), "sinc"),
    "a provenance of words": (("provenance",), ["random"]),
    "a step without a name": (("provenance",), [{"seed": 0}]),
    "files without digests": (("files",), {"golden.npz": 4}),
    "a file of no size": (("files", "golden.npz"), {"sha256": "0" * 64}),
    "bytes that are a text": (("files", "golden.npz", "bytes"), "4"),
    "a version that is a number": (("producer", "numpy"), 2.4),
    "a parent that is a number": (("parent",), 7),
}


@pytest.mark.parametrize("case", WRONG_FIELDS)
def test_a_wrong_field_is_refused_by_the_schema_and_when_it_is_read(bundle, schema, case):
    (*path, last), value = WRONG_FIELDS[case]
    values = copy.deepcopy(manifest(bundle))
    jsonschema.Draft202012Validator(schema).validate(values)
    place = values
    for key in path:
        place = place[key]
    place[last] = value
    assert not jsonschema.Draft202012Validator(schema).is_valid(values)
    rewrite(bundle, **values)
    if case != "a precision that there is not":  # a precision is a name only: what it means is in the file
        refusal(bundle)


@pytest.mark.parametrize("name", ["schema", "format", "model", "input", "config", "files", "parent"])
def test_a_missing_field_is_refused_by_the_schema_and_when_it_is_read(bundle, schema, name):
    values = manifest(bundle)
    del values[name]
    assert not jsonschema.Draft202012Validator(schema).is_valid(values)
    (bundle.directory / "artifact.json").write_text(json.dumps(values), encoding="utf-8")
    assert name in refusal(bundle)


def test_another_schema_is_told_with_both_numbers(bundle):
    rewrite(bundle, schema=2)
    assert refusal(bundle).endswith("artifact.json has schema 2, this version reads 1")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema": 1}', b'"text"', b"1e999"]
)
def test_a_manifest_that_is_no_json_object_of_ours_is_damaged(bundle, text):
    (bundle.directory / "artifact.json").write_bytes(text)
    assert "damaged" in refusal(bundle)


def test_all_wrong_kinds_are_told_at_once(bundle):
    rewrite(bundle, labels="abc", files=[], model=None)
    said = refusal(bundle)
    assert "labels is 'abc'" in said and "files is []" in said and "model is None" in said


def test_an_input_of_another_size_than_the_config_is_refused(bundle):
    rewrite(bundle, input={**manifest(bundle)["input"], "shape": [None, 32, 24, 3]})
    assert "input shape is (None, 32, 24, 3), the config's images are (24, 32, 3)" in refusal(bundle)
    rewrite(bundle, input={**manifest(bundle)["input"], "shape": [None, 3, 24, 32], "layout": "nchw"})
    assert read_artifact(bundle.directory).input.layout == "nchw"


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    for name in "gfedcba":
        (tmp_path / "full" / name).touch()
    said = {
        "nowhere": "does not exist",
        "empty": "is not an artifact: it has no artifact.json; it is empty",
        "full": "is not an artifact: it has no artifact.json; it holds a, b, c, d, e and 2 more",
    }
    for name, words in said.items():
        with pytest.raises(ArtifactError) as caught:
            read_artifact(tmp_path / name)
        assert caught.value.message == f"{tmp_path / name} {words}"
        assert "vit-deploy export" in caught.value.fix


@pytest.mark.parametrize("inside", [False, True])
def test_a_checkpoint_that_is_given_for_an_artifact_is_to_be_exported(inside, tmp_path):
    path = tmp_path / ("folder" if inside else "vit.safetensors")
    file = path / "model.safetensors" if inside else path
    file.parent.mkdir(exist_ok=True)
    file.touch()
    with pytest.raises(ArtifactError) as caught:
        read_artifact(path)
    assert f"{path} looks like a checkpoint, and is not an artifact: it has no artifact.json" in caught.value.message
    assert caught.value.fix == f"export it first: vit-deploy export {path}"


def test_a_folder_of_bundles_and_a_part_of_one_say_which_bundle_to_give(bundle):
    above, model = bundle.directory.parent, bundle.directory / "model.onnx"
    with pytest.raises(ArtifactError) as caught:
        read_artifact(above)
    assert caught.value.message == f"{above} is not an artifact, but a folder of artifacts: {bundle.directory.name}"
    assert caught.value.fix == f"give one of them, as {bundle.directory}"
    with pytest.raises(ArtifactError, match=r"model\.onnx is not an artifact, but a part of one") as caught:
        read_artifact(model)
    assert caught.value.fix == f"give the artifact, {bundle.directory}, as a whole"


def test_every_changed_file_is_named(bundle):
    (bundle.directory / "model.onnx").write_bytes(b"grapH")
    (bundle.directory / "golden.npz").unlink()
    said = refusal(bundle)
    assert "model.onnx has other content than when it was written" in said
    assert "golden.npz is missing" in said
    (bundle.directory / "model.onnx").write_bytes(b"gra")
    assert "model.onnx has 3 bytes, expected 5" in refusal(bundle)


def test_digests_are_left_out_only_if_asked(bundle):
    (bundle.directory / "model.onnx").write_bytes(b"grapH")
    assert read_artifact(bundle.directory, check_digests=False).format == "onnx"


def test_a_model_file_that_no_digest_stands_for_is_refused(bundle):
    files = manifest(bundle)["files"]
    rewrite(bundle, files={"golden.npz": files["golden.npz"]})
    assert "model.onnx is not in the manifest" in refusal(bundle)
    rewrite(bundle, files=files)
    (bundle.directory / "model.onnx.data").write_bytes(b"planted")
    assert "model.onnx.data is not in the manifest" in refusal(bundle)


def test_a_file_slipped_into_a_saved_model_is_refused(bundles, tmp_path):
    copied = shutil.copytree(bundles["savedmodel"], tmp_path / "copied")
    (copied / "saved_model" / "assets" / "extra").write_bytes(b"planted")
    with pytest.raises(ArtifactError, match="saved_model/assets/extra is not in the manifest"):
        read_artifact(copied)
    (copied / "saved_model" / "assets" / "extra").unlink()
    (copied / "saved_model" / "saved_model.pb").unlink()
    with pytest.raises(ArtifactError, match=r"saved_model/saved_model\.pb is missing"):
        read_artifact(copied)


def test_a_note_beside_the_model_is_none_of_our_business(bundle):
    (bundle.directory / "README.txt").write_text("mine")
    read_artifact(bundle.directory)


@pytest.mark.parametrize("name", ["../outside", "{absolute}", "deep/../../outside", "link"])
def test_files_outside_the_bundle_are_refused(bundle, name):
    outside = bundle.directory.parent / "outside"
    outside.write_bytes(b"data")
    (bundle.directory / "link").symlink_to(outside)
    (bundle.directory / "deep").mkdir()
    name = name.format(absolute=outside)
    files = {**manifest(bundle)["files"], name: {"sha256": hashlib.sha256(b"data").hexdigest(), "bytes": 4}}
    rewrite(bundle, files=files)
    assert f"{name} lies outside the artifact" in refusal(bundle)


def test_a_model_that_is_a_link_to_elsewhere_is_refused(bundle):
    outside = bundle.directory.parent / "outside.onnx"
    (bundle.directory / "model.onnx").rename(outside)
    (bundle.directory / "model.onnx").symlink_to(outside)
    assert "model.onnx lies outside the artifact" in refusal(bundle)


def test_a_manifest_that_may_not_be_read_is_told(bundle, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "read_text", refuse)
    assert "cannot be read: Permission denied" in refusal(bundle)


def test_the_essentials_say_what_a_device_needs_and_no_digests_of_files(bundle):
    essentials = bundle.essentials()
    assert all(key.startswith("vit_deploy.") for key in essentials)
    values = {key.removeprefix("vit_deploy."): json.loads(text) for key, text in essentials.items()}
    whole = bundle.to_dict()
    assert values == {name: whole[name] for name in values}
    wanted = {"preprocess", "labels", "config", "weights_digest", "producer", "input", "output", "provenance"}
    assert wanted <= set(values) and "files" not in values
    assert values["labels"][-1] == "é"


def test_every_problem_of_an_input_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        InputSpec((None, 24, 0, 3), dtype="float31", layout="chwn", scale=-1.0)
    for part in ("shape is (None, 24, 0, 3)", "dtype is 'float31'", "layout is 'chwn'", "scale is -1.0"):
        assert part in caught.value.message


def test_versions_of_what_is_absent_are_left_out():
    found = versions("typer", "no-such-distribution")
    assert set(found) == {"vit-deploy", "numpy", "typer"}
