"""Lines that run a TensorRT plan, which takes addresses on the GPU: memory there is the caller's work."""

from __future__ import annotations

from collections.abc import Iterator

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import MANIFEST
from vit_deploy.formats.snippet import Lines
from vit_deploy.formats.tensorrt_plan import PlanRecord


def _imports(artifact: Artifact) -> Iterator[str]:
    yield f"import {PlanRecord.of(artifact).flavour} as trt"
    yield "from cuda.bindings import runtime as cuda"


def _run(artifact: Artifact) -> Iterator[str]:
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


LINES = Lines(
    imports=_imports,
    run=_run,
    labels=lambda artifact: f'json.load(open({str(artifact.directory / MANIFEST)!r}))["labels"]',
    least_batch=lambda artifact: PlanRecord.of(artifact).batches.least,
)
