"""The documents that scripts rely on, pinned by a schema of each command."""

from __future__ import annotations

import jsonschema
import pytest

NUMBER = {"type": "number"}
COUNT = {"type": "integer", "minimum": 0}
TEXT = {"type": "string", "minLength": 1}
NULLABLE = {"type": ["number", "null"]}
METRICS = ("max_abs", "rms", "cosine", "snr_db", "top1_agreement", "top5_agreement", "kl")
MORE_METRICS = ("relative", "flips", "centred_cosine", "centred_snr_db")  # of a model with a head


def record(**properties):
    return {"type": "object", "properties": properties, "required": list(properties)}


def listed(items):
    return {"type": "array", "items": items}


PROOF = {
    "ok": {"type": "boolean"},
    "verdict": {"enum": ["same", "inconclusive", "different"]},
    "metrics": record(**dict.fromkeys(METRICS, NULLABLE), **dict.fromkeys(MORE_METRICS, NUMBER))
    | {"additionalProperties": False},
    "tolerance": record(max_abs=NULLABLE),
    "failures": listed(TEXT),
}
EXPORTED = record(
    path={"type": ["string", "null"]},
    format={"enum": ["onnx", "tflite", "savedmodel"]},
    precision={"const": "fp32"},
    bytes=COUNT,
    seconds=NUMBER,
    verify_seconds=NUMBER,
    parity=record(**PROOF),
)
VERIFIED = record(artifact=TEXT, runtime=TEXT, **PROOF)
TIMED = record(
    **{"artifact": TEXT, "runtime": TEXT, "provider": TEXT, "batch": COUNT, "threads": COUNT},
    samples_ns=listed(COUNT),
    **dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "mean_ms", "throughput_per_s", "load_ms", "first_ms"), NUMBER),
    peak_rss_mb=NULLABLE,
)
WRITTEN = record(path=TEXT, bytes=COUNT, parameters=COUNT, config={"type": "object"}, weights_digest=TEXT)

ASSUMED = record(field=TEXT, value={}, why=TEXT, checkpoint=TEXT)
READ_A_CHECKPOINT = ("export", "convert")

COMMANDS = {
    "export": (["export", "{keras}", "-f", "onnx", "-o", "out"], EXPORTED),
    "verify": (["verify", "{onnx}", "{tflite}"], VERIFIED),
    "bench": (["bench", "{onnx}", "--runs", "3"], TIMED),
    "build": (["build", "pico", "--image-size", "16x32", "-o", "m.safetensors"], WRITTEN),
    "convert": (["convert", "{keras}", "-o", "m.safetensors"], WRITTEN),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_document_keeps_its_form(run, bundles, keras_file, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    arguments, result = COMMANDS[command]
    document = {
        "type": "object",
        "required": ["schema", "command", "ok", "results", "skipped"],
        "additionalProperties": False,
        "properties": {
            "schema": {"const": 1},
            "command": {"const": command},
            "ok": {"const": True},
            "results": {**listed(result), "minItems": 1},
            "skipped": listed(TEXT),
            "assumed": listed(ASSUMED),
        },
    }
    if command in READ_A_CHECKPOINT:
        document["required"].append("assumed")
    filled = [argument.format(keras=keras_file, **bundles) for argument in arguments]
    said = run(*filled, "--json")
    assert said.code == 0, said.err
    jsonschema.Draft202012Validator(document).validate(said.document)

    failed = run(*filled[:1], "--no-such-option", "--json").document
    assert failed["ok"] is False and failed["results"] == [] and failed["schema"] == 1
    assert set(failed["error"]) == {"type", "message", "fix"} and failed["command"] == command
