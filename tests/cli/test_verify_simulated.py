"""`verify --simulate`, and what is said of files that saturate on a processor without VNNI."""

from __future__ import annotations

import pytest

import vit_deploy
from vit_deploy import checkpoints
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import read_artifact
from vit_deploy.exporters.quantization import QuantizeOptions, pipeline
from vit_deploy.formats.snippet import snippet
from vit_deploy.runtimes import diagnosis
from vit_deploy.runtimes import openvino as openvino_runtime
from vit_deploy.runtimes.ort import sessions as ort_sessions

OLD_CPU = {"AVX2": True, "VNNI": False}


@pytest.fixture(scope="module")
def made(make_checkpoint, tmp_path_factory) -> dict[str, Artifact]:
    """`old` and `new` artifacts by precision: weights that reach 127 everywhere, and weights whose pairs fit."""
    folder = tmp_path_factory.mktemp("integers")
    checkpoints.save(make_checkpoint(), folder / "small.safetensors")
    [source] = vit_deploy.export(
        folder / "small.safetensors", folder, formats=["onnx"], batch=1
    )  # OpenVINO takes no open one
    found = {}
    for age in ("new", "old"):
        options = QuantizeOptions(full_range=age == "old", measure_speed=False)
        made = pipeline.quantize(source, folder / age, ["int8", "int8-static"], options)
        said = [note for note in made.notes if "on x86 processors without VNNI" in note]
        assert len(said) == (2 if age == "old" else 0)
        found |= {f"{age} {result.artifact.precision}": result.artifact for result in made.results}
    return found


@pytest.mark.parametrize("precision", ["int8", "int8-static"])
def test_a_file_whose_pairs_fit_is_the_same_without_vnni(precision, made, run):
    said = run("verify", made[f"new {precision}"].directory, "--simulate", "no-vnni", "--json")
    (found,) = said.document["results"]
    assert said.code == 0 and found["ok"] and (found["runtime"], found["provider"]) == ("simulated", "no-vnni")
    here = vit_deploy.verify(made[f"new {precision}"].directory)
    assert found["metrics"]["snr_db"] == pytest.approx(here.parity.snr_db, abs=3)


def test_a_file_that_saturates_is_judged_by_its_own_tolerance_and_told_what_to_do(made, run):
    old = made["old int8"].directory
    here, there = vit_deploy.verify(old), vit_deploy.verify(old, simulate="no-vnni")
    assert here.ok and there.parity.snr_db < here.parity.snr_db - 3
    limit = f"snr_db={here.parity.snr_db - 2}"
    said = run("verify", old, "--simulate", "no-vnni", "--tolerance", limit)
    assert said.code == 1 and "DIFFERENT" in said.out
    assert "quantize it again, or set ONNX Runtime's session.x64quantprecision to 1" in said.err
    assert run("verify", old, "--quick", "--tolerance", limit).code == 0


def test_full_range_says_what_it_costs_there_and_where_it_does_nothing(made, run, tmp_path):
    fp32 = made["new int8"].directory.parent.parent / "onnx-fp32"
    command = ["quantize", fp32, "--full-range", "--no-speed", "-o", tmp_path / "out", "-p"]
    said = run(*command, "int8")
    here, there = (vit_deploy.verify(tmp_path / "out/onnx-int8", simulate=each) for each in (None, "no-vnni"))
    assert (
        said.code == 0 and f"without VNNI: {there.parity.snr_db:.1f} dB, which its tolerance does not allow" in said.err
    )
    assert f"where others give {here.parity.snr_db:.1f} dB; leave --full-range out" in said.err
    refused = run(*command, "int4")
    assert refused.code == 2 and "fix: leave it out, or ask for --format onnx --precision int8" in refused.err


def test_what_cannot_be_simulated_is_an_error_before_any_work(made, run):
    fp32 = made["new int8"].directory.parent.parent / "onnx-fp32"
    said = run("verify", fp32, "--simulate", "no-vnni")
    assert said.code == 2 and "fix: simulate onnx in int8 or int8-static" in said.err
    assert run("verify", fp32, "--simulate", "no-vni").err.count("did you mean 'no-vnni'") == 1
    said = run("verify", made["new int8"].directory, "--simulate", "no-vnni", "--runtime", "openvino", "--threads", "1")
    assert said.code == 2 and "--runtime, --threads and --simulate" in said.err


@pytest.mark.parametrize("precision", ["int8", "int8-static"])
def test_on_such_a_processor_onnx_runtime_is_told_to_be_exact_where_weights_do_not_fit(precision, made, monkeypatch):
    asked = []
    options = ort_sessions.ort.SessionOptions

    class Watched(options):
        def add_session_config_entry(self, key, value):
            asked.append((key, value))
            super().add_session_config_entry(key, value)

    monkeypatch.setattr(ort_sessions.ort, "SessionOptions", Watched)
    for features, age, expected in (
        (OLD_CPU, "old", 1),
        (OLD_CPU, "new", 0),
        ({"VNNI": True}, "old", 0),
        ({}, "old", 0),
    ):
        asked.clear()
        monkeypatch.setattr(ort_sessions, "cpu_features", lambda now=features: now)
        with vit_deploy.session(made[f"{age} {precision}"]) as session:
            notes = [note for note in session.notes if "has no VNNI" in note]
        exact = [each for each in asked if each == ("session.x64quantprecision", "1")]
        assert (len(exact), len(notes)) == (expected, expected)


def test_openvino_notes_it_for_calibrated_files_alone(made, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setattr(openvino_runtime, "cpu_features", lambda: OLD_CPU)
    for name, expected in (("old int8-static", 1), ("new int8-static", 0), ("old int8", 0)):
        with vit_deploy.session(made[name], runtime="openvino") as session:
            assert sum("quantize it again" in note for note in session.notes) == expected


def test_the_snippet_sets_it_where_weights_do_not_fit(made):
    setting = "options.add_session_config_entry('session.x64quantprecision', '1')"
    assert setting in snippet(made["old int8"]) and ", options, " in snippet(made["old int8"])
    assert setting not in snippet(made["new int8"])
    compile(snippet(made["old int8"]), "snippet", "exec")


def test_the_doctor_warns_on_such_a_processor(monkeypatch, run):
    monkeypatch.setattr(diagnosis, "cpu_features", lambda: OLD_CPU)
    said = run("doctor", "--json").document["results"][0]
    assert [warning for warning in said["warnings"] if "has no VNNI" in warning]
    monkeypatch.setattr(diagnosis, "cpu_features", lambda: {"NEON": True})
    assert run("doctor", "--json").document["results"][0]["warnings"] == []


def test_inspecting_a_bundle_says_whether_it_is_right_there(made, run):
    assert "x86 without VNNI" in (said := run("inspect", made["new int8"].directory).out)
    assert "exact: no pair of products saturates" in said
    assert "may saturate: quantize it again" in run("inspect", made["old int8-static"].directory).out
    assert "VNNI" not in run("inspect", made["new int8"].directory.parent.parent / "onnx-fp32").out


@pytest.mark.parametrize("precision", ["int8", "int8-static"])
def test_the_manifest_says_that_pairs_fit_where_they_do(precision, made):
    new, old = (read_artifact(made[f"{age} {precision}"].directory).options["recipe"] for age in ("new", "old"))
    assert new["fitting_pairs"] is True and "No pair of products saturates" in new["reason"]
    assert "fitting_pairs" not in old and "saturat" not in old["reason"]
    assert new["reason"].startswith(old["reason"])
