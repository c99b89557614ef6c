"""Export of a checkpoint as an ONNX file of standard operators in the forms that engines run fastest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import IdentityEliminationPass

import vit_deploy
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.format import Target
from vit_deploy.core.outputs import Output
from vit_deploy.core.relative_positions import gather_relative_positions
from vit_deploy.core.weights import learned_positions
from vit_deploy.errors import ExportError
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.folding import fold_layer_scales
from vit_deploy.exporters.onnx.class_token import class_token_alone
from vit_deploy.exporters.onnx.constants import fold_constants
from vit_deploy.exporters.onnx.cuda import fuse_for_cuda
from vit_deploy.exporters.onnx.open_sizes import at_a_telling_size, open_image_size
from vit_deploy.exporters.onnx.rows import products_with_bias, tokens_as_rows
from vit_deploy.exporters.onnx.rules import apply_rules
from vit_deploy.exporters.onnx.tidy import tidy
from vit_deploy.exporters.onnx.trace import traced_structure
from vit_deploy.exporters.onnx.write import EXTERNAL_LIMIT, check_model, write_model

PRODUCER = "vit-deploy"
BATCH = "batch"  # the name of an open batch


@dataclass(frozen=True)
class OnnxExporter:
    """Writes `model.onnx`, and `model.onnx.data` for large weights.

    Args:
        external_limit: bytes from which the weights are written beside the model.
    """

    external_limit: int = EXTERNAL_LIMIT
    libraries: tuple[str, ...] = ("tensorflow", "tensorflow-cpu", "keras", "tf2onnx", "onnx", "onnxscript", "onnx-ir")

    def write(self, checkpoint: Checkpoint, artifact: Artifact, options: ExportOptions) -> None:
        """Write the file with the weights by their canonical names and the artifact's essentials as metadata.

        Layer scales are multiplied into the projections before them.

        Raises:
            ExportError: tf2onnx cannot express the model, or the result is not valid.
            EngineError: TensorFlow or tf2onnx failed.
            OSError: the disk is full.
        """
        checkpoint = gather_relative_positions(fold_layer_scales(checkpoint))
        for_cuda, outputs = options.target is Target.CUDA, artifact.named_outputs
        traced = at_a_telling_size(checkpoint, options.batch) if options.dynamic_size else checkpoint
        model = traced_structure(traced, options.traced_spec(traced.config), outputs, turned_first=for_cuda)
        rewrite_structure(model, traced.config, options, outputs)
        if options.dynamic_size:
            kind = options.position_filter(checkpoint)
            open_image_size(
                model.graph,
                checkpoint,
                traced.config,
                kind,
                layout=options.layout,
                batch=options.batch,
                outputs=outputs,
            )
        learned = learned_positions(checkpoint.config)
        weights = {name: weight for name, weight in checkpoint.weights.items() if name not in learned}
        if for_cuda:
            weights = fuse_for_cuda(model, checkpoint.config, weights)
        model.producer_name, model.producer_version = PRODUCER, vit_deploy.__version__
        model.metadata_props.update(sorted(artifact.essentials().items()))
        write_model(artifact.model_path, ir.to_proto(model), weights, external_limit=self.external_limit)
        check_model(artifact.model_path)


def rewrite_structure(
    model: ir.Model, config: ViTConfig, options: ExportOptions, outputs: Sequence[Output] = ()
) -> None:
    """Turn tf2onnx's graph, in place, into the one that is published; its weights become initializers without values.

    Raises:
        ExportError: the graph is not the one of this ViT.
    """
    graph = model.graph
    IdentityEliminationPass()(model)
    fold_constants(graph)
    apply_rules(model, config, options.opset, options.batch)
    rows = tokens_as_rows(graph, config)
    class_token_alone(graph, config, rows, outputs)
    products_with_bias(graph)
    tidy(model, options.opset)
    if unused := [value.name for value in graph.inputs if not value.uses()]:
        raise ExportError(
            f"the ONNX graph does not depend on {', '.join(map(str, unused))}",
            fix="export another format, or report the model's options",
        )
    batch = BATCH if options.batch is None else options.batch
    graph.inputs[0].shape = ir.Shape([batch, *options.traced_spec(config).shape[1:]])
    shapes = [output.shape(config) for output in outputs] or [config.output_shape]
    for value, shape in zip(graph.outputs, shapes, strict=True):
        value.shape = ir.Shape([batch, *shape])
        value.type = ir.TensorType(ir.DataType.FLOAT)
    del graph.inputs[1:]
