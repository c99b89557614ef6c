"""Each provider of ONNX Runtime is tried in a process of its own; what fails is told with its reason and fix."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vit_deploy.core.probes import ask
from vit_deploy.runtimes.ort import provider_trials
from vit_deploy.runtimes.ort.provider_trials import CUDA, TENSORRT, Trial, try_provider

CPU = "CPUExecutionProvider"
# An ONNX Runtime for GPUs; what its providers do is put in the place of BEHAVIOUR.
FAKE = """
import os, sys
__version__, cuda_version = "1.31.1", "{cuda}"
loaded = []

def get_available_providers():
    return {providers!r}

def preload_dlls(**where):
    loaded.append(where)

class InferenceSession:
    def __init__(self, model, providers, enable_fallback):
        assert isinstance(model, bytes) and len(model) < 200
        assert enable_fallback is False, "it would print the reason and take the CPU"
        assert loaded or providers == ["CPUExecutionProvider"], "libraries have to be loaded first"
        self.providers = providers
{opening}
    def get_providers(self):
        return {used}

    def run(self, names, given):
{running}
"""


class Plant:
    """Puts an `onnxruntime` where processes find it before the real one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file = folder / "onnxruntime.py"
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))

    def __call__(
        self,
        opening: str = "pass",
        running: str = "return [2 * given['x']]",
        used: str = "self.providers",
        cuda: str = "13.0",
        providers: tuple[str, ...] = (TENSORRT, CUDA, CPU),
    ) -> None:
        text = FAKE.format(
            opening=f"        {opening}\n",
            running=f"        {running}",
            used=used,
            cuda=cuda,
            providers=list(providers),
        )
        self._file.write_text(text)


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    (tmp_path / "planted").mkdir()
    return Plant(tmp_path / "planted", monkeypatch)


def test_a_provider_that_answers_right_is_usable(plant):
    plant()
    assert try_provider(CUDA) == Trial(CUDA, usable=True)
    assert try_provider(TENSORRT) == Trial(TENSORRT, usable=True)


@pytest.mark.parametrize(
    ("behaviour", "reason", "fix"),
    [
        (
            {
                "opening": "sys.stderr.write('\\x1b[1;31m2026-01-01 00:00:00.1 [E:onnxruntime:Default, bridge.cc:1] "
                "Failed to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open "
                "shared object file: No such file or directory\\x1b[m\\n')",
                "used": "['CPUExecutionProvider']",
            },
            "libcublasLt.so.13 of CUDA is missing",
            'pip install "vit-deploy[gpu]"',
        ),
        (
            {"opening": "raise RuntimeError('CUDA failure 35: CUDA driver version is insufficient ; GPU=-1')"},
            "the driver is too old for CUDA 13",
            "580",
        ),
        (
            {"opening": "raise RuntimeError('CUDA failure 35: CUDA driver version is insufficient')", "cuda": "12.8"},
            "the driver is too old for CUDA 12",
            "525",
        ),
        (
            {"opening": "raise ValueError('CUDA failure 100: no CUDA-capable device is detected ; GPU=0')"},
            "CUDA finds no GPU",
            "CUDA_VISIBLE_DEVICES",
        ),
        (
            {"running": "raise RuntimeError('CUDA failure 209: no kernel image is available for execution')"},
            "no machine code for a GPU of this generation",
            "vit-deploy doctor",
        ),
        ({"used": "['CPUExecutionProvider']"}, "it fell back to CPUExecutionProvider", "--provider cpu"),
        ({"running": "return [given['x']]"}, "it answers [1.5] where [3.0] is right", "install ONNX Runtime again"),
        ({"opening": "os.kill(os.getpid(), 9)"}, "its process ended, killed by SIGKILL", "install ONNX Runtime again"),
        ({"opening": "os._exit(0)"}, "its process ended before the end", "install ONNX Runtime again"),
        ({"opening": "raise KeyError('who knows')"}, "'who knows'", "install ONNX Runtime again"),
    ],
    ids=["library", "driver", "CUDA 12", "no GPU", "generation", "fell back", "wrong", "killed", "silent", "unknown"],
)
def test_what_fails_is_told_with_its_reason_and_its_fix(plant, behaviour, reason, fix):
    plant(**behaviour)
    found = try_provider(CUDA)
    assert not found.usable
    assert reason in found.reason and "\x1b" not in found.reason and "\n" not in found.reason
    assert fix in found.fix


def test_a_missing_tensorrt_names_its_extra(plant):
    plant(opening="raise RuntimeError('libnvinfer.so.10: cannot open shared object file: No such file')")
    found = try_provider(TENSORRT)
    assert found.reason == "libnvinfer.so.10 of TensorRT is missing"
    assert found.fix == 'pip install "vit-deploy[tensorrt]"'


def test_the_real_one_runs_on_the_cpu():
    pytest.importorskip("onnxruntime")
    assert try_provider(CPU) == Trial(CPU, usable=True)


def test_a_file_of_the_working_directory_takes_no_engines_place(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    for name in ("onnxruntime", "numpy", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the working directory')")
    monkeypatch.chdir(tmp_path)
    assert try_provider(CPU).usable
    assert ask("-c", "import onnxruntime, json; print('ANSWER' + json.dumps(1))").value == 1


def test_the_model_is_an_onnx_file_that_adds_its_input_to_itself():
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(provider_trials.doubling())
    onnx.checker.check_model(model, full_check=True)
    (node,) = model.graph.node
    assert (node.op_type, list(node.input)) == ("Add", ["x", "x"])
