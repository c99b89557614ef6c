"""Export of a checkpoint as a TFLite file that XNNPACK takes as a whole.

The converter sees stand-ins for the kernels: constants of one value each, which cost it nothing to copy, transpose
or scale. Each is found again in its result by that value, and the real kernel is written in its place. So a model of
any size converts as fast as its structure does, and every weight is written once, straight into the file.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.lite.python.convert import ConverterError

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import NormalizationPosition, NormalizationType
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.engine_errors import first_line
from vit_deploy.core.outputs import Output
from vit_deploy.core.relative_positions import gather_relative_positions
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.errors import EngineError, ExportError
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.failures import REPORT, explained_tensorflow_errors, raise_full_disk
from vit_deploy.exporters.folding import Affine, fold_layer_scales, fold_norms, fold_preprocessing, moved_affines
from vit_deploy.exporters.mean_centering import centre_stream
from vit_deploy.exporters.tflite.join import join_files
from vit_deploy.exporters.tflite.layers import WITH_KERNELS
from vit_deploy.exporters.tflite.mean_axes import positive_axes
from vit_deploy.exporters.tflite.metadata import metadata_entries, output_order, packed_labels
from vit_deploy.exporters.tflite.pixels import dequantized_pixels
from vit_deploy.exporters.tflite.repack import INLINE_LIMIT, Content, write_model
from vit_deploy.exporters.tracing import TracedViT, outputs_by_name
from vit_deploy.formats.tflite.file import opened, root
from vit_deploy.formats.tflite.schema import Model

STEP = 2.0**-12  # between the values of two stand-ins, which lie from 1 to 2
PROBE_KERNEL = "map_pool.attention.query.kernel"  # of a product that does not depend on the images: it is folded away


@dataclass(frozen=True)
class StandIn:
    """What one value in the converter's result stands for: a kernel, times a factor that was folded into it."""

    name: str
    factor: np.float32


@dataclass(frozen=True)
class TFLiteExporter:
    """Writes `model.tflite`.

    Args:
        inline_limit: bytes past which the weights are written outside the flatbuffer, which cannot pass 2 GB.
    """

    inline_limit: int = INLINE_LIMIT
    libraries: tuple[str, ...] = ("tensorflow", "tensorflow-cpu", "keras", "flatbuffers")

    def write(self, checkpoint: Checkpoint, artifact: Artifact, options: ExportOptions) -> None:
        """Write the file with the standard metadata, the labels, and the artifact's essentials as one JSON object.

        Raises:
            ExportError: a model that the converter changes, or a result that is not its graph.
            EngineError: the converter failed.
            OSError: the disk is full.
        """
        _refuse(checkpoint.config)
        if options.batch is None:
            options = dataclasses.replace(options, batch=1)
        if options.resized:
            self._write_sizes(checkpoint, artifact, options)
            return
        outputs = artifact.named_outputs
        checkpoint = fold_layer_scales(checkpoint)
        moved = moved_affines(checkpoint, folded := fold_norms(checkpoint))
        checkpoint = gather_relative_positions(centre_stream(folded, outputs))
        if options.include_preprocessing and not (checkpoint.config.pixel_norm or checkpoint.config.patch_padding):
            checkpoint = fold_preprocessing(checkpoint)
        stand_ins = _stand_ins(checkpoint)
        model = root(memoryview(_convert(checkpoint, options, stand_ins, outputs, moved)))
        kernels = {**_kernels(model, checkpoint, stand_ins), **positive_axes(model)}
        if options.include_preprocessing:
            model = dequantized_pixels(model, kernels)
        _check_graph(model, artifact.output_names)
        write_model(
            artifact.model_path,
            model,
            kernels,
            metadata_entries(artifact, output_order(model)),
            inline_limit=self.inline_limit,
            trailer=packed_labels(artifact.labels),
        )

    def _write_sizes(self, checkpoint: Checkpoint, artifact: Artifact, options: ExportOptions) -> None:
        """Write one file for all sizes: each is converted by itself, and joined with the others."""
        one_size = dataclasses.replace(options, resized=())
        files = {}
        with tempfile.TemporaryDirectory() as folder:
            for size, resized in zip(artifact.sizes, (checkpoint, *options.resized), strict=True):
                alone = Path(folder) / size.signature
                alone.mkdir()
                single = dataclasses.replace(artifact.at(size.pixels), directory=alone, labels=())
                self.write(resized, single, one_size)
                files[size.signature] = single.model_path
            with opened(next(iter(files.values()))) as first:
                entries = metadata_entries(artifact, output_order(first) if artifact.outputs else ())
            join_files(
                files,
                artifact.model_path,
                entries,
                inline_limit=self.inline_limit,
                trailer=packed_labels(artifact.labels),
            )


def _refuse(config: ViTConfig) -> None:
    behind = config.normalization_position is NormalizationPosition.RES_POST
    if behind and config.normalization_type is NormalizationType.DYNAMIC_TANH:
        raise ExportError(
            "TFLite's converter multiplies the factor of a dynamic tanh into the kernel in front of it, so that the "
            "file would not have this model's weights",
            fix="export another format",
        )


def _stand_ins(checkpoint: Checkpoint) -> dict[np.float32, StandIn]:
    """A value for each kernel; the query's may have attention's scale folded into it."""
    kernels = [name for name in checkpoint.weights if name.endswith(".kernel") and name != PROBE_KERNEL]
    scale = np.float32(1 / math.sqrt(checkpoint.config.head_dim))
    found: dict[np.float32, StandIn] = {}
    for index, name in enumerate(kernels):
        value = np.float32(1 + (index + 1) * STEP)
        factors = {np.float32(1), scale} if name.endswith(".query.kernel") else {np.float32(1)}
        for factor in factors:
            if found.setdefault(value * factor, StandIn(name, factor)).name != name:
                raise ExportError(
                    f"{len(kernels)} kernels with heads of {checkpoint.config.head_dim} are more than the TFLite "
                    "exporter can tell apart",
                    fix="export another format",
                )
    return found


def _convert(
    checkpoint: Checkpoint,
    options: ExportOptions,
    stand_ins: Mapping[np.float32, StandIn],
    outputs: Sequence[Output],
    moved: Mapping[str, Affine],
) -> bytes:
    values = {stand_in.name: value for value, stand_in in stand_ins.items() if stand_in.factor == 1}
    with explained_tensorflow_errors("converting to TFLite"), quiet_stderr() as noise:
        spec = options.input_spec(checkpoint.config)
        traced = TracedViT(checkpoint, spec, outputs=outputs, moved=moved, by_rows=True, read_alone=True)

        def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
            weights = [
                tf.constant(values[name], tf.float32, checkpoint.weights[name].shape)
                if name in values
                else tf.constant(checkpoint.weights[name])
                for name in traced.names
            ]
            return outputs_by_name(traced.call(images, weights), outputs, checkpoint.config)

        function = tf.function(serve, input_signature=[traced.images_spec()], autograph=False)
        module = tf.Module(name="vit")
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
        # The constants then lie behind the flatbuffer, in which their sum could not pass 2 GB.
        converter._experimental_use_buffer_offset = True
        converter.exclude_conversion_metadata = True
        # Otherwise factors in front of a product would be multiplied into its stand-in.
        converter._experimental_disable_fuse_mul_and_fc = True
        try:
            return bytes(converter.convert())
        except ConverterError as error:
            failure = error
    raise_full_disk(noise.text + str(failure))
    raise EngineError(
        f"TensorFlow {tf.__version__} failed converting to TFLite: {first_line(failure)}",
        fix=REPORT,
    ) from failure


def _kernels(
    model: Model, checkpoint: Checkpoint, stand_ins: Mapping[np.float32, StandIn]
) -> dict[int, tuple[int, Content]]:
    """The real content of each buffer that holds a stand-in.

    Raises:
        ExportError: a kernel is not there exactly once, or where no kernel belongs.
    """
    graph, buffers, kinds = model.graph, model.buffers, [code.name for code in model.codes]
    tensors = graph.tensors
    found: dict[int, tuple[int, Content]] = {}
    names = []
    for operator in graph.operators:
        kind = kinds[operator.code]
        if kind not in WITH_KERNELS:
            continue
        _, kernel_tensor, bias_tensor = operator.inputs
        index = tensors[kernel_tensor].buffer
        values = np.frombuffer(buffers[index].content, np.float32)
        stand_in = stand_ins.get(values[0])
        weight = None if stand_in is None else checkpoint.weights[stand_in.name]
        if stand_in is None or weight is None or weight.size != values.size or values[0] != values[-1]:
            raise ExportError(
                f"the TFLite converter made a constant of {values.size} numbers that is none of the kernels",
                fix="report this with the model's config",
            )
        bias = checkpoint.weights[stand_in.name.removesuffix("kernel") + "bias"] * stand_in.factor
        stored = np.zeros_like(bias)  # which the converter leaves out
        if bias_tensor >= 0:
            stored = np.frombuffer(buffers[tensors[bias_tensor].buffer].content, np.float32)
        if not np.array_equal(stored, bias):  # nothing, not even the stand-in, may have been folded into it
            raise ExportError(
                f"the TFLite converter changed the bias that belongs to {stand_in.name}",
                fix="report this with the model's config",
            )
        axes = (3, 0, 1, 2) if kind == "CONV_2D" else (1, 0)
        found[index] = (weight.nbytes, _content(weight, axes, stand_in.factor))
        names.append(stand_in.name)
    expected = {stand_in.name for stand_in in stand_ins.values()}
    if sorted(names) != sorted(expected):
        raise ExportError(
            f"the TFLite graph uses {len(set(names))} of {len(expected)} kernels, in {len(names)} products",
            fix="report this with the model's config",
        )
    return found


def _content(weight: NDArray[np.float32], axes: tuple[int, ...], factor: np.float32) -> Content:
    def content() -> Any:
        return np.ascontiguousarray((weight * factor).transpose(axes), "<f4").data.cast("B")

    return content


def _check_graph(model: Model, outputs: Sequence[str]) -> None:
    custom = [code.name for code in model.codes if code.is_custom]
    if custom:
        raise ExportError(
            f"the TFLite graph has operators that are not builtin: {', '.join(custom)}",
            fix="report this with the model's config",
        )
    signatures = [
        (signature.key, [given.name for given in signature.inputs], sorted(output.name for output in signature.outputs))
        for signature in model.signatures
    ]
    expected = [("serving_default", ["images"], sorted(outputs))]
    if signatures != expected:
        raise ExportError(
            f"the TFLite signatures are {signatures}, expected {expected}", fix="report this with the model's config"
        )
