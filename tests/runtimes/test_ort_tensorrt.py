"""TensorRT below ONNX Runtime, which pretends to build engines: files in the folder that it is given."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import fake_ort
import numpy as np
import onnxruntime
import pytest
from linear_onnx import expected, write_model

from vit_deploy.core.gpu import Gpu
from vit_deploy.core.manifest import read_artifact, write_manifest
from vit_deploy.errors import EngineError
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.ort import rounding, tensorrt
from vit_deploy.runtimes.ort.runtime import OnnxRuntime
from vit_deploy.runtimes.ort.tensorrt import model_digests, tensorrt_version

ON_TENSORRT = RuntimeOptions(provider="tensorrt")
BUILD_S = 0.2


@pytest.fixture
def gpu(monkeypatch, tmp_path_factory):
    """A pretended GPU whose sessions build an engine where there is none; `built` tells the options of each."""
    pretending = fake_ort.install(monkeypatch)
    pretending.operators = {fake_ort.TENSORRT: 2}
    built = []

    class Building(pretending):
        def __init__(self, path, settings, providers, **others):
            options = dict(providers).get(fake_ort.TENSORRT, {})
            if self.in_parts and "trt_profile_min_shapes" in options:
                raise RuntimeError("User needs to provide all the dynamic shape inputs with associated profiles")
            folder = options.get("trt_engine_cache_path")
            if folder and not list(Path(folder).glob("*.engine")):
                time.sleep(BUILD_S)
                (Path(folder) / "TensorrtExecutionProvider_graph_1_sm90.engine").write_bytes(b"built")
                built.append(options)
            super().__init__(path, settings, providers, **others)

    Building.in_parts, Building.built, Building.events = False, built, pretending.events
    monkeypatch.setattr(onnxruntime, "InferenceSession", Building)
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path_factory.mktemp("caches")))
    monkeypatch.setattr(rounding, "_loaded_rounding", [])
    monkeypatch.delenv(rounding.OVERRIDE, raising=False)
    card = SimpleNamespace(facts=Gpu("NVIDIA H100", driver="580.1", cuda="13.0", compute_capability="9.0"))
    monkeypatch.setattr(tensorrt, "open_card", lambda device: card)
    Building.card = card
    return Building


def of_precision(artifact, precision):
    return type(artifact)(**{**vars(artifact), "precision": precision})


@pytest.mark.parametrize(
    ("precision", "flags"),
    [
        ("fp32", {}),
        ("fp16", {"trt_fp16_enable": "1", "trt_layer_norm_fp32_fallback": "1"}),
        ("bf16", {"trt_bf16_enable": "1", "trt_layer_norm_fp32_fallback": "1"}),
        ("int8-static", {"trt_int8_enable": "1"}),
        ("int4", {}),
    ],
)
def test_the_types_of_a_bundle_are_allowed_in_its_engine(make_artifact, weight, gpu, precision, flags):
    artifact = of_precision(write_model(make_artifact("onnx"), weight), precision)
    with OnnxRuntime().open(artifact, ON_TENSORRT):
        given = gpu.options[fake_ort.TENSORRT]
    names = ("trt_fp16_enable", "trt_bf16_enable", "trt_int8_enable", "trt_layer_norm_fp32_fallback")
    assert {name: given[name] for name in names if name in given} == flags


def test_an_engine_is_built_once_and_its_time_is_no_part_of_loading(make_artifact, weight, seven_images, gpu):
    artifact = write_model(make_artifact("onnx"), weight)
    begun = time.perf_counter_ns()
    with OnnxRuntime().open(artifact, ON_TENSORRT) as session:
        whole = time.perf_counter_ns() - begun
        assert BUILD_S * 1e9 <= session.build_ns < whole
        np.testing.assert_allclose(session.infer(seven_images), expected(seven_images, weight), atol=1e-5)
    with OnnxRuntime().open(artifact, ON_TENSORRT) as session:
        assert session.build_ns == 0
    assert len(gpu.built) == 1


def test_engines_and_timings_are_kept_in_the_users_cache_and_nothing_else_is_left(make_artifact, weight, gpu):
    with OnnxRuntime().open(write_model(make_artifact("onnx"), weight), ON_TENSORRT):
        given = gpu.options[fake_ort.TENSORRT]
    root = Path(os.environ["VIT_DEPLOY_CACHE"]) / "ort-tensorrt"
    folder, timing = Path(given["trt_engine_cache_path"]), Path(given["trt_timing_cache_path"])
    assert given["trt_engine_cache_enable"] == given["trt_timing_cache_enable"] == "1"
    assert sorted(root.iterdir()) == sorted([folder, timing])
    assert [path.suffix for path in folder.iterdir()] == [".engine"]


@pytest.mark.parametrize(
    ("largest", "shapes"),
    [
        (None, ("1x6x5x3", "8x6x5x3", "8x6x5x3")),
        (2, ("1x6x5x3", "2x6x5x3", "8x6x5x3")),
        (32, ("1x6x5x3", "32x6x5x3", "32x6x5x3")),
    ],
)
def test_an_engine_for_any_batch_is_built_for_a_range(make_artifact, weight, gpu, largest, shapes):
    artifact = write_model(make_artifact("onnx"), weight)
    with OnnxRuntime().open(artifact, RuntimeOptions(provider="tensorrt", largest_batch=largest)):
        given = gpu.options[fake_ort.TENSORRT]
    assert tuple(given[f"trt_profile_{name}_shapes"] for name in ("min", "opt", "max")) == tuple(
        f"images:{shape}" for shape in shapes
    )


def test_an_engine_for_one_batch_needs_no_range(make_artifact, weight, gpu):
    with OnnxRuntime().open(write_model(make_artifact("onnx", 3), weight), ON_TENSORRT):
        assert not [name for name in gpu.options[fake_ort.TENSORRT] if "profile" in name]


def test_more_images_than_the_range_has_go_through_in_groups(make_artifact, weight, gpu):
    images = np.random.default_rng(0).standard_normal((19, 6, 5, 3)).astype(np.float32)
    with OnnxRuntime().open(write_model(make_artifact("onnx"), weight), ON_TENSORRT) as session:
        gpu.events.clear()
        np.testing.assert_allclose(session.infer(images), expected(images, weight), atol=1e-5)
    assert sum(kind == "run" for kind, *_ in gpu.events) == 3


def test_a_model_that_is_taken_in_parts_gets_engines_without_a_range_and_that_is_said(make_artifact, weight, gpu):
    gpu.in_parts = True
    artifact = write_model(make_artifact("onnx"), weight)
    for built in (True, False):
        with OnnxRuntime().open(artifact, ON_TENSORRT) as session:
            assert not [name for name in gpu.options[fake_ort.TENSORRT] if "profile" in name]
            assert any("takes the model in parts" in note for note in session.notes)
            assert (session.build_ns > 0) is built


def test_another_failure_of_building_is_an_error_and_leaves_nothing_behind(make_artifact, weight, gpu, monkeypatch):
    artifact = write_model(make_artifact("onnx"), weight)

    def fail(*given, **others):
        raise RuntimeError("x.cc:1 f() TensorRT EP failed to create engine from network")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(EngineError, match="TensorRT EP failed to create engine from network"):
        OnnxRuntime().open(artifact, ON_TENSORRT).__enter__()
    assert not list(Path(os.environ["VIT_DEPLOY_CACHE"]).glob("ort-tensorrt/.building-*"))


def change_driver(gpu, monkeypatch, artifact):
    gpu.card.facts = Gpu("NVIDIA H100", driver="590.2", cuda="13.0", compute_capability="9.0")


def change_gpu(gpu, monkeypatch, artifact):
    gpu.card.facts = Gpu("NVIDIA A10", driver="580.1", cuda="13.0", compute_capability="8.6")


def change_onnx_runtime(gpu, monkeypatch, artifact):
    monkeypatch.setattr(onnxruntime, "__version__", "9.9.9")


def change_tensorrt(gpu, monkeypatch, artifact):
    monkeypatch.setattr(tensorrt, "tensorrt_version", lambda: 101600)


def change_model(gpu, monkeypatch, artifact):
    artifact.model_path.write_bytes(artifact.model_path.read_bytes() + b"\x12\x01x")


@pytest.mark.parametrize("change", [change_driver, change_gpu, change_onnx_runtime, change_tensorrt, change_model])
def test_an_engine_is_built_again_for_another(make_artifact, weight, gpu, monkeypatch, change):
    artifact = write_model(make_artifact("onnx"), weight)
    for _ in range(2):
        with OnnxRuntime().open(artifact, ON_TENSORRT):
            pass
    change(gpu, monkeypatch, artifact)
    with OnnxRuntime().open(artifact, ON_TENSORRT):
        pass
    assert len(gpu.built) == 2


@pytest.mark.parametrize(
    "options",
    [
        RuntimeOptions(provider="tensorrt", allow_tf32=False),
        RuntimeOptions(provider="tensorrt", largest_batch=32),
        RuntimeOptions(provider="tensorrt", cuda_graph=True),
    ],
)
def test_an_engine_is_built_again_for_other_options(make_artifact, weight, gpu, options):
    artifact = write_model(make_artifact("onnx"), weight)
    for each in (ON_TENSORRT, options):
        with OnnxRuntime().open(artifact, each):
            pass
    assert len(gpu.built) == 2


def test_where_the_cache_cannot_be_written_the_session_works_and_says_so(
    make_artifact, weight, seven_images, gpu, monkeypatch, tmp_path
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path / "file"))
    artifact = write_model(make_artifact("onnx"), weight)
    with OnnxRuntime().open(artifact, ON_TENSORRT) as session:
        assert session.build_ns > 0
        assert any("built at each start" in note for note in session.notes)
        folder = Path(gpu.options[fake_ort.TENSORRT]["trt_engine_cache_path"])
        np.testing.assert_allclose(session.infer(seven_images), expected(seven_images, weight), atol=1e-5)
    assert not folder.exists()


def test_a_model_is_known_by_the_digests_of_its_manifest_or_else_of_its_files(make_artifact, weight):
    artifact = write_model(make_artifact("onnx"), weight, location="model.onnx.data")
    computed = model_digests(artifact)
    assert set(computed) == {"model.onnx", "model.onnx.data"}
    (artifact.directory / "golden.npz").touch()
    assert model_digests(read_artifact(write_manifest(artifact).directory)) == computed


def test_tensorrt_is_asked_its_version(monkeypatch):
    asked = []

    def load(name):
        asked.append(name)
        if "10" in name:
            raise OSError(name)
        return SimpleNamespace(getInferLibVersion=lambda: 9300)

    assert tensorrt_version(load) == 9300
    assert tensorrt_version(lambda name: (_ for _ in ()).throw(OSError())) is None


@pytest.mark.parametrize("before", [None, "1"])
def test_what_strict_sessions_set_for_libraries_is_set_back(make_artifact, weight, gpu, monkeypatch, before):
    if before is None:
        monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    else:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", before)
    artifact = write_model(make_artifact("onnx"), weight)
    with OnnxRuntime().open(artifact, RuntimeOptions(provider="tensorrt", allow_tf32=False)) as session:
        assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
        assert session.notes == ()
    assert os.environ.get("NVIDIA_TF32_OVERRIDE") == before


def test_libraries_that_were_loaded_otherwise_are_told(make_artifact, weight, gpu, monkeypatch):
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    artifact = write_model(make_artifact("onnx"), weight)
    with OnnxRuntime().open(artifact, ON_TENSORRT) as session:
        assert session.notes == ()
    with OnnxRuntime().open(artifact, RuntimeOptions(provider="tensorrt", allow_tf32=False)) as session:
        [note] = session.notes
    assert "loaded in this process with TF32 allowed, and here it is forbidden" in note


@pytest.mark.parametrize(
    ("provider", "precision", "words"),
    [
        ("cuda", "int8", "copied to the CPU, quantized there, and copied back"),
        ("cuda", "int8-static", "dequantizes and multiplies in float"),
        ("tensorrt", "int8", "the quantizing is the CPU's"),
        ("tensorrt", "int4", "these products are CUDA's"),
        ("cuda", "fp16", None),
        ("cpu", "int8", None),
    ],
)
def test_what_a_gpu_does_with_integers_is_said(make_artifact, weight, gpu, provider, precision, words):
    gpu.operators = {fake_ort.TENSORRT: 1, fake_ort.CUDA: 1, fake_ort.CPU: 1}
    artifact = of_precision(write_model(make_artifact("onnx"), weight), precision)
    with OnnxRuntime().open(artifact, RuntimeOptions(provider=provider)) as session:
        assert [words in note for note in session.notes] == ([] if words is None else [True])
