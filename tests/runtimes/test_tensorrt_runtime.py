"""Plans are run as any artifact is: with stand-ins for TensorRT and the driver that keep their rules."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import shutil
import sys
import threading
import types

import numpy as np
import pytest

from tests.runtimes import fake_tensorrt
from tests.runtimes.fake_cuda import FakeCuda
from tests.runtimes.fake_tensorrt import install, install_for_rtx
from vit_deploy.core.manifest import MANIFEST, read_artifact
from vit_deploy.core.options.tensorrt import BatchRange
from vit_deploy.core.reference import forward
from vit_deploy.errors import DataError, EngineError
from vit_deploy.exporters import PlanOptions
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.compiled import export
from vit_deploy.runtimes import GPU_PROVIDERS, RUNTIMES, DeviceRuntime, DeviceSession, RuntimeOptions, installed_takers
from vit_deploy.verification.checks import ALWAYS
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.tolerances import NOISE_FACTOR
from vit_deploy.verification.verifying import verify

RANGE = BatchRange(2, 3, 4)


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint):
    return make_checkpoint()


@pytest.fixture(scope="module")
def images(checkpoint):
    shape = (11, *checkpoint.config.image_size, checkpoint.config.channels)
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def plans(checkpoint, tmp_path_factory):
    """Artifacts by what their batch is; they were proven on the stand-in."""
    made = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("VIT_DEPLOY_CACHE", str(tmp_path_factory.mktemp("cache")))
        install(patched, FakeCuda())
        quietly = QuantizeOptions(measure_speed=False)
        for name, batch, precision in (("open", None, "fp32"), ("fixed", "3", "fp32"), ("half", None, "fp16")):
            jobs, _ = plan(["tensorrt"], [precision], batch=batch)
            folder = tmp_path_factory.mktemp(name)
            (result,) = export(checkpoint, folder, jobs, quietly, plans=PlanOptions(batches=RANGE)).results
            assert result.parity.ok, result.parity.failures
            made[name] = result.artifact.directory
    return made


@pytest.fixture(autouse=True)
def cuda(monkeypatch, tmp_path):
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path / "cache"))
    cuda = FakeCuda(gpus=(("NVIDIA Test 9000", (9, 0)), ("NVIDIA Test 80", (8, 0))))
    install(monkeypatch, cuda)
    return cuda


def opened(folder, **options):
    return RUNTIMES.load("tensorrt")().open(read_artifact(folder), RuntimeOptions(**options))


def near(checkpoint, images, outputs):
    truth = forward(checkpoint, images)
    tolerance = NOISE_FACTOR * np.abs(forward(checkpoint, images, np.float32) - truth).max()
    return outputs.dtype == np.float32 and outputs.shape == truth.shape and np.abs(outputs - truth).max() <= tolerance


@pytest.mark.parametrize("kind", ["open", "fixed"])
@pytest.mark.parametrize("graph", [False, True])
def test_any_number_of_images_gives_the_references_output(plans, checkpoint, images, cuda, kind, graph):
    with opened(plans[kind], cuda_graph=graph) as session:
        assert session.provider == "tensorrt" and session.provider in GPU_PROVIDERS
        for count in (1, 2, 7, 3, 11, 4):  # below, within and above what a call takes
            assert near(checkpoint, images[:count], session.infer(images[:count])), count
        assert ("cuGraphLaunch" in cuda.called) == graph
    assert not cuda.allocated and not cuda.graphs and cuda.retained == 0


def test_a_plan_passes_every_question_of_verify(plans):
    found = verify(read_artifact(plans["open"]), checks=ALWAYS)
    assert found.ok, found.failures
    assert (found.runtime, found.provider) == ("tensorrt", "tensorrt")
    assert len(found.checks) > 3
    assert verify(read_artifact(plans["half"])).ok


def test_images_of_another_size_are_refused(plans, images):
    with opened(plans["open"]) as session, pytest.raises(DataError, match="expected normalised float32 images"):
        session.infer(images.transpose(0, 2, 1, 3))


def test_it_works_on_a_device_step_by_step(plans, checkpoint, images, cuda):
    with opened(plans["open"]) as session:
        assert isinstance(session, DeviceSession)
        session.upload(images[:3])
        for _ in range(3):
            session.launch()
        session.wait()
        assert near(checkpoint, images[:3], session.download())
        before = dict(cuda.allocated)
        session.upload(images[3:6])  # of the same shape: the same memory
        assert cuda.allocated.keys() == before.keys()
        session.compute()
        assert near(checkpoint, images[3:6], session.download())
        assert session.build_ns == 0 and session.trial_ns == 0


def test_a_graph_is_recorded_once_for_a_shape_and_replayed(plans, checkpoint, images, cuda):
    with opened(plans["open"], cuda_graph=True) as session:
        session.upload(images[:4])
        session.compute()
        session.upload(images[4:8])
        session.compute()
        assert near(checkpoint, images[4:8], session.download())
        assert cuda.called.count("cuStreamBeginCapture_v2") == 1
        assert cuda.called.count("cuGraphLaunch") == 2


def test_threads_that_share_a_session_get_their_own_answers(plans, checkpoint, images):
    wrong = []
    with opened(plans["open"]) as session:

        def work(start):
            for count in (2, 3, 5, 4):
                part = images[start : start + count]
                if not near(checkpoint, part, session.infer(part)):
                    wrong.append((start, count))

        threads = [threading.Thread(target=work, args=(start,)) for start in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_batch_that_was_not_built_for_is_refused_where_calls_are_timed_and_split_elsewhere(plans, checkpoint, images):
    with opened(plans["open"], largest_batch=8) as session:
        for count in (1, 8):
            with pytest.raises(EngineError) as caught:
                session.upload(images[:count])
            assert f"was built for batches of 2 to 4 images, and {count} a call are requested" in caught.value.message
            assert f"--batch-range that holds {count}" in caught.value.fix
            assert near(checkpoint, images[:count], session.infer(images[:count]))
    with opened(plans["fixed"]) as session:
        session.upload(images)  # a fixed batch is told beside the timing, as of every format


def changed(folder, tmp_path, **values):
    """The artifact with other values of what its manifest says of the plan."""
    copy = shutil.copytree(folder, tmp_path / "changed")
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["options"]["tensorrt"] |= values
    (copy / MANIFEST).write_text(json.dumps(manifest))
    return copy


FOREIGN = {
    "another version": (
        {"version": "10.9.0.34"},
        "was built by TensorRT 10.9.0.34, and TensorRT 10.13.2.6 is installed, which reads plans of only its own "
        "version",
    ),
    "another GPU": (
        {"gpu": "NVIDIA Other", "compute_capabilities": ["8.9"]},
        "was built for NVIDIA Other (compute capability 8.9), and this is NVIDIA Test 9000 (compute capability 9.0)",
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_plan_of_another_machine_is_refused_with_both_named(plans, tmp_path, monkeypatch, kind):
    values, message = FOREIGN[kind]
    monkeypatch.setattr(fake_tensorrt.Runtime, "deserialize_cuda_engine", lambda *given: pytest.fail("it was loaded"))
    with pytest.raises(EngineError) as caught, opened(changed(plans["open"], tmp_path, **values)):
        pass
    assert message in caught.value.message


def test_another_build_of_the_same_version_and_another_gpu_of_the_same_kind_will_do(
    plans, tmp_path, checkpoint, images
):
    folder = changed(plans["open"], tmp_path, version="10.13.2.99", gpu="NVIDIA Sister")
    with opened(folder) as session:
        assert near(checkpoint, images, session.infer(images))
        assert session.notes == ("the plan was tuned on another GPU, NVIDIA Sister; this is NVIDIA Test 9000",)


def test_the_gpu_that_was_asked_for_is_the_one_that_counts(plans):
    with (
        pytest.raises(EngineError, match=r"this is NVIDIA Test 80 \(compute capability 8.0\)"),
        opened(plans["open"], device=1),
    ):
        pass
    with (
        pytest.raises(EngineError, match=r"cannot run .*model.plan: there is no GPU 5"),
        opened(plans["open"], device=5),
    ):
        pass


def test_without_a_gpu_it_says_so(plans, monkeypatch):
    monkeypatch.setattr("vit_deploy.runtimes.cuda.memory.open_library", lambda: FakeCuda(gpus=()))
    with pytest.raises(EngineError, match=r"cannot run .*model.plan: there is no NVIDIA GPU"):
        verify(read_artifact(plans["open"]))


def test_another_provider_is_refused(plans):
    with pytest.raises(EngineError) as caught, opened(plans["open"], provider="tensorrt-rtx"):
        pass
    assert "was built by TensorRT, and is not run with the provider 'tensorrt-rtx'" in caught.value.message
    with opened(plans["open"], provider="tensorrt"):
        pass


def test_who_asks_for_the_gpu_gets_it(plans):
    with opened(plans["open"], provider="cuda") as session:
        assert session.provider == "tensorrt"


DAMAGES = {
    "foreign": (b"\xffnot a plan", "Magic tag does not match"),
    "empty": (b"", "Magic tag does not match"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_plan_is_an_error_that_names_it_and_says_what_tensorrt_said(plans, tmp_path, damage, cuda, caplog):
    content, words = DAMAGES[damage]
    folder = shutil.copytree(plans["open"], tmp_path / "damaged")
    (folder / "model.plan").write_bytes(content)
    artifact = read_artifact(folder, check_digests=False)
    with pytest.raises(EngineError) as caught, RUNTIMES.load("tensorrt")().open(artifact):
        pass
    assert str(artifact.model_path) in caught.value.message and words in caught.value.message
    assert [record.getMessage() for record in caplog.records] == [f"tensorrt: {words}"]  # which only -v lets through
    assert cuda.retained == 0 and not cuda.allocated


def test_a_plan_that_is_not_its_manifests_is_refused(plans, tmp_path):
    artifact = read_artifact(plans["open"])
    for wrong in (
        dataclasses.replace(artifact, input=dataclasses.replace(artifact.input, name="pixels")),
        dataclasses.replace(artifact, input=dataclasses.replace(artifact.input, dtype="float16")),
        dataclasses.replace(artifact, config=artifact.config.replace(include_top=False)),
    ):
        with pytest.raises(EngineError, match=str(artifact.model_path)), RUNTIMES.load("tensorrt")().open(wrong):
            pass


def test_what_fails_on_the_gpu_is_told_and_nothing_stays_there(plans, images, cuda):
    for name, message in (
        ("cuMemAlloc_v2", "cuMemAlloc_v2 failed"),
        ("cuMemcpyHtoDAsync_v2", "cuMemcpyHtoDAsync_v2 failed"),
    ):
        cuda.failing = {name: 2}
        with pytest.raises(EngineError, match=message), opened(plans["open"]) as session:
            session.infer(images[:2])
        assert not cuda.allocated and cuda.retained == 0


def test_a_call_that_tensorrt_refuses_is_told_with_its_words(plans, images, monkeypatch):
    monkeypatch.setattr(fake_tensorrt.Context, "execute_async_v3", lambda self, stream: self._complain("no workspace"))
    with (
        pytest.raises(EngineError, match=r"TensorRT 10.13.2.6 cannot run .*model.plan: no workspace"),
        opened(plans["open"]) as session,
    ):
        session.infer(images[:2])


def test_it_is_benchmarked_with_its_copies_apart(plans):
    from vit_deploy.performance.worker import transfer_samples

    with opened(plans["open"], largest_batch=4) as session:
        assert len(transfer_samples(session, read_golden(read_artifact(plans["open"])).images[:4])) > 0


def test_no_batch_is_searched_above_what_a_plan_takes(plans):
    from vit_deploy.performance.latency import Case
    from vit_deploy.performance.sweep import MOST, most_of

    assert most_of(Case(plans["open"], "tensorrt")) == RANGE.most
    assert most_of(Case(plans["fixed"], "tensorrt")) == MOST


def test_sessions_side_by_side_leave_each_other_alone(plans, checkpoint, images, cuda):
    with opened(plans["open"]) as first:
        with opened(plans["open"], cuda_graph=True) as second:
            assert near(checkpoint, images[:2], second.infer(images[:2]))
        assert near(checkpoint, images[:5], first.infer(images[:5]))
    assert cuda.retained == 0 and not cuda.allocated


def test_it_is_the_runtime_of_plans_alone():
    assert installed_takers("tensorrt") == ("tensorrt",)
    assert "tensorrt" not in installed_takers("onnx")
    assert installed_takers("onnx", "tensorrt") == ("onnxruntime",)


def cuda_python(cuda):
    """The part of cuda-python that the snippet takes."""
    module = types.ModuleType("cuda.bindings.runtime")
    module.cudaMemcpyKind = types.SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)

    def allocate(size):
        address = ctypes.c_void_p()
        cuda.cuCtxSetCurrent(7)  # as CUDA's runtime does by itself
        cuda.cuMemAlloc_v2(ctypes.byref(address), size)
        return 0, address.value

    def copy(target, source, size, kind):
        (cuda.cuMemcpyHtoDAsync_v2 if kind == 1 else cuda.cuMemcpyDtoHAsync_v2)(target, source, size, 0)
        cuda.cuStreamSynchronize(0)

    module.cudaMalloc, module.cudaMemcpy = allocate, copy
    module.cudaStreamCreate, module.cudaStreamSynchronize = lambda: (0, 0x99), cuda.cuStreamSynchronize
    return module


def test_its_snippet_answers_as_the_session_does(plans, cuda, tmp_path, monkeypatch, capsys):
    from PIL import Image

    from vit_deploy.core.images import load_image
    from vit_deploy.formats.snippet import snippet

    artifact = read_artifact(plans["open"])
    folder = changed(plans["open"], tmp_path)
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(4).integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(photo)
    pixels = load_image(photo, artifact.preprocess, artifact.config.image_size)
    with opened(plans["open"]) as session:
        expected = session.infer(pixels[None])[0]
    manifest = json.loads((folder / MANIFEST).read_text()) | {"labels": list("abcde")}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    text = snippet(read_artifact(folder))
    assert "[image] * 2" in text  # the least that this plan takes
    runtime = cuda_python(cuda)
    bindings = types.ModuleType("cuda.bindings")
    bindings.runtime = runtime
    for name, module in (("cuda", types.ModuleType("cuda")), ("cuda.bindings", bindings), (runtime.__name__, runtime)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys, "argv", ["snippet.py", str(photo)])
    exec(compile(text, "snippet.py", "exec"), {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    order = np.argsort(-expected)
    assert [name for _, name in lines] == ["abcde"[index] for index in order]
    assert np.allclose([float(each) for each, _ in lines], expected[order], atol=1e-5)


def test_a_gpu_can_be_opened_before_anything_is_loaded_there(plans, cuda, images, checkpoint):
    engine = RUNTIMES.load("tensorrt")()
    assert isinstance(engine, DeviceRuntime)
    engine.prepare(RuntimeOptions(provider="tensorrt"))
    assert cuda.retained == 1
    with opened(plans["open"]) as session:
        assert near(checkpoint, images, session.infer(images))
    assert cuda.retained == 1  # so that the next one need not open it either
    with pytest.raises(EngineError, match="there is no GPU 5"):
        engine.prepare(RuntimeOptions(device=5))


@pytest.fixture
def for_rtx(plans, tmp_path, monkeypatch):
    """A plan of TensorRT for RTX, which compiles its kernels where it runs."""
    install_for_rtx(monkeypatch)
    kinds = ["8.9", "9.0"]
    return changed(plans["open"], tmp_path, flavour="tensorrt_rtx", version="1.7.1.116", compute_capabilities=kinds)


@pytest.mark.parametrize("graph", [False, True])
def test_tensorrt_for_rtx_runs_its_plans_and_compiles_apart_from_loading(for_rtx, checkpoint, images, graph, tmp_path):
    with opened(for_rtx, cuda_graph=graph) as session:
        assert session.provider == "tensorrt-rtx" and session.build_ns > 0
        assert any("compiles kernels for this GPU" in note for note in session.notes)
        assert near(checkpoint, images, session.infer(images))
    (kept,) = (tmp_path / "cache" / "tensorrt-plans").iterdir()
    assert kept.read_bytes() == b"compiled;"
    with opened(for_rtx, provider="tensorrt-rtx"):
        assert fake_tensorrt.FAKE.runtime_cache.content == b"compiled;"
    assert kept.read_bytes() == b"compiled;compiled;"


def test_a_graph_that_cannot_be_recorded_is_refused_with_the_reason(for_rtx, images, monkeypatch):
    monkeypatch.setattr(fake_tensorrt.FAKE, "capturable", False)
    reason = r"cannot record a CUDA graph of .*: a kernel is still being compiled"
    with opened(for_rtx, cuda_graph=True) as session, pytest.raises(EngineError, match=reason):
        session.infer(images)


def test_what_tensorrt_for_rtx_has_against_a_plan_is_told(for_rtx, cuda):
    (for_rtx / "model.plan").write_bytes(b"vtrt of another time")
    artifact = read_artifact(for_rtx, check_digests=False)
    with pytest.raises(EngineError, match="cannot be run here: version mismatch, malformed engine"):
        RUNTIMES.load("tensorrt")().open(artifact).__enter__()
    assert cuda.retained == 0


def test_the_real_tensorrt_for_rtx_says_what_is_damaged_and_that_there_is_no_driver(plans, tmp_path, monkeypatch):
    real = pytest.importorskip("tensorrt_rtx")
    if shutil.which("nvidia-smi") is not None:
        pytest.skip("this is about machines without a GPU")
    kinds = {"flavour": "tensorrt_rtx", "version": real.__version__, "compute_capabilities": ["9.0"]}
    folder = changed(plans["open"], tmp_path, **kinds)
    (folder / "model.plan").write_bytes(b"no plan at all" * 100)
    artifact = read_artifact(folder, check_digests=False)
    with pytest.raises(EngineError, match="cannot be run here: malformed engine"):
        RUNTIMES.load("tensorrt")().open(artifact).__enter__()
    (folder / "model.plan").write_bytes(b"vtrt" + bytes(100))
    with pytest.raises(EngineError, match=r"TensorRT for RTX .* cannot load .*model.plan: .*[Dd]river"):
        RUNTIMES.load("tensorrt")().open(artifact).__enter__()
