"""Lines that run an ONNX file in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.saturation import EXACT_KERNELS, may_saturate
from vit_deploy.formats.snippet import Lines

ON_CUDA = '# on NVIDIA: onnxruntime.preload_dlls() first, then ["CUDAExecutionProvider", "CPUExecutionProvider"]'


def _run(artifact: Artifact) -> Iterator[str]:
    options = ""
    if may_saturate(artifact):
        yield "options = onnxruntime.SessionOptions()"
        yield f"options.add_session_config_entry{EXACT_KERNELS!r}  # for x86 without VNNI"
        options = ", options"
    # It names the CPU, for onnxruntime-gpu would take TensorRT first, and say in many lines where there is none.
    providers = 'providers=["CPUExecutionProvider"]'
    yield f"session = onnxruntime.InferenceSession({str(artifact.model_path)!r}{options}, {providers})  {ON_CUDA}"
    if artifact.outputs:
        yield f"names = {list(artifact.outputs)}"
        yield f"outputs = dict(zip(names, session.run(names, {{{artifact.input.name!r}: images}})))"
        yield f"output = outputs[{artifact.output_name!r}][0]"
        return
    yield f"output = session.run([{artifact.config.output_name!r}], {{{artifact.input.name!r}: images}})[0][0]"


LINES = Lines(
    imports=lambda artifact: ["import onnxruntime"],
    run=_run,
    labels=lambda artifact: 'json.loads(session.get_modelmeta().custom_metadata_map["vit_deploy.labels"])',
)
