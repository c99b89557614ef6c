"""What ONNX Runtime wrote and raised on machines with and without a GPU, and what the user is told of it."""

from __future__ import annotations

import pytest

from vit_deploy.runtimes.ort.reasons import Setting, cleaned, known_reason

CUDA13, CUDA12 = Setting("cuda", 0, "13.0"), Setting("cuda", 0, "12.8")
TENSORRT13, TENSORRT12 = Setting("tensorrt", 0, "13.0"), Setting("tensorrt", 0, "12.8")

# Written by onnxruntime-gpu 1.31.1 on a machine without CUDA.
NO_CUBLAS = (
    "\x1b[1;31m2026-11-26 13:27:47.903037371 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] "
    "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2043 onnxruntime::Provider& "
    "onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library "
    "/opt/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object file: "
    "No such file or directory\n\x1b[m"
)
NO_TENSORRT = (
    "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void "
    "onnxruntime::python::RegisterTensorRTPluginsAsCustomOps(PySessionOptions&, const onnxruntime::ProviderOptions&) "
    "Please install TensorRT libraries as mentioned in the GPU requirements page, make sure they're in the PATH or "
    "LD_LIBRARY_PATH, and that your GPU is supported.\n"
)


def cuda_failure(number, words):
    """As `CudaCall` of ONNX Runtime words a failed call."""
    return (
        "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:129 std::conditional_t<THRW, void, "
        "onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, const char*, "
        "const char*, int) [with ERRTYPE = cudaError; bool THRW = true; SUCCTYPE = cudaError] "
        f"CUDA failure {number}: {words} ; GPU=-1 ; hostname=box ; file=/onnxruntime_src/onnxruntime/core/providers/"
        "cuda/cuda_execution_provider.cc ; line=280 ; expr=cudaSetDevice(info_.device_id);"
    )


def test_colours_times_and_places_in_the_source_are_left_out():
    assert cleaned(NO_CUBLAS) == (
        "Failed to load library /opt/libonnxruntime_providers_cuda.so with error: "
        "libcublasLt.so.13: cannot open shared object file: No such file or directory"
    )
    assert cleaned(NO_TENSORRT).startswith("Please install TensorRT libraries")
    assert cleaned(cuda_failure(719, "unspecified launch failure")) == "CUDA failure 719: unspecified launch failure"


def test_a_text_without_any_stays_as_it_is():
    assert cleaned("shapes (3,) and [4] differ\n\nat node_1") == "shapes (3,) and [4] differ\nat node_1"
    assert cleaned("model.onnx: broken (see [1]") == "model.onnx: broken (see [1]"


@pytest.mark.parametrize(
    ("text", "setting", "words", "fix"),
    [
        (NO_CUBLAS, CUDA13, "libcublasLt.so.13 of CUDA is missing", 'pip install "vit-deploy[gpu]"'),
        (NO_CUBLAS, CUDA12, "libcublasLt.so.13 of CUDA is missing", 'pip install "vit-deploy[gpu-cuda12]"'),
        (
            "libnvinfer.so.10: cannot open shared object file: No such file or directory\n" + NO_TENSORRT,
            TENSORRT13,
            "libnvinfer.so.10 of TensorRT is missing",
            'pip install "vit-deploy[tensorrt]"',
        ),
        (
            'Error loading "C:\\x\\onnxruntime_providers_cuda.dll" which depends on "cudnn64_9.dll" which is missing',
            CUDA13,
            "cudnn64_9.dll of CUDA is missing",
            "vit-deploy[gpu]",
        ),
        (
            "libnvinfer.so.10: cannot open shared object file",
            TENSORRT12,
            "libnvinfer.so.10 of TensorRT is missing",
            "tensorrt-cu12>=10,<11",
        ),
        (
            "libcuda.so.1: cannot open shared object file",
            CUDA13,
            "there is no NVIDIA driver here: libcuda.so.1 is missing",
            "--provider cpu",
        ),
        (
            cuda_failure(35, "CUDA driver version is insufficient for CUDA runtime version"),
            CUDA13,
            "the driver is too old for CUDA 13",
            'driver 580 or newer, or pip install "vit-deploy[gpu-cuda12]"',
        ),
        (cuda_failure(35, "…"), CUDA12, "the driver is too old for CUDA 12", "driver 525 or newer"),
        (cuda_failure(100, "no CUDA-capable device is detected"), CUDA13, "finds no GPU", "CUDA_VISIBLE_DEVICES"),
        (
            "x.cc:1 f() The provided device id doesn't match any available GPUs on the machine.",
            Setting("cuda", 3, "13.0"),
            "this process sees no GPU 3",
            "CUDA_VISIBLE_DEVICES",
        ),
        (
            cuda_failure(209, "no kernel image is available for execution on the device"),
            CUDA13,
            "no machine code for a GPU of this generation",
            "vit-deploy doctor",
        ),
        (cuda_failure(2, "out of memory"), CUDA13, "out of GPU memory", "a smaller batch, or fewer cases at once"),
        (
            "Non-zero status code returned while running Gemm node. Failed to allocate memory for requested buffer of "
            "size 1207959552",
            CUDA13,
            "out of GPU memory",
            "a smaller batch",
        ),
        (cuda_failure(46, "CUDA-capable device(s) is/are busy or unavailable"), CUDA13, "busy", "nvidia-smi"),
        (
            "This session cannot use the graph capture feature as requested by the user as all compute graph nodes "
            "have not been partitioned to the CUDAExecutionProvider",
            CUDA13,
            "cuda does not take all of its operators",
            "leave --cuda-graph out",
        ),
    ],
)
def test_the_usual_failures_have_words_and_a_fix(text, setting, words, fix):
    found = known_reason(text, setting)
    assert words in found.words
    assert fix in found.fix
    assert "\x1b" not in found.words and "/" not in found.words


def test_all_libraries_that_are_missing_are_named_once():
    text = "\n".join(
        f"Failed to load {name}: {name}: cannot open shared object file: No such file or directory"
        for name in ("libcublasLt.so.13", "libcurand.so.10", "libcublasLt.so.13")
    )
    assert known_reason(text, CUDA13).words == "libcublasLt.so.13, libcurand.so.10 of CUDA are missing"


@pytest.mark.parametrize("number", [20, 200, 350, 1001])
def test_other_numbers_that_begin_alike_are_not_taken_for_them(number):
    assert known_reason(f"CUDA failure {number}: something else", CUDA13) is None


def test_the_cpu_has_no_such_reasons():
    assert known_reason("Failed to allocate memory for requested buffer", Setting("cpu")) is None
