"""The same checkpoint, options and versions give the same files, in whichever process."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vit_deploy import checkpoints
from vit_deploy.core.manifest import read_artifact, sha256
from vit_deploy.exporters import EXPORTERS

EXPORT = """
import sys
from pathlib import Path
from vit_deploy import checkpoints
from vit_deploy.exporters import EXPORTERS
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export
jobs, _ = plan(list(EXPORTERS), ["fp32"])
export(checkpoints.load(Path(sys.argv[1])), Path(sys.argv[2]), jobs)
"""
FORMATS = tuple(EXPORTERS)


@pytest.fixture(scope="module")
def exports(make_checkpoint, tmp_path_factory):
    """Two folders of artifacts, made by two processes with hash seeds of their own."""
    folder = tmp_path_factory.mktemp("reproducible")
    checkpoints.save(make_checkpoint(), folder / "small.safetensors")
    targets = [folder / "one", folder / "other"]
    environments = [{**os.environ, "PYTHONHASHSEED": seed, "TF_CPP_MIN_LOG_LEVEL": "3"} for seed in ("1", "2")]
    commands = [[sys.executable, "-c", EXPORT, str(folder / "small.safetensors"), str(target)] for target in targets]
    running = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for command, environment in zip(commands, environments, strict=True)
    ]
    for each in running:
        _, said = each.communicate()
        assert each.returncode == 0, said
    return targets


def digests(bundle: Path) -> dict[str, str]:
    return {
        file.relative_to(bundle).as_posix(): sha256(file)
        for file in sorted(bundle.rglob("*"))
        if file.is_file() and file.name != "artifact.json"
    }


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_two_processes_write_the_same_bytes(exports, format):
    one, other = (digests(folder / f"{format}-fp32") for folder in exports)
    different = {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
    assert different == ({"saved_model/fingerprint.pb"} if format == "savedmodel" else set())
    assert "golden.npz" in one and len(one) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_the_manifests_of_two_processes_are_equal_to_the_byte(exports, format):
    one, other = ((folder / f"{format}-fp32" / "artifact.json").read_bytes() for folder in exports)
    assert one == other


@pytest.mark.slow
def test_the_digest_of_the_weights_is_the_same_in_all_formats_and_processes(exports, make_checkpoint):
    found = {read_artifact(folder / f"{format}-fp32").weights_digest for folder in exports for format in FORMATS}
    assert found == {make_checkpoint().digest()}


def test_the_digest_is_of_the_weights_alone_and_not_of_their_order(make_checkpoint):
    checkpoint = make_checkpoint()
    shuffled = dict(reversed(checkpoint.weights.items()))
    again = dataclasses.replace(checkpoint, weights=shuffled, labels=tuple("abcde"))
    assert again.digest() == checkpoint.digest()
    name = "head.bias"
    nudged = np.nextafter(checkpoint.weights[name], np.float32(np.inf))
    changed = dataclasses.replace(checkpoint, weights={**checkpoint.weights, name: nudged})
    assert changed.digest() != checkpoint.digest()


def test_all_formats_carry_the_digest_of_the_checkpoint(bundles, make_checkpoint):
    assert {read_artifact(path).weights_digest for path in bundles.values()} == {make_checkpoint().digest()}
