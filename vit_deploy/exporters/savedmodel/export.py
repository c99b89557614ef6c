"""Export of a checkpoint as a TensorFlow SavedModel that needs neither Keras nor this package."""

from __future__ import annotations

import json

import tensorflow as tf

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.format import Target
from vit_deploy.core.relative_positions import gather_relative_positions
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.failures import explained_tensorflow_errors
from vit_deploy.exporters.folding import fold_layer_scales
from vit_deploy.exporters.savedmodel.function_names import renumber_functions
from vit_deploy.exporters.tracing import TracedViT, outputs_by_name

ESSENTIALS = "assets/vit_deploy.json"
SIGNATURE = "serving_default"


class SavedModelExporter:
    """Writes `saved_model/`: one traced function, and the weights as variables with their canonical names."""

    libraries = ("tensorflow", "tensorflow-cpu", "keras")

    def write(self, checkpoint: Checkpoint, artifact: Artifact, options: ExportOptions) -> None:
        """Write the folder, with the artifact's essentials as one JSON object in `assets/vit_deploy.json`.

        Layer scales are multiplied into the projections before them.

        Raises:
            EngineError: TensorFlow refused to trace or to save.
            OSError: the disk is full.
        """
        checkpoint = gather_relative_positions(fold_layer_scales(checkpoint))
        with explained_tensorflow_errors("writing the SavedModel"), quiet_stderr():
            kind = options.position_filter(checkpoint) if options.dynamic_size else None
            spec, outputs = options.input_spec(checkpoint.config), artifact.named_outputs
            traced = TracedViT(
                checkpoint,
                spec,
                outputs=outputs,
                read_alone=True,
                by_erf=options.target is Target.COREML,  # whose converter knows no other
                open_positions=kind,
            )
            module = tf.Module(name="vit")
            # TensorFlow shares the memory of an aligned array with the variable, so this is no second copy.
            module.weights = {
                name: tf.Variable(checkpoint.weights[name], trainable=False, name=name) for name in traced.names
            }
            weights = [module.weights[name] for name in traced.names]

            def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
                return outputs_by_name(traced.call(images, weights), outputs, checkpoint.config)

            function = tf.function(serve, input_signature=[traced.images_spec()], autograph=False)
            concrete = function.get_concrete_function()
            tf.saved_model.save(module, str(artifact.model_path), signatures={SIGNATURE: concrete})
            renumber_functions(artifact.model_path)
        path = artifact.model_path / ESSENTIALS
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(artifact.essentials(), indent=2, sort_keys=True) + "\n", encoding="utf-8")
