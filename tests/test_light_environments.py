"""A device has one light runtime and nothing else: artifacts that are copied there are proven and timed."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments import clean, environment, versions, wheel
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
HEAVY = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxscript", "h5py", "torch")


@pytest.fixture(scope="module")
def with_extra(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The programs of an environment with this package and one of its extras, not to be changed."""
    built = wheel(ROOT, tmp_path_factory.mktemp("wheel"))
    return functools.cache(lambda extra: environment(tmp_path_factory.mktemp(extra), f"{built}[{extra}]"))


def run(programs: Path, *arguments: object) -> dict[str, object]:
    done = subprocess.run(
        [programs / "vit-deploy", *map(str, arguments), "--json"], capture_output=True, text=True, env=clean()
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("extra", "format"), [("onnx", "onnx"), ("openvino", "onnx"), ("litert", "tflite")])
def test_a_copied_bundle_is_proven_and_timed_where_only_its_light_runtime_is_installed(
    extra: str, format: str, checkpoint: Checkpoint, with_extra: Callable[[str], Path], tmp_path: Path
) -> None:
    jobs, _ = plan([format], ["fp32"])
    made = export(checkpoint, tmp_path / "made", jobs)[0].artifact.directory
    copied = shutil.copytree(made, tmp_path / "device" / "bundle")
    shutil.rmtree(tmp_path / "made")
    programs = with_extra(extra)
    installed = set(versions(programs))
    assert "vit-deploy" in installed and not installed & set(HEAVY)

    verified = run(programs, "verify", copied)
    assert verified["ok"]
    timed = run(programs, "bench", copied, "--runs", 10)["results"]
    assert isinstance(timed, list)
    assert len(timed[0]["samples_ns"]) == 10
    assert timed[0]["p50_ms"] > 0


def test_a_missing_engine_is_an_error_that_names_its_extra(
    checkpoint: Checkpoint, with_extra: Callable[[str], Path], tmp_path: Path
) -> None:
    jobs, _ = plan(["tflite"], ["fp32"])
    bundle = export(checkpoint, tmp_path / "made", jobs)[0].artifact.directory
    command = [with_extra("onnx") / "vit-deploy", "verify", bundle]
    done = subprocess.run(command, capture_output=True, text=True, env=clean())
    assert done.returncode == 2
    assert 'pip install "vit-deploy[litert]"' in done.stderr
    assert "Traceback" not in done.stderr
