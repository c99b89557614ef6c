"""Lines that run a TFLite file in LiteRT."""

from __future__ import annotations

from collections.abc import Iterator

from vit_deploy.core.artifact import Artifact
from vit_deploy.formats.snippet import Lines


def _run(artifact: Artifact) -> Iterator[str]:
    output = artifact.config.output_name
    yield f"model = Interpreter({str(artifact.model_path)!r})"
    signature = artifact.signature or "serving_default"
    if artifact.outputs:
        yield f'runner = model.get_signature_runner("{signature}")'
        yield f"outputs = runner({artifact.input.name}=images)"
        if artifact.input.scale is not None:
            yield "for name, tensor in runner.get_output_details().items():"
            yield '    scale, zero_point = tensor["quantization"]'
            yield "    outputs[name] = scale * (outputs[name].astype(np.float32) - zero_point)"
        yield f"output = outputs[{artifact.output_name!r}][0]"
        return
    yield f'output = model.get_signature_runner("{signature}")({artifact.input.name}=images)[{output!r}][0]'
    if artifact.input.scale is not None:
        yield 'scale, zero_point = model.get_output_details()[0]["quantization"]'
        yield "output = scale * (output.astype(np.float32) - zero_point)"


LINES = Lines(
    imports=lambda artifact: ["from ai_edge_litert.interpreter import Interpreter"],
    run=_run,
    labels=lambda artifact: f'zipfile.ZipFile({str(artifact.model_path)!r}).read("labels.txt").decode().splitlines()',
    labels_by="zipfile",
)
