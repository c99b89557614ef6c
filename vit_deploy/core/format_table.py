"""The formats: one record for each, in one table.

A format is added by its entry here, or by an entry point of another distribution (see `format.GROUP`), and by the code
that the entry names.
"""

from __future__ import annotations

from collections.abc import Mapping

from vit_deploy.core import hexagon
from vit_deploy.core.format import FP32, Format, Formats, RuntimeEntry, Target
from vit_deploy.core.registry import Plugin

TENSORFLOW_IS_NOT_PROFILED = "TensorFlow's operators are not profiled"
WEB = RuntimeEntry(
    "web",
    Plugin("vit_deploy.runtimes.web.runtime:Web", found="vit_deploy.runtimes.web.found:lacking"),
    providers=("wasm", "webgpu"),
    not_profiled="engines in a browser do not time their operators",
    named_only=True,
    in_browsers=True,
)
QNN = RuntimeEntry(
    "qnn",
    Plugin("vit_deploy.runtimes.qnn.runtime:Qnn", extra="qnn", needs=("onnxruntime", "onnxruntime_qnn")),
    providers=hexagon.providers(),
    not_profiled="a graph on Hexagon is one program; Qualcomm's own tools profile its inside",
    named_only=True,
    tapper=Plugin(
        "vit_deploy.verification.locate.qnn:QnnTapper", extra="qnn", needs=("onnxruntime", "onnxruntime_qnn")
    ),
)
ONNX_PRECISIONS: Mapping[str, tuple[str, ...]] = {
    Target.CPU: (FP32, "fp16", "int8", "int8-static", "int16x8", "int4"),
    Target.CUDA: (FP32, "fp16", "bf16"),
    Target.TENSORRT: (FP32, "fp16", "int8-static"),
    Target.WEB: (FP32, "fp16", "int8", "int8-static", "int4"),
    Target.TRANSFORMERS_JS: (FP32, "fp16", "int8", "int8-static", "int4"),
    Target.QNN: (FP32, "fp16", "int8-static", "int16x8"),
    Target.RKNN: (FP32,),
    Target.TPU_MLIR: (FP32,),
}
"""What each has kernels for; the converters of the last two quantize by themselves."""

ONNX = Format(
    name="onnx",
    title="ONNX",
    noun="an .onnx file",
    kind="file",
    model_files=("model.onnx", "model.onnx.data"),
    runtimes=(
        RuntimeEntry(
            "onnxruntime",
            Plugin("vit_deploy.runtimes.ort.runtime:OnnxRuntime", extra="onnx", needs=("onnxruntime",)),
            providers=("cpu", "cuda", "tensorrt"),
            profiler=Plugin(
                "vit_deploy.performance.profilers.ort:OnnxRuntimeProfiler", extra="onnx", needs=("onnxruntime",)
            ),
            profiled_on="cpu",
        ),
        RuntimeEntry(
            "openvino",
            Plugin("vit_deploy.runtimes.openvino:OpenVINO", extra="openvino", needs=("openvino",)),
            providers=("cpu", "cpu-bf16"),
            profiler=Plugin(
                "vit_deploy.performance.profilers.openvino:OpenVINOProfiler", extra="openvino", needs=("openvino",)
            ),
            profiled_on="cpu",
        ),
        QNN,
        WEB,
    ),
    suffixes=(".onnx",),
    read_graph=Plugin("vit_deploy.formats.onnx.graph:read_graph"),
    refuse=Plugin("vit_deploy.formats.onnx.file:refuse_outside_data"),
    files_beside=Plugin("vit_deploy.formats.onnx.file:files_beside"),
    weight_types=Plugin("vit_deploy.formats.onnx.graph:weight_types"),
    read_weights=Plugin("vit_deploy.formats.stored_weights:onnx_weights"),
    operators_on_cuda=Plugin("vit_deploy.formats.cuda_operators:on_cuda"),
    snippet=Plugin("vit_deploy.formats.snippets.onnx:LINES"),
    precisions=ONNX_PRECISIONS,
    exporter=Plugin(
        "vit_deploy.exporters.onnx.export:OnnxExporter",
        extra="cpu",
        needs=("tensorflow", "keras", "tf2onnx", "onnx", "onnxscript"),
    ),
    has_opset=True,
    has_layout=True,
    opens_sizes=True,
    quantizer=Plugin("vit_deploy.exporters.onnx.quantize:OnnxQuantizer", extra="cpu", needs=("onnx", "onnxruntime")),
    recipes={
        Target.CPU: Plugin("vit_deploy.exporters.onnx.recipes:ONNX_RECIPES"),
        Target.CUDA: Plugin("vit_deploy.exporters.onnx.gpu_recipes:CUDA_RECIPES"),
        Target.TENSORRT: Plugin("vit_deploy.exporters.onnx.gpu_recipes:TENSORRT_RECIPES"),
        Target.WEB: Plugin("vit_deploy.exporters.onnx.recipes:WEB_RECIPES"),
        Target.TRANSFORMERS_JS: Plugin("vit_deploy.exporters.onnx.recipes:WEB_RECIPES"),
        Target.QNN: Plugin("vit_deploy.exporters.onnx.qnn_recipes:QNN_RECIPES"),
    },
    refuse_options=Plugin("vit_deploy.exporters.onnx.recipes:refuse_options"),
    quantization_options=frozenset(("half_io", "full_range")),
    triton=Plugin("vit_deploy.exporters.tensorrt.triton:ONNX"),
    tapper=Plugin("vit_deploy.verification.locate.onnx:OnnxTapper", extra="onnx", needs=("onnxruntime",)),
    rebalanced=("int8", "int8-static", "int16x8", "int4"),
    saturating=("int8", "int8-static"),
    half_sums=("fp16",),
)

TFLITE = Format(
    name="tflite",
    title="TFLite",
    noun="a .tflite file",
    kind="file",
    model_files=("model.tflite",),
    runtimes=(
        RuntimeEntry(
            "litert",
            Plugin("vit_deploy.runtimes.litert:LiteRT", extra="litert", needs=("ai_edge_litert",)),
            providers=("cpu", "xnnpack"),
            takes_libraries=True,
            profiler=Plugin(
                "vit_deploy.performance.profilers.litert:LiteRTProfiler", extra="litert", needs=("ai_edge_litert",)
            ),
            profiled_on="xnnpack",
        ),
        WEB,
        RuntimeEntry(
            "tflm",
            Plugin("vit_deploy.runtimes.tflm:TFLM", extra="tflm", needs=("tflite_micro",)),
            providers=("tflm",),
            not_profiled="TensorFlow Lite Micro does not time its operators here",
            named_only=True,
            precisions=("int8-full",),
        ),
    ),
    suffixes=(".tflite",),
    magic=((4, b"TFL3"),),
    read_graph=Plugin("vit_deploy.formats.tflite:read_graph"),
    input_quantization=Plugin("vit_deploy.formats.tflite:input_quantization"),
    weight_types=Plugin("vit_deploy.formats.tflite:weight_types"),
    read_weights=Plugin("vit_deploy.formats.stored_weights:tflite_weights"),
    has_canonical_names=False,
    accelerators=Plugin("vit_deploy.formats.accelerators:verdicts"),
    snippet=Plugin("vit_deploy.formats.snippets.tflite:LINES"),
    precisions={
        Target.CPU: (FP32, "fp16", "int8", "int8-static", "int8-full", "int16x8", "int4"),
        Target.WEB: (FP32, "fp16", "int8", "int8-static", "int16x8", "int4"),
    },
    exporter=Plugin("vit_deploy.exporters.tflite.export:TFLiteExporter", extra="cpu", needs=("tensorflow", "keras")),
    has_fixed_batch=True,
    joins_sizes=True,
    quantizer=Plugin(
        "vit_deploy.exporters.tflite.quantize:TFLiteQuantizer",
        extra="cpu",
        needs=("litert_quantizer", "ai_edge_litert"),
    ),
    recipes={
        Target.CPU: Plugin("vit_deploy.exporters.tflite.recipes:TFLITE_RECIPES"),
        Target.WEB: Plugin("vit_deploy.exporters.tflite.recipes:WEB_RECIPES"),
    },
    refuse_options=Plugin("vit_deploy.exporters.tflite.recipes:refuse_options"),
    quantization_options=frozenset(("all_integers",)),
    tapper=Plugin("vit_deploy.verification.locate.tflite:TFLiteTapper", extra="litert", needs=("ai_edge_litert",)),
    folds_norms=True,
)

SAVEDMODEL = Format(
    name="savedmodel",
    title="SavedModel",
    noun="a SavedModel",
    kind="folder",
    model_files=("saved_model",),
    runtimes=(
        RuntimeEntry(
            "savedmodel",
            Plugin("vit_deploy.runtimes.tensorflow.runtime:SavedModelRuntime", extra="cpu", needs=("tensorflow",)),
            providers=("cpu", "cuda"),
            not_profiled=TENSORFLOW_IS_NOT_PROFILED,
            keeps_threads=True,
            prefers_gpus=True,
        ),
    ),
    folder_file="saved_model.pb",
    read_graph=Plugin("vit_deploy.formats.savedmodel:read_graph"),
    refuse_bare=Plugin("vit_deploy.formats.savedmodel:refuse_other_signatures"),
    read_weights=Plugin("vit_deploy.formats.stored_weights:savedmodel_weights"),
    snippet=Plugin("vit_deploy.formats.snippets.savedmodel:LINES"),
    precisions={Target.CPU: (FP32,), Target.COREML: (FP32,)},
    exporter=Plugin(
        "vit_deploy.exporters.savedmodel.export:SavedModelExporter", extra="cpu", needs=("tensorflow", "keras")
    ),
    opens_sizes=True,
    triton=Plugin("vit_deploy.exporters.tensorrt.triton:SAVEDMODEL"),
    tapper=Plugin("vit_deploy.verification.locate.savedmodel:SavedModelTapper", extra="cpu", needs=("tensorflow",)),
)

TENSORRT = Format(
    name="tensorrt",
    title="TensorRT",
    noun="a TensorRT plan",
    kind="plan",
    model_files=("model.plan",),
    runtimes=(
        RuntimeEntry(
            "tensorrt",
            Plugin(
                "vit_deploy.runtimes.tensorrt.runtime:TensorRT",
                extra="tensorrt-rtx",
                either=("tensorrt", "tensorrt_rtx"),
            ),
            providers=("tensorrt", "tensorrt-rtx", "cuda"),
            not_profiled=("the layers of a plan are fused past the model's operators; NVIDIA's trtexec profiles them"),
        ),
    ),
    suffixes=(".plan", ".engine", ".trt"),
    magic=((0, b"ftrt"), (0, b"vtrt")),
    no_essentials="a plan has no room for config, preprocessing and labels: they are in its artifact's manifest",
    read_graph=Plugin("vit_deploy.formats.tensorrt_plan:read_graph"),
    snippet=Plugin("vit_deploy.formats.snippets.tensorrt:LINES"),
    largest_batch=Plugin("vit_deploy.formats.tensorrt_plan:largest_batch"),
    precisions={Target.TENSORRT: ONNX_PRECISIONS[Target.TENSORRT]},
    compiler=Plugin(
        "vit_deploy.exporters.tensorrt.export:TensorRTCompiler",
        extra="tensorrt-rtx",
        either=("tensorrt", "tensorrt_rtx"),
    ),
    made_of="onnx",
    has_opset=True,
    has_layout=True,
    triton=Plugin("vit_deploy.exporters.tensorrt.triton:PLANS"),
)

KERAS = Format(
    name="keras",
    title="Keras",
    noun="a .keras file",
    kind="file",
    model_files=(),
    runtimes=(
        RuntimeEntry(
            "keras",
            Plugin("vit_deploy.runtimes.keras.runtime:KerasRuntime", extra="cpu", needs=("keras", "h5py")),
            providers=("cpu", "cpu-eager", "cuda", "cuda-eager"),
            not_profiled="Keras runs its operators inside TensorFlow, which is not profiled",
            keeps_threads=True,
            prefers_gpus=True,
        ),
    ),
    suffixes=(".keras",),
)
"""Checkpoints that are run as they are."""

FORMATS = Formats((ONNX, TFLITE, SAVEDMODEL, TENSORRT, KERAS))

EXPORTED_BY_DEFAULT = (SAVEDMODEL.name, ONNX.name, TFLITE.name)
SERVED_BY_DEFAULT = (ONNX.name,)
"""The formats that are made where none is named, and those for a server."""
