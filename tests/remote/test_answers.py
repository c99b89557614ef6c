"""Images are classified and counted on another machine as on this one, though no image file can be read there."""

from __future__ import annotations

import json
import shlex
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vit_deploy
from tests.remote.sshd import Server
from vit_deploy import checkpoints, cli
from vit_deploy.core.synthetic_images import natural_pixels
from vit_deploy.errors import DataError, UsageError
from vit_deploy.remote.packing import ROOT


@pytest.fixture
def there(server: Server, device_python: Path) -> dict[str, Any]:
    """Arguments that name the machine behind a server, with the Python of a device."""
    python = shlex.quote(str(device_python))
    return {"on": server.url, "remote_python": python, "ssh_config": server.config, "timeout": 90.0}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of a folder for each class, one of whose files is no image."""
    for index, pixels in enumerate(natural_pixels(6, 30, 40, 3)):
        folder = tmp_path / "photos" / str(index % 5)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "photos"


@pytest.mark.slow
def test_artifacts_are_proven_and_timed_there_and_told_as_here(
    there: dict[str, Any], server: Server, bundles: dict[str, Path], tmp_path: Path
) -> None:
    both = [bundles["onnx"], bundles["tflite"]]
    here, found = (vit_deploy.verify(both, threads=1, **where) for where in ({}, there))
    assert found.ok and [each.on for each in found] == [server.url] * 2
    unlike = dict.fromkeys(("seconds", "on", "metrics", "checks"))  # a check is left out there, where Pillow is missing
    assert [{**record, **unlike} for record in here.records] == [{**record, **unlike} for record in found.records]
    for one, other in zip(here, found, strict=True):
        assert (one.artifact, one.verdict) == (other.artifact, other.verdict)
        assert [(check.name, check.ok) for check in one.checks] == [(check.name, check.ok) for check in other.checks]
        assert (one.parity.tolerance, one.parity.notes) == (other.parity.tolerance, other.parity.notes)
        assert one.parity.max_abs == pytest.approx(other.parity.max_abs, abs=1e-5)
    failed = vit_deploy.verify(both[0], quick=True, tolerance={"max_abs": 1e-12}, junit=tmp_path / "a.xml", **there)
    assert not failed.ok and failed.result.failures == tuple(failed.records[0]["failures"])
    assert f"{both[0]} on {server.url}" in (tmp_path / "a.xml").read_text()
    timed = vit_deploy.bench(both, runs=3, threads=1, **there)
    assert timed.ok and {case.on for case in timed} == {server.url}
    assert [len(case.samples_ns) for case in timed] == [3] * len(timed)
    assert server.left_behind() == set()


@pytest.mark.slow
def test_images_are_classified_there_as_here(
    there: dict[str, Any], server: Server, bundles: dict[str, Path], photos: Path
) -> None:
    (photos / "0" / "broken.png").write_bytes(b"no image")
    images = [photos, photos / "0" / "broken.png", photos / "1" / "1.png"]
    here, found = (vit_deploy.predict(bundles["onnx"], images, top=2, **where) for where in ({}, there))
    assert found.command == "predict" and not found.ok and not here.ok
    assert [each.on for each in found] == [server.url] * 9
    assert [(each.image, each.failure) for each in found] == [(each.image, each.failure) for each in here]
    for one, other in zip(here, found, strict=True):
        assert [row.index for row in one.top] == [row.index for row in other.top]
        np.testing.assert_allclose([row.logit for row in one.top], [row.logit for row in other.top], atol=1e-6)
    assert set(found.records[0]) == {"image", "top", "failures", "on"}
    assert server.left_behind() == set()


@pytest.mark.slow
def test_labelled_images_are_counted_there_as_here(
    there: dict[str, Any], server: Server, bundles: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    both = [bundles["onnx"], bundles["tflite"]]
    np.savez(tmp_path / "data.npz", images=natural_pixels(5, 24, 32, 3), labels=np.arange(5))
    for data in (photos, tmp_path / "data.npz"):
        here = vit_deploy.evaluate(both, data, batch=4)
        found = vit_deploy.evaluate(both, data, batch=4, **there)
        assert found.ok and here.ok
        assert [{**record, "on": server.url} for record in here.records] == list(found.records)
        assert [each.reference.name for each in found] == ["onnx-fp32"] * 2


@pytest.mark.slow
def test_images_are_of_the_size_that_was_asked_for_there_too(
    there: dict[str, Any], server: Server, make_checkpoint: Any, photos: Path, tmp_path: Path
) -> None:
    model, size = make_checkpoint(), {"image_size": "48x32"}
    vit_deploy.export(model, tmp_path / "made", formats="onnx", image_size="dynamic")
    vit_deploy.export(model, tmp_path / "made", formats="tflite", image_size=[(24, 32), (48, 32)])
    both = [tmp_path / "made" / "onnx-fp32", tmp_path / "made" / "tflite-fp32"]

    here, found = (vit_deploy.evaluate(both, photos, **size, **where) for where in ({}, there))
    assert [{**record, "on": server.url} for record in here.records] == list(found.records)
    assert [record["image_size"] for record in found.records] == ["48x32"] * 2
    asked = [(both[0], size), (both[1], size), (both[1], {"signature": "images_48x32"})]
    for path, how in asked:
        here, found = (vit_deploy.predict(path, photos, top=2, **how, **where) for where in ({}, there))
        for one, other in zip(here, found, strict=True):
            assert [row.index for row in one.top] == [row.index for row in other.top]
            np.testing.assert_allclose([row.logit for row in one.top], [row.logit for row in other.top], atol=1e-5)


@pytest.mark.slow
def test_the_commands_have_a_column_for_the_machine(
    capfd: pytest.CaptureFixture[str], there: dict[str, Any], server: Server, bundles: dict[str, Path], photos: Path
) -> None:
    words = ["--on", server.url, "--remote-python", there["remote_python"], "--ssh-config", server.config]
    commands = {
        "predict": [bundles["onnx"], photos / "1" / "1.png", "--top", 1],
        "evaluate": [bundles["tflite"], "--data", photos, "--threads", 1],
    }
    for name, arguments in commands.items():
        capfd.readouterr()
        code = cli.run([str(word) for word in (name, *arguments, *words)])
        out, err = capfd.readouterr()
        assert code == 0 and "machine" in out and server.url in out, err


def test_what_cannot_be_sent_is_refused_before_anything_is_asked(
    bundles: dict[str, Path], make_checkpoint: Any, photos: Path, tmp_path: Path
) -> None:
    keras_file = tmp_path / "small.keras"
    checkpoints.save(make_checkpoint(), keras_file)
    nowhere: dict[str, Any] = {"on": "ssh://nowhere.invalid"}
    with pytest.raises(UsageError, match=r"--on sends artifacts, and .*small\.keras is none"):
        vit_deploy.predict(keras_file, photos, **nowhere)
    with pytest.raises(UsageError, match=r"--on sends artifacts, and .*small\.keras is none"):
        vit_deploy.evaluate([bundles["onnx"], keras_file], photos, **nowhere)
    with pytest.raises(UsageError, match="head can be stated of a checkpoint"):
        vit_deploy.predict(bundles["onnx"], photos, reading=vit_deploy.CheckpointOptions(no_head=True), **nowhere)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="is no image that can be read"):
        vit_deploy.predict(bundles["onnx"], tmp_path / "broken.png", **nowhere)


@pytest.mark.slow
def test_a_data_set_that_is_there_is_run_by_hand(
    bundles: dict[str, Path], device_python: Path, tmp_path: Path, photos: Path
) -> None:
    vit_deploy.bundle(bundles["onnx"], tmp_path / "models.tar.gz")
    with tarfile.open(tmp_path / "models.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    np.savez(tmp_path / "data.npz", images=natural_pixels(5, 24, 32, 3), labels=np.arange(5))

    def said(*words: object) -> subprocess.CompletedProcess[str]:
        command = [device_python, tmp_path / ROOT / "run.py", *words]
        return subprocess.run([str(word) for word in command], capture_output=True, text=True)

    done = said("evaluate", "--data", tmp_path / "data.npz", "--json")
    [record] = json.loads(done.stdout)["results"]
    assert record["artifact"] == str(bundles["onnx"]) and record["images"] == 5
    plain = said("evaluate", "--data", tmp_path / "data.npz")
    assert "of 5 images" in plain.stdout
    without = said("predict", photos)
    assert without.returncode == 2 and "Pillow" in without.stderr and "Traceback" not in without.stderr
    assert "there are no images" in said("predict").stderr
