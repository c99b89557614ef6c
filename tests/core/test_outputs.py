from __future__ import annotations

import dataclasses
import json
import re
from importlib import resources

import jsonschema
import pytest
from features import FAMILIES

from vit_deploy.core.artifact import describe
from vit_deploy.core.choices import Pooling
from vit_deploy.core.input_output import InputSpec, OutputSpec
from vit_deploy.core.manifest import read_artifact, write_manifest
from vit_deploy.core.outputs import Kind, outputs_of_model, possible_outputs, reduced_config, tokens_read
from vit_deploy.core.weights import weight_specs
from vit_deploy.errors import ArtifactError, ConfigError


@pytest.mark.parametrize(
    ("name", "kind", "shape"),
    [
        ("logits", Kind.LOGITS, (5,)),
        ("probabilities", Kind.PROBABILITIES, (5,)),
        ("features", Kind.VECTOR, (12,)),
        ("tokens", Kind.TOKENS, (27, 12)),
        ("class_token", Kind.VECTOR, (12,)),
        ("register_tokens", Kind.TOKENS, (2, 12)),
        ("patch_tokens", Kind.TOKENS, (24, 12)),
        ("map", Kind.MAP, (3, 8, 12)),
        ("block_0", Kind.TOKENS, (27, 12)),
        ("block_1.map", Kind.MAP, (3, 8, 12)),
        ("block_0.normed.class_token", Kind.VECTOR, (12,)),
        ("block_1.attention", Kind.ATTENTION, (3, 27, 27)),
    ],
)
def test_an_output_has_the_shape_of_its_tokens(config, name, kind, shape):
    config = config.replace(register_tokens=2)
    others = ["block_1.normed.class_token"] if "attention" in name else ["block_0.map"]
    *_, output = outputs_of_model([*others, name], config)
    assert (output.name, output.kind, output.shape(config)) == (name, kind, shape)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_possible_output_is_found_by_its_name_and_leaves_a_model_of_its_own(config, family):
    config = config.replace(**FAMILIES[family])
    names = [output.name for output in possible_outputs(config)]
    assert len(set(names)) == len(names)
    for output in possible_outputs(config):
        wanted = [output.name, "tokens"] if output.kind is Kind.ATTENTION else [output.name]
        found = outputs_of_model(wanted, config)
        smaller = reduced_config(config, found)
        assert outputs_of_model(wanted, smaller) == found
        assert found[0].shape(smaller) == output.shape(config)
        assert weight_specs(smaller).items() <= weight_specs(config).items()


@pytest.mark.parametrize(
    ("names", "message", "fix"),
    [
        (["block_2.map"], "there is no output 'block_2.map': the blocks are block_0 to block_1", "'block_1.map'"),
        (["logit"], "there is no output 'logit'", "did you mean 'logits'?"),
        (["register_tokens"], "the model has no register tokens", ""),
        (["everything"], "there is no output 'everything'", "block_0 to block_1 alone or with .class_token"),
        (["map", "map"], "map is named 2 times", "name each output once"),
        (["features", "class_token"], "class_token and features are the same numbers in this model", "once"),
        (["block_1.normed", "tokens"], "tokens and block_1.normed are the same numbers in this model", "once"),
        (["block_1.attention"], "block_1.attention alone would be read", "add --output class_token"),
    ],
)
def test_names_that_cannot_be_are_refused_with_what_there_is(config, names, message, fix):
    with pytest.raises(ConfigError) as refusal:
        outputs_of_model(names, config)
    assert message in refusal.value.message
    assert fix in (refusal.value.fix or "")


@pytest.mark.parametrize(
    ("changes", "name", "why"),
    [
        ({"last_norm": False}, "block_0.normed", "the model has no last norm"),
        ({"norm_after_pooling": True}, "block_0.normed", "that of the pooled vector, not of tokens"),
        ({"include_top": False}, "logits", "the model has no head"),
        ({"class_token": False, "pooling": "mean"}, "class_token", "the model has no class token"),
    ],
)
def test_what_a_model_lacks_is_the_reason_that_an_output_is_not_there(config, changes, name, why):
    with pytest.raises(ConfigError, match=why):
        outputs_of_model([name], config.replace(**changes))


def test_a_model_keeps_only_what_its_outputs_read(config):
    def reduced(*names):
        return reduced_config(config, outputs_of_model(names, config))

    assert reduced("logits", "map") == config
    assert (reduced("features").include_top, reduced("features").pooling) == (False, Pooling.CLS)
    assert reduced("map").pooling is None
    assert reduced("class_token").pooling is Pooling.CLS
    assert (reduced("block_0").num_layers, reduced("block_0").last_norm) == (1, False)
    assert (reduced("block_0.normed.map").num_layers, reduced("block_0.normed.map").last_norm) == (1, True)


def test_of_the_last_block_only_the_tokens_count_that_are_read(config):
    def read(*names):
        return tokens_read(config, outputs_of_model(names, config))

    assert read() == read("logits") == read("class_token") == read("logits", "block_0.map", "block_0.attention") == 1
    assert read("logits", "map") == read("class_token", "block_1.attention") == read("block_1") == 25


@pytest.fixture
def described(checkpoint, tmp_path):
    spec = InputSpec((None, *checkpoint.config.image_size, checkpoint.config.channels))
    (tmp_path / "model.onnx").write_bytes(b"graph")
    outputs = {"map": OutputSpec(), "block_0.attention": OutputSpec("int8", 0.5, 3)}
    return describe(checkpoint, tmp_path, format="onnx", precision="fp32", input=spec, outputs=outputs)


def test_the_manifest_records_every_output_that_was_asked_for(described):
    read = read_artifact(write_manifest(described).directory)
    assert read.outputs == described.outputs
    assert (read.output_names, read.output_name, read.output_shape) == (("map", "block_0.attention"), "map", (3, 8, 12))
    assert not read.gives_logits
    values = json.loads((described.directory / "artifact.json").read_text(encoding="utf-8"))
    assert values["output"]["name"] == "map"
    assert values["outputs"][1] == {
        **{"name": "block_0.attention", "kind": "attention", "shape": [None, 3, 25, 25]},
        **{"dtype": "int8", "scale": 0.5, "zero_point": 3},
    }


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda values: values["outputs"][0].update(name="block_7"), "there is no output 'block_7'"),
        (lambda values: values.update(outputs=[]), "outputs is empty"),
        (lambda values: values["outputs"][0].pop("name"), "outputs is"),
        (lambda values: values["output"].update(name="features"), "output is 'features', expected 'map'"),
    ],
)
def test_a_manifest_with_impossible_outputs_is_refused(described, damage, message):
    path = write_manifest(described).directory / "artifact.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    damage(values)
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ArtifactError, match=message):
        read_artifact(path.parent)


def test_the_schema_knows_every_name_and_every_kind(described):
    schema = json.loads(resources.files("vit_deploy.core").joinpath("artifact.schema.json").read_text(encoding="utf-8"))
    described = write_manifest(dataclasses.replace(described, files={"golden.npz": ("0" * 64, 1)}))
    (described.directory / "golden.npz").write_bytes(b"data")
    jsonschema.validate(write_manifest(described).to_dict() | {"producer": {"vit-deploy": "1"}}, schema)
    assert schema["properties"]["outputs"]["items"]["properties"]["kind"]["enum"] == list(Kind)
    pattern = schema["$defs"]["output_name"]["pattern"]
    config = described.config.replace(register_tokens=1, distillation_token=True)
    assert all(re.search(pattern, output.name) for output in possible_outputs(config))
