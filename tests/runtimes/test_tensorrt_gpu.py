"""On an NVIDIA GPU with TensorRT, or TensorRT for RTX and a GPU of its kinds: plans are built, proven and timed there.

`VIT_DEPLOY_GPU_BUNDLES` names a folder of exported artifacts; plans are built of an ONNX artifact in fp32,
so that neither TensorFlow nor an exporter is needed; plans that lie there are proven as well.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from vit_deploy.core.manifest import MANIFEST, read_artifact
from vit_deploy.core.options.tensorrt import BatchRange
from vit_deploy.errors import VitDeployError
from vit_deploy.exporters import PlanOptions
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export, publish
from vit_deploy.exporters.tensorrt.export import TensorRTCompiler
from vit_deploy.formats.tensorrt_plan import PlanRecord
from vit_deploy.performance.worker import transfer_samples
from vit_deploy.runtimes import RUNTIMES, RuntimeOptions
from vit_deploy.verification.checks import ALWAYS
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.tolerances import Limits
from vit_deploy.verification.verifying import verify

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="needs an NVIDIA GPU"),
]
BUNDLES = "VIT_DEPLOY_GPU_BUNDLES"


def given():
    """The artifacts in the folder that is named."""
    folder = os.environ.get(BUNDLES)
    return [read_artifact(path.parent) for path in sorted(Path(folder).rglob(MANIFEST))] if folder else []


@pytest.fixture(scope="module")
def source(make_checkpoint, tmp_path_factory):
    """The ONNX artifact that plans are built of."""
    if found := [case for case in given() if case.name == "onnx-fp32" and case.options.get("for") != "cuda"]:
        return found[0]
    pytest.importorskip("tensorflow")
    (made,) = export(make_checkpoint(), tmp_path_factory.mktemp("source"), plan(["onnx"], ["fp32"])[0])
    return made.artifact


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    """Published plans by whether TF32 is allowed; skips where there is no TensorRT for this GPU."""
    made = {}
    for allowed in (False, True):
        options = PlanOptions(batches=BatchRange(1, 4, 8), allow_tf32=allowed)
        try:
            TensorRTCompiler().check(options)
        except VitDeployError as error:
            pytest.skip(error.message)

        def write(folder, options=options):
            target = dataclasses.replace(source, directory=folder, format="tensorrt", files={}, model="")
            return TensorRTCompiler().write(source, target, options)

        made[allowed] = publish(
            tmp_path_factory.mktemp("built") / "tensorrt",
            write,
            read_golden(source),
            force=False,
            keep_failed=True,
            progress=lambda doing: None,
            limits=Limits(allow_tf32=allowed),
        )
    return made


@pytest.mark.parametrize("allowed", [False, True])
def test_a_plan_that_was_built_here_is_proven_here(built, allowed):
    assert built[allowed].parity.ok, built[allowed].parity.failures
    assert PlanRecord.of(built[allowed].artifact).tf32 == allowed


@pytest.mark.parametrize("graph", [False, True])
def test_it_passes_every_question_with_and_without_a_cuda_graph(built, graph):
    found = verify(built[False].artifact, cuda_graph=graph, checks=ALWAYS)
    assert found.ok, found.failures
    assert found.provider in ("tensorrt", "tensorrt-rtx")


@pytest.mark.parametrize("graph", [False, True])
def test_calls_are_launched_without_waiting_and_copies_are_apart(built, graph):
    artifact = built[False].artifact
    images = read_golden(artifact).images[:1]
    with RUNTIMES.load("tensorrt")().open(artifact, RuntimeOptions(cuda_graph=graph)) as session:
        alone = session.infer(images)
        session.upload(images)
        for _ in range(20):
            session.launch()
        session.wait()
        assert np.array_equal(session.download(), alone)
        assert all(sample > 0 for sample in transfer_samples(session, images))


def test_plans_that_were_built_elsewhere_are_proven_here():
    plans = [case for case in given() if case.format == "tensorrt"]
    if not plans:
        pytest.skip(f"{BUNDLES} names no folder with plans")
    for artifact in plans:
        found = verify(artifact, checks=ALWAYS)
        assert found.ok, found.failures
