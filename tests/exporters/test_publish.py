from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.errors import EngineError, ExportError, OutputError
from vit_deploy.exporters import EXPORTERS, publish
from vit_deploy.exporters.onnx.export import OnnxExporter
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export, to_json
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.recording import record
from vit_deploy.verification.verifying import verify


class OtherWeights(OnnxExporter):
    """Writes a model whose head is a little off."""

    def write(self, checkpoint, artifact, options):
        weights = {**checkpoint.weights, "head.bias": checkpoint.weights["head.bias"] + np.float32(1e-3)}
        super().write(dataclasses.replace(checkpoint, weights=weights), artifact, options)


class NotANumber(OnnxExporter):
    """Writes a model that answers NaN: its norms divide by the root of a huge negative number."""

    def write(self, checkpoint, artifact, options):
        huge = np.full_like(checkpoint.weights["patch_embed.bias"], 3e38)
        weights = {**checkpoint.weights, "patch_embed.bias": huge}
        super().write(dataclasses.replace(checkpoint, weights=weights), artifact, options)


class Refusing:
    """Fails when the model is half-written."""

    libraries = ()

    def write(self, checkpoint, artifact, options):
        artifact.model_path.mkdir(parents=True)
        raise ExportError("the graph is upside down", fix="turn it")


class Full:
    """Finds the disk full when the model is half-written."""

    libraries = ()

    def write(self, checkpoint, artifact, options):
        artifact.model_path.mkdir(parents=True)
        raise OSError(28, os.strerror(28))


HANG_S = 600  # that no process takes which is told to end, however busy the machine is
# An export that works until it is stopped.
DRIVER = """
import sys, time
HANG = 3600
import dataclasses
from vit_deploy import cli
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.registry import Plugin

class Slow:
    libraries = ()
    def write(self, checkpoint, artifact, options):
        artifact.model_path.write_bytes(b"half")
        print(artifact.directory, flush=True)
        time.sleep(HANG)

FORMATS._records["onnx"] = dataclasses.replace(FORMATS["onnx"], exporter=Plugin("__main__:Slow"))
cli.main(["export", "pico", "--image-size", "32x48", "--format", "onnx", "-o", *sys.argv[1:]])
"""


@pytest.fixture
def exporters(monkeypatch):
    """Lets another class of this module write a format."""

    def replace(**classes):
        plugins = {name: EXPORTERS[name] for name in EXPORTERS}
        plugins |= {name: Plugin(f"{__name__}:{kind.__name__}") for name, kind in classes.items()}
        monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
        monkeypatch.setattr(publish, "EXPORTERS", Registry("format", plugins))

    return replace


def jobs_of(*formats, **options):
    return plan(formats, ["fp32"], **options)[0]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_each_job_becomes_a_proven_bundle_of_its_own(make_checkpoint, tmp_path):
    told = []
    checkpoint = make_checkpoint()
    results = export(checkpoint, tmp_path / "out", jobs_of("savedmodel", "onnx"), progress=told.append)
    assert names(tmp_path / "out") == ["onnx-fp32", "savedmodel-fp32"]
    assert [result.artifact.format for result in results] == ["savedmodel", "onnx"]
    for result in results:
        assert result.published and result.parity.ok
        assert result.seconds > 0 and result.verify_seconds > 0
        back = read_artifact(result.artifact.directory)
        assert back.weights_digest == checkpoint.digest()
        assert back.config == checkpoint.config and back.preprocess == checkpoint.preprocess
        assert result.bytes == back.model_bytes > checkpoint.num_bytes
        assert verify(back).parity == result.parity
        recorded = read_golden(back)
        assert np.array_equal(recorded.outputs, record(checkpoint).outputs)
        assert to_json(result)["path"] == str(tmp_path / "out" / back.name)
    assert told[0] == "computing the reference in float64"
    made = [text for text in told[1:] if not text.startswith("computing the reference: ")]
    assert len(made) < len(told) - 1
    steps = ("loading the exporter of", "writing", "proving")
    assert made == [f"{step} {name}-fp32" for name in ("savedmodel", "onnx") for step in steps]


@pytest.mark.parametrize("wrong", [OtherWeights, NotANumber])
def test_a_model_that_fails_its_proof_is_not_published_and_its_siblings_are(
    make_checkpoint, tmp_path, exporters, wrong
):
    exporters(onnx=wrong)
    failed, good = export(make_checkpoint(), tmp_path, jobs_of("onnx", "tflite"))
    assert not failed.parity.ok and not failed.published
    assert good.parity.ok and good.published
    assert names(tmp_path) == ["tflite-fp32"]
    said = to_json(failed)
    assert said["path"] is None and said["parity"]["failures"] and not said["parity"]["ok"]


def test_a_failed_model_is_kept_beside_if_asked(make_checkpoint, tmp_path, exporters):
    exporters(onnx=OtherWeights)
    (failed,) = export(make_checkpoint(), tmp_path, jobs_of("onnx"), keep_failed=True)
    assert names(tmp_path) == ["onnx-fp32.failed"]
    assert failed.artifact.directory == tmp_path / "onnx-fp32.failed"
    assert to_json(failed)["path"] == str(failed.artifact.directory)
    assert verify(read_artifact(failed.artifact.directory)).parity.failures == failed.parity.failures


def test_a_failed_model_replaces_nothing(make_checkpoint, tmp_path, exporters):
    good = export(make_checkpoint(), tmp_path, jobs_of("onnx"))[0].artifact
    exporters(onnx=OtherWeights)
    export(make_checkpoint(), tmp_path, jobs_of("onnx"), force=True)
    assert read_artifact(good.directory).files == good.files
    (tmp_path / "onnx-fp32.failed").mkdir()
    with pytest.raises(OutputError, match=r"already there: .*onnx-fp32, .*onnx-fp32\.failed"):
        export(make_checkpoint(), tmp_path, jobs_of("onnx"), keep_failed=True)
    export(make_checkpoint(), tmp_path, jobs_of("onnx"), keep_failed=True, force=True)
    assert read_artifact(good.directory).files == good.files
    assert (tmp_path / "onnx-fp32.failed" / "artifact.json").is_file()


def test_a_converter_that_fails_leaves_its_siblings_and_nothing_half_written(make_checkpoint, tmp_path, exporters):
    exporters(savedmodel=Refusing)
    with pytest.raises(ExportError, match="upside down"):
        export(make_checkpoint(), tmp_path / "a" / "b", jobs_of("savedmodel"))
    assert names(tmp_path) == []
    with pytest.raises(ExportError, match="upside down"):
        export(make_checkpoint(), tmp_path, jobs_of("onnx", "savedmodel"))
    assert names(tmp_path) == ["onnx-fp32"]


def test_a_full_disk_is_one_clear_error(make_checkpoint, tmp_path, exporters):
    exporters(savedmodel=Full)
    with pytest.raises(OutputError, match=r"no space left while writing .*savedmodel-fp32"):
        export(make_checkpoint(), tmp_path / "a", jobs_of("savedmodel"))
    assert names(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path):
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("format", list(EXPORTERS))
def test_every_format_tells_of_a_disk_that_is_really_full(make_checkpoint, small_disk, format):
    with pytest.raises(OutputError, match=f"no space left while writing .*{format}-fp32"):
        export(make_checkpoint(), small_disk, jobs_of(format))
    assert names(small_disk) == []


@pytest.mark.parametrize("format", list(EXPORTERS))
def test_every_format_tells_of_a_limit_on_the_size_of_a_file(make_checkpoint, tmp_path, format):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoint = make_checkpoint(mlp_dim=4000)  # 0.8 MB; what a converter keeps for itself meanwhile is below the limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        with pytest.raises(OutputError, match=f"no space left while writing .*{format}-fp32"):
            export(checkpoint, tmp_path, jobs_of(format))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == []


def test_existing_bundles_are_all_named_before_any_work(make_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "record", lambda checkpoint: pytest.fail("the work began"))
    for name in ("onnx-fp32", "tflite-fp32"):
        (tmp_path / name).mkdir()
    with pytest.raises(OutputError) as caught:
        export(make_checkpoint(), tmp_path, jobs_of("onnx", "savedmodel", "tflite"))
    assert caught.value.message == f"already there: {tmp_path / 'onnx-fp32'}, {tmp_path / 'tflite-fp32'}"


def test_pixels_go_into_the_golden_data_of_a_model_that_takes_pixels(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint()
    (result,) = export(checkpoint, tmp_path, jobs_of("onnx", include_preprocessing=True))
    back = read_artifact(result.artifact.directory)
    recorded = read_golden(back)
    assert back.input.dtype == "uint8" and recorded.images.dtype == np.uint8
    assert np.array_equal(recorded.outputs, record(checkpoint).outputs)
    assert np.allclose(checkpoint.preprocess.normalize(recorded.images), record(checkpoint).images, atol=1e-6)


def test_a_file_that_its_engine_refuses_is_not_published(make_checkpoint, tmp_path, monkeypatch):
    def damaged(self, checkpoint, artifact, options):
        artifact.model_path.write_bytes(b"no graph")

    monkeypatch.setattr(OnnxExporter, "write", damaged)
    with pytest.raises(EngineError, match=r"model\.onnx is not an ONNX file"):
        export(make_checkpoint(), tmp_path, jobs_of("onnx"))
    assert names(tmp_path) == []


def started(target, *options):
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, target, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return process, Path(process.stdout.readline().strip())


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_an_export_and_leaves_nothing(tmp_path, stop, code):
    process, folder = started(tmp_path / "made" / "out")
    assert folder.parent == tmp_path / "made" / "out"
    assert (folder / "model.onnx").read_bytes() == b"half"
    process.send_signal(stop)
    _, err = process.communicate(timeout=HANG_S)
    assert process.returncode == code
    assert "Traceback" not in err
    assert names(tmp_path) == []


def test_a_killed_export_never_has_the_targets_name_and_the_next_one_takes_its_folder_away(
    make_checkpoint, tmp_path, exporters
):
    process, folder = started(tmp_path / "out")
    process.kill()
    process.communicate(timeout=HANG_S)
    assert names(tmp_path / "out") == [folder.name]
    running, beside = started(tmp_path / "out")
    try:
        assert not folder.exists()
        export(make_checkpoint(), tmp_path / "out", jobs_of("tflite"))
        assert names(tmp_path / "out") == [beside.name, "tflite-fp32"]
        assert (beside / "model.onnx").read_bytes() == b"half" and running.poll() is None
    finally:
        running.kill()
        running.communicate(timeout=HANG_S)


def test_a_failed_proof_says_that_the_earlier_bundle_is_still_there(make_checkpoint, tmp_path, monkeypatch):
    jobs, _ = plan(["onnx"], ["fp32"])
    first = export(make_checkpoint(), tmp_path, jobs)[0]
    monkeypatch.setattr(publish, "EXPORTERS", Registry("format", {"onnx": Plugin(f"{__name__}:OtherWeights")}))
    failed = export(make_checkpoint(), tmp_path, jobs, force=True)[0]
    assert not failed.parity.ok and not failed.published
    assert failed.parity.failures[-1] == f"{first.artifact.directory} still holds the earlier artifact"
    assert verify(read_artifact(first.artifact.directory)).parity.ok


def test_a_converter_that_fails_late_says_what_is_published_already(make_checkpoint, tmp_path, monkeypatch):
    table = {"onnx": EXPORTERS["onnx"], "tflite": Plugin(f"{__name__}:Refusing")}
    monkeypatch.setattr(publish, "EXPORTERS", Registry("format", table))
    jobs, _ = plan(["onnx", "tflite"], ["fp32"])
    with pytest.raises(ExportError, match=r"the graph is upside down; already published: .*onnx-fp32"):
        export(make_checkpoint(), tmp_path, jobs)
    assert [path.name for path in tmp_path.iterdir()] == ["onnx-fp32"]
