"""What `verify` says of fp16 ONNX files for Arm processors that keep sums in half, on a machine that is none."""

from __future__ import annotations

import numpy as np
import pytest

import vit_deploy
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.pipeline import export
from vit_deploy.runtimes.simulators import onnx_arm_fp16
from vit_deploy.verification import arm_half


@pytest.fixture(scope="module")
def made(make_checkpoint, tmp_path_factory):
    jobs, _ = plan(["onnx"], ["fp32", "fp16"])
    options = QuantizeOptions(measure_speed=False)
    results = export(make_checkpoint(), tmp_path_factory.mktemp("made"), jobs, options).results
    return {result.artifact.precision: result.artifact for result in results}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


def said_of(artifact, **options):
    found = vit_deploy.verify(artifact, **options)
    assert found.ok
    return [check.words for check in found.result.checks if check.name == "arm-fp16"]


def test_what_an_arm_processor_would_give_is_told_with_what_it_cost(made):
    [words] = said_of(made["fp16"])
    assert " dB on Arm CPUs with half arithmetic (Cortex-A55, A76 and later), simulated on 1 image in " in words
    assert float(words.split()[0]) >= 40
    simulated = vit_deploy.verify(made["fp16"], simulate="arm-fp16").parity.snr_db
    assert float(words.split()[0]) == pytest.approx(simulated, abs=8)  # of the first image alone


def test_where_it_would_fail_there_verify_warns_and_passes(made, monkeypatch, run):
    product = onnx_arm_fp16.half_product

    def noisy(left, right, start=0):
        found = product(left, right, start)
        return (found + 0.2 * np.random.default_rng(1).standard_normal(found.shape)).astype(np.float16)

    monkeypatch.setattr(onnx_arm_fp16, "half_product", noisy)
    [words] = said_of(made["fp16"])
    assert words.startswith("warning: Arm CPUs with half arithmetic") and "dB where 40 are needed" in words
    done = run("verify", made["fp16"].directory)
    assert done.code == 0 and "arm-fp16: warning: Arm CPUs" in done.err


def test_quick_leaves_it_out_and_so_do_files_that_are_computed_alike_everywhere(made, monkeypatch):
    assert said_of(made["fp16"], quick=True) == said_of(made["fp32"]) == []
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert said_of(made["fp16"]) == []


def test_of_a_large_model_the_command_is_told_instead(made, monkeypatch):
    monkeypatch.setattr(arm_half, "MOST_MACS", 1000)
    [words] = said_of(made["fp16"])
    assert words.startswith("not simulated on Arm CPUs") and "--simulate arm-fp16" in words
