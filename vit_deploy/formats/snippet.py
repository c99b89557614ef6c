"""A few lines of Python that run an artifact in its plain engine, with its recorded preprocessing.

The lines need the engine, NumPy and Pillow, for a TensorRT plan cuda-python too, and nothing of this package. They
are for images of 8 bits a channel.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping

from vit_deploy.core.artifact import MANIFEST, Artifact
from vit_deploy.core.images import MODES
from vit_deploy.core.saturation import EXACT_KERNELS, may_saturate
from vit_deploy.errors import ArtifactError
from vit_deploy.formats.tensorrt_plan import PlanRecord

SHOWN = 5  # classes
ON_CUDA = '# on NVIDIA: onnxruntime.preload_dlls() first, then ["CUDAExecutionProvider", "CPUExecutionProvider"]'

# How the engine of each format is imported.
ENGINES: Mapping[str, str] = {
    "onnx": "import onnxruntime",
    "tflite": "from ai_edge_litert.interpreter import Interpreter",
    "savedmodel": "import tensorflow as tf",
    "tensorrt": "",  # see `_imports`
}


def snippet(artifact: Artifact) -> str:
    """A program that takes an image file as its first argument and prints the best classes, or the features' shape.

    Raises:
        ArtifactError: a format that only this package can run.
    """
    if artifact.format not in ENGINES:
        raise ArtifactError(
            f"{artifact.model_path} is a checkpoint, which no plain engine runs",
            fix="export it first, then ask for the snippet of the artifact",
        )
    if not artifact.input.name.isidentifier():  # it becomes code
        raise ArtifactError(f"{artifact.model_path} calls its input {artifact.input.name!r}", fix="export it again")
    lines = [*_imports(artifact), "", *_image(artifact), *_images(artifact), *_run(artifact), *_answer(artifact)]
    return "\n".join(lines) + "\n"


def _imports(artifact: Artifact) -> Iterator[str]:
    standard = {"sys"}
    if artifact.labels and artifact.config.include_top:
        standard.add("zipfile" if artifact.format == "tflite" else "json")
    if _is_pattern(artifact):
        standard.add("os")
    yield from (f"import {name}" for name in sorted(standard))
    yield ""
    yield "import numpy as np"
    if artifact.format == "tensorrt":
        yield f"import {PlanRecord.of(artifact).flavour} as trt"
        yield "from cuda.bindings import runtime as cuda"
    else:
        yield ENGINES[artifact.format]
    yield "from PIL import Image, ImageOps"


def _image(artifact: Artifact) -> Iterator[str]:
    """Lines that end with `pixels` `(height, width, channels)`, 0..255 as float32."""
    preprocess, channels = artifact.preprocess, artifact.config.channels
    height, width = preprocess.input_size or artifact.config.image_size
    convert = f'.convert("{MODES[channels]}")' if channels in MODES else ""
    yield f"image = ImageOps.exif_transpose(Image.open(sys.argv[1])){convert}"
    size, change = f"({width}, {height})", f"Image.Resampling.{preprocess.interpolation.name})"
    if isinstance(preprocess.resize, tuple):
        size = f"({preprocess.resize[1]}, {preprocess.resize[0]})"
        if preprocess.keep_aspect:
            yield f"ratio = min(side / wanted for side, wanted in zip(image.size, {size}))"
            size = "[round(side / ratio) for side in image.size]"
    elif preprocess.resize is not None:
        size = f"[{preprocess.resize} * side // min(image.size) for side in image.size]"
    if preprocess.crop and preprocess.resize is not None:
        yield f"size = {size}  # (width, height)"
        yield f"left, top = round((size[0] - {width}) / 2), round((size[1] - {height}) / 2)"
        change = f".resize(size, {change}.crop((left, top, left + {width}, top + {height}))"
    else:
        change = f".resize({size}, {change}"
    if channels in MODES:
        yield f"pixels = np.asarray(image{change}, np.float32).reshape({height}, {width}, {channels})"
    else:
        yield f"pixels = np.stack([np.asarray(band{change}, np.float32) for band in image.split()], axis=-1)"
    if preprocess.input_size:
        height, width = artifact.config.image_size
        yield f"pixels = pixels[:{height}, :{width}]  # what whole patches cover"


def _images(artifact: Artifact) -> Iterator[str]:
    """Lines that end with `images`, as the file takes them."""
    spec, preprocess = artifact.input, artifact.preprocess
    dtype, image = spec.dtype, "image.transpose(2, 0, 1)" if spec.layout == "nchw" else "image"
    if spec.preprocessing_inside:
        yield "image = pixels"
    else:
        yield f"image = (pixels / 255 - {list(preprocess.mean)}) / {list(preprocess.std)}"
    if spec.scale is not None:
        least, most = (-128, 127) if dtype == "int8" else (0, 255)
        yield f"image = np.clip(np.rint(image / {spec.scale!r}) + {spec.zero_point or 0}, {least}, {most})"
    batch = spec.batch or (PlanRecord.of(artifact).batches.least if artifact.format == "tensorrt" else 1)
    times = "" if batch == 1 else f" * {batch}"
    yield f"images = np.array([{image}]{times}, np.{dtype})"


def _run(artifact: Artifact) -> Iterator[str]:
    """Lines that end with `output`, the first image's."""
    path, name, output = str(artifact.model_path), artifact.input.name, artifact.config.output_name
    if artifact.format == "onnx":
        options = ""
        if may_saturate(artifact):
            yield "options = onnxruntime.SessionOptions()"
            yield f"options.add_session_config_entry{EXACT_KERNELS!r}  # for x86 without VNNI"
            options = ", options"
        # It names the CPU, for onnxruntime-gpu would take TensorRT first, and say in many lines where there is none.
        providers = 'providers=["CPUExecutionProvider"]'
        yield f"session = onnxruntime.InferenceSession({path!r}{options}, {providers})  {ON_CUDA}"
        yield f"output = session.run([{output!r}], {{{name!r}: images}})[0][0]"
    elif artifact.format == "tflite":
        yield f"model = Interpreter({path!r})"
        yield f'output = model.get_signature_runner("serving_default")({name}=images)[{output!r}][0]'
        if artifact.input.scale is not None:
            yield 'scale, zero_point = model.get_output_details()[0]["quantization"]'
            yield "output = scale * (output.astype(np.float32) - zero_point)"
    elif artifact.format == "tensorrt":
        yield from _run_plan(artifact)
    else:
        if _is_pattern(artifact):
            yield f"os.chdir({path!r})  # TensorFlow takes such a path for a pattern"
        yield f"model = tf.saved_model.load({('.' if _is_pattern(artifact) else path)!r})"
        yield 'with tf.device("/GPU:0" if tf.config.list_physical_devices("GPU") else "/CPU:0"):'
        yield f'    output = model.signatures["serving_default"]({name}=tf.constant(images))[{output!r}][0].numpy()'


def _run_plan(artifact: Artifact) -> Iterator[str]:
    """TensorRT takes addresses on the GPU, so that memory there is the caller's work."""
    name, output = artifact.input.name, artifact.config.output_name
    yield f"engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(open({str(artifact.model_path)!r}, 'rb').read())"
    yield "context = engine.create_execution_context()"
    yield f"context.set_input_shape({name!r}, images.shape)"
    yield f"outputs = np.empty(tuple(context.get_tensor_shape({output!r})), np.{artifact.output.dtype})"
    yield f"arrays = {{{name!r}: images, {output!r}: outputs}}"
    yield "memory = {name: cuda.cudaMalloc(array.nbytes)[1] for name, array in arrays.items()}"
    yield "for name, address in memory.items():"
    yield "    context.set_tensor_address(name, address)"
    yield "stream = cuda.cudaStreamCreate()[1]"
    yield "to_gpu, to_host = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost"
    yield f"cuda.cudaMemcpy(memory[{name!r}], images.ctypes.data, images.nbytes, to_gpu)"
    yield "context.execute_async_v3(int(stream))"
    yield "cuda.cudaStreamSynchronize(stream)"
    yield f"cuda.cudaMemcpy(outputs.ctypes.data, memory[{output!r}], outputs.nbytes, to_host)"
    yield "output = outputs[0].astype(np.float32)"


def _answer(artifact: Artifact) -> Iterator[str]:
    if not artifact.config.include_top:
        yield 'print("features of shape", output.shape)'
        return
    name = "index"
    if artifact.labels:
        yield f"labels = {_labels(artifact)}"
        name = "labels[index]"
    yield f"for index in np.argsort(-output)[:{SHOWN}]:"
    yield f'    print(f"{{output[index]:.6f}} {{{name}}}")'


def _labels(artifact: Artifact) -> str:
    """Read from the file itself: a thousand of them are no snippet."""
    path = str(artifact.model_path)
    if artifact.format == "onnx":
        return 'json.loads(session.get_modelmeta().custom_metadata_map["vit_deploy.labels"])'
    if artifact.format == "tflite":
        return f'zipfile.ZipFile({path!r}).read("labels.txt").decode().splitlines()'
    if artifact.format == "tensorrt":
        return f'json.load(open({str(artifact.directory / MANIFEST)!r}))["labels"]'
    folder = "" if _is_pattern(artifact) else f"{path}/"
    return f'json.loads(json.load(open({folder + "assets/vit_deploy.json"!r}))["vit_deploy.labels"])'


def _is_pattern(artifact: Artifact) -> bool:
    """Whether TensorFlow would look for the variables of a SavedModel by a pattern, and not find them."""
    path = str(artifact.model_path)
    return artifact.format == "savedmodel" and glob.escape(path) != path
