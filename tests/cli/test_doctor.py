"""The doctor names what is here, what is missing, and what gets in each other's way, each with its fix."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import vit_deploy
from vit_deploy.cli import run
from vit_deploy.core.gpu import Gpu
from vit_deploy.runtimes import diagnosis
from vit_deploy.runtimes.diagnosis import ENGINES, Conflict, conflicts, cpu_features
from vit_deploy.runtimes.nvidia import Nvidia, TensorRT
from vit_deploy.runtimes.ort.provider_trials import CUDA, Trial
from vit_deploy.runtimes.packages import Package, admits, installed

PYTHON = (3, 11)
ROOT = Path(vit_deploy.__file__).parent.parent
CUDA_12 = ['nvidia-cuda-runtime-cu12<13.0,>=12.5.82; extra == "and-cuda"', 'nvidia-cudnn-cu12>=9; extra == "and-cuda"']
CUDA_13 = ['nvidia-cuda-runtime~=13.0; extra == "cuda"', 'nvidia-cudnn-cu13~=9.0; extra == "cudnn"']


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """Lines in which nothing has to be broken."""
    monkeypatch.setenv("COLUMNS", "500")


def environment(**versions: str | tuple[str, list[str]]) -> dict[str, Package]:
    """Faked distributions: a version, or a version and what it requires."""
    found = {}
    for key, value in versions.items():
        version, requires = value if isinstance(value, tuple) else (value, [])
        each = Package.declaring(key, version, requires)
        found[each.name] = each
    return found


def found_in(here: dict[str, Package], variables: dict[str, str] | None = None) -> list[Conflict]:
    return list(conflicts(here, variables or {}, PYTHON))


def test_a_sound_environment_has_no_conflict():
    here = environment(
        onnxruntime="1.32.0",
        tensorflow_cpu=("2.21.0", ["protobuf<8.0.0,>=6.31.1", "keras>=3.12.0", *CUDA_12]),
        keras="3.15.1",
        tf_keras=("2.21.0", ["tensorflow<2.22,>=2.21"]),
        protobuf="7.36.2",
    )
    assert found_in(here) == []
    assert found_in({}) == []


def test_both_onnxruntimes_are_a_conflict_whose_fix_removes_both():
    (conflict,) = found_in(environment(onnxruntime="1.32.0", onnxruntime_gpu="1.31.1"))
    assert "onnxruntime and onnxruntime-gpu are installed together" in conflict.problem
    assert conflict.fix == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"


def test_both_tensorflows_are_a_conflict():
    (conflict,) = found_in(environment(tensorflow="2.21.0", tensorflow_cpu="2.21.0"))
    assert "write over each other's files" in conflict.problem
    assert conflict.fix == "pip uninstall -y tensorflow tensorflow-cpu && pip install tensorflow"


def test_two_cudas_in_one_environment_are_a_conflict():
    gpu = {"onnxruntime_gpu": ("1.31.1", CUDA_13), "tensorflow": ("2.21.0", CUDA_12)}
    (conflict,) = found_in(environment(**gpu, nvidia_cuda_runtime_cu12="12.9.79", nvidia_cuda_runtime="13.0.48"))
    assert "onnxruntime-gpu 1.31.1 is made for CUDA 13 and tensorflow 2.21.0 for CUDA 12" in conflict.problem
    assert "vit-deploy[gpu-tf]" in conflict.fix
    assert found_in(environment(**gpu)) == [], "TensorFlow without its CUDA libraries only uses the CPU"
    same = {**gpu, "onnxruntime_gpu": ("1.22.0", ['nvidia-cuda-runtime-cu12~=12.0; extra == "cuda"'])}
    assert found_in(environment(**same, nvidia_cuda_runtime_cu12="12.9.79")) == []


def test_keras_2_is_a_conflict_and_tf_keras_beside_keras_3_is_none():
    (conflict,) = found_in(environment(keras="2.15.0"))
    assert "keras 2.15.0 is installed, and vit-deploy is written for Keras 3" in conflict.problem
    assert "tf_keras" in conflict.fix
    assert found_in(environment(keras="3.15.1", tf_keras="2.21.0")) == []


def test_the_variable_that_brings_keras_2_back_is_a_conflict():
    (conflict,) = found_in(environment(keras="3.15.1"), {"TF_USE_LEGACY_KERAS": "1"})
    assert conflict.fix == "unset TF_USE_LEGACY_KERAS"
    assert found_in(environment(keras="3.15.1"), {"TF_USE_LEGACY_KERAS": "0"}) == []


@pytest.mark.parametrize(("version", "wrong"), [("5.29.1", True), ("6.31.1", False), ("7.0", False), ("8.0.0", True)])
def test_a_protobuf_that_an_engine_cannot_use_is_a_conflict(version, wrong):
    here = environment(tensorflow=("2.21.0", ["protobuf<8.0.0,>=6.31.1"]), protobuf=version)
    expected = f"tensorflow 2.21.0 needs protobuf<8.0.0,>=6.31.1, and protobuf {version} is installed"
    assert [conflict.problem for conflict in found_in(here)] == ([expected] if wrong else [])


def test_keras_2_for_another_tensorflow_is_a_conflict_also_with_tensorflow_cpu():
    (conflict,) = found_in(environment(tensorflow_cpu="2.21.0", tf_keras=("2.19.0", ["tensorflow<2.20,>=2.19"])))
    assert "tf-keras 2.19.0 needs tensorflow<2.20,>=2.19, and tensorflow 2.21.0 is installed" in conflict.problem


def test_an_old_python_is_a_conflict():
    (conflict,) = conflicts({}, {}, (3, 9))
    assert "this is Python 3.9, and vit-deploy needs 3.11" in conflict.problem


@pytest.mark.parametrize(
    ("clause", "admitted", "refused"),
    [
        (">=2,<3", ["2", "2.0.1", "2.99"], ["1.9", "3.0.0"]),
        ("~=1.4.2", ["1.4.2", "1.4.9"], ["1.4.1", "1.5.0"]),
        ("~=1.4", ["1.4", "1.9"], ["2.0", "1.3"]),
        ("==2.1.*", ["2.1", "2.1.7"], ["2.2"]),
        ("==2.1", ["2.1.0"], ["2.1.1"]),
        ("!=4.21.0,>=3", ["4.21.1", "3"], ["4.21.0", "2"]),
        (">1.0", ["1.0.1"], ["1.0", "1.0.0"]),
        ("<=1.10", ["1.9", "1.10.0", "1.10.0+cpu"], ["1.11"]),
    ],
)
def test_versions_are_compared_as_pip_does(clause, admitted, refused):
    (requirement,) = Package.declaring("a", "1", [f"some_Name[extra] {clause}; python_version > '3'"]).requirements
    assert requirement.name == "some-name"
    assert requirement.marker is not None
    assert all(admits(requirement, version) for version in admitted)
    assert not any(admits(requirement, version) for version in refused)


def test_a_pre_release_counts_as_its_release_and_what_cannot_be_read_is_no_conflict():
    here = environment(
        tf_keras=("2.21.0", ["keras>=3.12.0", "no requirement at all", "odd>=1"]), keras="3.12.0rc1", odd="x"
    )
    assert found_in(here) == []


def test_what_is_installed_here_is_found():
    here = installed()
    assert here["numpy"].version == metadata.version("numpy")
    assert "tensorflow-cpu" in here or "tensorflow" in here or "onnxruntime" in here


def test_every_engines_extra_installs_it():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for engine in ENGINES:
        if engine.extra:
            names = {Requirement(text).name for text in extras[engine.extra]}
            assert names & set(engine.distributions), engine.name


def test_features_are_told_by_the_kernels_names(tmp_path):
    (tmp_path / "proc").mkdir()
    cpuinfo = tmp_path / "proc/cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx_vnni amx_tile\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    features = cpu_features(tmp_path, "x86_64")
    assert {name for name, there in features.items() if there} == {"AVX2", "VNNI", "AMX"}
    assert features["AVX512"] is False
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n")
    features = cpu_features(tmp_path, "aarch64")
    assert {name for name, there in features.items() if there} == {"NEON", "dotprod", "I8MM"}
    assert cpu_features(tmp_path / "elsewhere") == {}


def test_the_report_is_one_document_and_a_conflict_exits_with_1(monkeypatch, capfd):
    assert run(["doctor", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert (document["schema"], document["command"], document["ok"]) == (1, "doctor", True)
    (found,) = document["results"]
    assert "CPUExecutionProvider" in found["providers"]
    assert {each["name"] for each in found["engines"]} == {engine.name for engine in ENGINES}
    assert next(each for each in found["engines"] if each["name"] == "keras")["installed"]["keras"]

    monkeypatch.setattr(diagnosis, "installed", lambda: environment(tensorflow="2.21.0", tensorflow_cpu="2.21.0"))
    assert run(["doctor", "--json"]) == 1
    document = json.loads(capfd.readouterr().out)
    assert not document["ok"]
    assert "pip uninstall -y tensorflow tensorflow-cpu" in document["results"][0]["conflicts"][0]["fix"]
    assert document["results"][0]["providers"] is None
    assert run(["doctor"]) == 1
    printed = capfd.readouterr().out
    assert re.search(r'onnxruntime +missing -> pip install "vit-deploy\[onnx\]"', printed)
    assert "fix: pip uninstall" in printed


def test_an_engine_that_cannot_be_imported_is_a_conflict(monkeypatch):
    monkeypatch.setattr(diagnosis, "installed", lambda: environment(onnxruntime="1.32.0"))
    monkeypatch.setattr(diagnosis, "_asked", lambda program: (None, "ImportError: no kernel"))
    (conflict,) = diagnosis.diagnose().conflicts
    assert conflict.problem == "onnxruntime is installed and cannot be imported: ImportError: no kernel"
    assert conflict.fix == "pip uninstall -y onnxruntime && pip install onnxruntime"


def test_what_openvino_computes_in_is_told_and_one_that_cannot_be_imported_is_a_conflict(monkeypatch, capfd):
    monkeypatch.setattr(diagnosis, "installed", lambda: environment(openvino="2026.4.1"))
    monkeypatch.setattr(diagnosis, "_asked", lambda program: (("FP32", "BF16"), ""))
    assert run(["doctor"]) == 0
    said = capfd.readouterr().out
    assert "OpenVINO computes in" in said and "FP32, BF16" in said
    assert diagnosis.diagnose().to_dict()["openvino"] == ["FP32", "BF16"]
    monkeypatch.setattr(diagnosis, "_asked", lambda program: (None, "no libtbb.so"))
    found = diagnosis.diagnose()
    assert found.openvino is None
    assert [conflict.problem for conflict in found.conflicts] == [
        "openvino is installed and cannot be imported: no libtbb.so"
    ]


def test_a_gpu_package_without_cuda_was_written_over(monkeypatch):
    monkeypatch.setattr(diagnosis, "installed", lambda: environment(onnxruntime_gpu="1.31.1"))
    monkeypatch.setattr(diagnosis, "_asked", lambda program: (("CPUExecutionProvider",), ""))
    (conflict,) = diagnosis.diagnose().conflicts
    assert "has no CUDA" in conflict.problem


def test_two_cudas_of_onnx_runtime_and_torch_are_a_conflict():
    gpu = {"onnxruntime_gpu": ("1.31.1", CUDA_13), "torch": ("2.8.0", ["nvidia-cudnn-cu12==9.10.2.21"])}
    (conflict,) = found_in(environment(**gpu, nvidia_cudnn_cu12="9.10.2.21"))
    assert "onnxruntime-gpu 1.31.1 is made for CUDA 13 and torch 2.8.0 for CUDA 12" in conflict.problem
    assert "torch for CUDA 13" in conflict.fix
    assert found_in(environment(**gpu)) == [], "its libraries are not here"
    new = {**gpu, "torch": ("2.11.0", ["cuda-toolkit[cublas,cudart]==13.0.2", "nvidia-cudnn-cu13==9.19"])}
    assert found_in(environment(**new, nvidia_cudnn_cu13="9.19", cuda_toolkit="13.0.2")) == []
    assert found_in(environment(**{**gpu, "torch": "2.13.0+cpu"})) == []


@pytest.fixture
def on_gpus(monkeypatch):
    """An environment with onnxruntime-gpu, whose providers are tried by a function, and what of NVIDIA is there."""

    def pretend(outcome, *, gpus=(), has_driver=True, **more):
        monkeypatch.setattr(diagnosis, "installed", lambda: environment(onnxruntime_gpu="1.31.1", **more))
        names = ("TensorrtExecutionProvider", CUDA, "AzureExecutionProvider", "CPUExecutionProvider")
        monkeypatch.setattr(diagnosis, "_asked", lambda program: (names, ""))
        monkeypatch.setattr(diagnosis, "try_provider", outcome)
        tensorrt = TensorRT(
            {}, {name.replace("_", "-"): value for name, value in more.items() if "tensorrt" in name}, 10
        )
        found = Nvidia(has_driver, gpus, ((8, 0), (9, 0)), tensorrt, None)
        monkeypatch.setattr(diagnosis, "look", lambda here: found)

    return pretend


def only(*usable):
    def outcome(name):
        assert name != "AzureExecutionProvider", "it asks a service"
        return (
            Trial(name, usable=True) if name in usable else Trial(name, usable=False, reason="no luck", fix="try again")
        )

    return outcome


def test_a_cuda_that_does_not_work_is_a_conflict_and_a_tensorrt_that_nobody_installed_is_none(on_gpus, capfd):
    on_gpus(only("CPUExecutionProvider"), has_driver=False)
    assert run(["doctor", "--json"]) == 1
    (found,) = json.loads(capfd.readouterr().out)["results"]
    assert [trial["usable"] for trial in found["provider_trials"]] == [False, False, True]
    (conflict,) = found["conflicts"]
    assert conflict["problem"].startswith("CUDAExecutionProvider of onnxruntime-gpu 1.31.1 is not usable: no luck")
    assert conflict["problem"].endswith("there is no NVIDIA driver here") and conflict["fix"] == "try again"
    assert run(["doctor"]) == 1
    printed = capfd.readouterr().out
    assert re.search(r"ONNX Runtime runs on +CPUExecutionProvider *\n", printed)
    assert re.search(r"not on TensorrtExecutionProvider +no luck -> try again", printed)
    assert re.search(r"NVIDIA GPUs +none: no driver", printed) and "nvidia-ml-py" not in printed


def test_a_tensorrt_that_was_installed_has_to_work(on_gpus):
    on_gpus(only("CPUExecutionProvider", CUDA), tensorrt_cu13="10.16.1")
    (conflict,) = diagnosis.diagnose().conflicts
    assert conflict.problem.startswith("TensorrtExecutionProvider of onnxruntime-gpu 1.31.1 is not usable: no luck")
    on_gpus(only("CPUExecutionProvider", CUDA, "TensorrtExecutionProvider"), tensorrt_cu13="10.16.1")
    assert diagnosis.diagnose().conflicts == ()


def test_a_tensorrt_for_plans_alone_is_no_conflict(on_gpus):
    on_gpus(only("CPUExecutionProvider", CUDA), tensorrt="11.4.0")
    assert diagnosis.diagnose().conflicts == ()


def test_a_cuda_that_comes_as_a_plugin_is_tried_though_it_is_not_listed(monkeypatch):
    here = environment(onnxruntime="1.32.0", onnxruntime_ep_cuda13="1.32.0")
    monkeypatch.setattr(diagnosis, "installed", lambda: here)
    monkeypatch.setattr(diagnosis, "_asked", lambda program: (("CPUExecutionProvider",), ""))
    monkeypatch.setattr(diagnosis, "try_provider", only("CPUExecutionProvider"))
    found = diagnosis.diagnose()
    assert [trial.provider for trial in found.trials] == [CUDA, "CPUExecutionProvider"]
    (conflict,) = found.conflicts
    assert conflict.problem.startswith("CUDAExecutionProvider of onnxruntime 1.32.0 is not usable")


def test_gpus_are_shown_with_what_matters_for_them(on_gpus, capfd):
    h100 = Gpu(
        "NVIDIA H100",
        driver="580.65.06",
        cuda="13.0",
        compute_capability="9.0",
        memory_mb=85_000.0,
        mig=True,
        compute_mode="exclusive process",
    )
    on_gpus(only("CPUExecutionProvider", CUDA), gpus=(h100, Gpu("Tesla V100", compute_capability="7.0")))
    assert run(["doctor"]) == 0
    printed = " ".join(capfd.readouterr().out.split())
    assert "NVIDIA H100, 85000.0 MB, driver 580.65.06 serves CUDA 13.0, compute capability 9.0" in printed
    assert "(onnxruntime-gpu has machine code for it), divided (MIG), compute mode exclusive process" in printed
    assert "compute capability 7.0 (onnxruntime-gpu has machine code for 8.0, 9.0 alone)" in printed
    assert 'TensorRT missing -> pip install "vit-deploy[tensorrt]"; ONNX Runtime asks for version 10' in printed
    assert "nvidia-ml-py missing" in printed
    assert "TensorRT for RTX" not in printed


def test_a_gpu_that_tensorrt_for_rtx_does_not_know_is_told(on_gpus, capfd):
    gpus = (Gpu("NVIDIA H100", compute_capability="9.0"), Gpu("NVIDIA L4", compute_capability="8.9"))
    on_gpus(only("CPUExecutionProvider", CUDA), gpus=gpus, tensorrt_rtx="1.7.1.116")
    assert run(["doctor"]) == 0
    printed = " ".join(capfd.readouterr().out.split())
    assert "which TensorRT for RTX does not know: its plans are for others" in printed.partition("GPU 1")[0]
    assert "which TensorRT for RTX" not in printed.partition("GPU 1")[2]


def test_the_doctor_imports_no_engine_itself():
    program = """
import sys
from vit_deploy.cli import run
run(["doctor", "--json"])
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = set(done.stderr.splitlines()[-1].split())
    assert "vit_deploy" in imported
    assert not imported & {"onnxruntime", "tensorflow", "keras", "ai_edge_litert", "PIL"}
