"""An fp32 TFLite file in 16-bit floats or integers.

litert-quantizer does it, told by name which operators to take (`instructions`). Two things are done here that it would
do otherwise: it takes a moving average of the extremes of each batch for the range of a tensor, which lies well inside
the values that really come and cost most of the accuracy of calibrated files; here ranges are measured, see `ranges`
and `chosen_ranges`. And it knows no metadata.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from litert_quantizer import quantizer as aeq
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.engine_errors import explained
from vit_deploy.core.engine_paths import engine_path
from vit_deploy.core.input_output import OutputSpec
from vit_deploy.core.options.quantizing import Clipping
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.errors import ExportError
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.exporters.quantization.coarse_ranges import FLOAT, RECORD, WIDE
from vit_deploy.exporters.quantization.float16_kernels import fits_blocks, fits_half
from vit_deploy.exporters.quantization.learned_ranges import learned_ranges
from vit_deploy.exporters.quantization.recipes import Activations, Recipe
from vit_deploy.exporters.tflite.attention_probabilities import with_calibrated_shares
from vit_deploy.exporters.tflite.bias_correction import corrected_biases
from vit_deploy.exporters.tflite.block_rounding import rounded_kernels
from vit_deploy.exporters.tflite.chosen_ranges import largest_shares, learned_by_tensor, needed_tensors, ranges_of
from vit_deploy.exporters.tflite.coarse import coarse_layers, coarse_products
from vit_deploy.exporters.tflite.empty_scales import with_scales_for_empty
from vit_deploy.exporters.tflite.instructions import instruct
from vit_deploy.exporters.tflite.join import join_files, split_file
from vit_deploy.exporters.tflite.layer_weights import Weights, write_weights
from vit_deploy.exporters.tflite.layers import Layer, find_layers, find_tensors
from vit_deploy.exporters.tflite.matmuls import Product, integer_products
from vit_deploy.exporters.tflite.metadata import metadata_entries, output_order, packed_labels
from vit_deploy.exporters.tflite.output_tensors import with_named_outputs
from vit_deploy.exporters.tflite.ranges import Observations, observe
from vit_deploy.exporters.tflite.repack import INLINE_LIMIT, write_model
from vit_deploy.exporters.tflite.smoothing import balanced_weights
from vit_deploy.exporters.tflite.squares import has_squared_differences, with_products_for_squares
from vit_deploy.exporters.tflite.widening import tokens_beside_summary, widened
from vit_deploy.formats.tflite.file import opened, root
from vit_deploy.formats.tflite.schema import Model

FIX = (
    "ask for another precision, keep the layer that it names in float with --keep-float, or report this with the "
    "model's config"
)
HALF = 16  # bits


@dataclass(frozen=True)
class TFLiteQuantizer:
    """Writes `model.tflite`.

    Args:
        inline_limit: bytes past which the weights are written outside the flatbuffer.
    """

    inline_limit: int = INLINE_LIMIT
    libraries: tuple[str, ...] = ("litert-quantizer", "ai-edge-litert", "flatbuffers")

    def write(self, source: Artifact, target: Artifact, recipe: Recipe, calibration: Calibration | None) -> Artifact:
        """Write the file with the standard metadata, the labels and the essentials; see `quantization.Quantizer`.

        Raises:
            ExportError: the file's layers cannot be told, or the result is not what it has to be.
            EngineError: the quantizer failed.
            OSError: the disk is full.
        """
        if source.signature:
            return self._write_sizes(source, target, recipe, calibration)
        with self._balanced(source, recipe, calibration) as balanced:
            seen = self._observed(balanced, recipe, calibration)
            kernels = self._kernels(balanced, recipe, calibration)
            with (
                self._with_weights(balanced, kernels) as rounded,
                self._widened(rounded, target, recipe, seen) as (widened, goal, wide),
            ):
                return self._write(widened, goal, wide, seen, balanced)

    def _write_sizes(
        self, source: Artifact, target: Artifact, recipe: Recipe, calibration: Calibration | None
    ) -> Artifact:
        """Write a file for several sizes: each is quantized by itself, by the ranges of the first, and joined again.

        So weights and biases become the same integers at every size, and are in the file once.
        """
        made, seen = target, None
        kernels: Weights = {}
        files: dict[str, Path] = {}
        with tempfile.TemporaryDirectory() as folder:
            names = [size.signature for size in source.sizes]
            singles = split_file(source.model_path, names, Path(folder))
            for size in source.sizes:
                given, written = (Path(folder) / f"{size.signature}.{kind}" for kind in ("given", "written"))
                for place in (given, written):
                    place.mkdir()
                alone = dataclasses.replace(source.at(size.pixels), directory=given, sizes=())
                singles[size.signature].rename(alone.model_path)
                goal = dataclasses.replace(target.at(size.pixels), directory=written, sizes=(), labels=())
                with self._balanced(alone, recipe, calibration) as balanced:
                    if not files:
                        seen = self._observed(balanced, recipe, calibration)
                        kernels = self._kernels(balanced, recipe, calibration)
                    with (
                        self._with_weights(balanced, kernels) as rounded,
                        self._widened(rounded, goal, recipe, seen) as (widened, wider, wide),
                    ):
                        result = self._write(widened, wider, wide, seen, balanced)
                if not files:
                    made = dataclasses.replace(
                        target,
                        input=result.input,
                        output=result.output,
                        outputs=result.outputs,
                        options=result.options,
                    )
                files[size.signature] = result.model_path
            with opened(next(iter(files.values()))) as first:
                entries = metadata_entries(made, output_order(first) if made.outputs else ())
            join_files(
                files,
                target.model_path,
                entries,
                inline_limit=self.inline_limit,
                trailer=packed_labels(target.labels),
            )
        return made

    def _balanced(
        self, source: Artifact, recipe: Recipe, calibration: Calibration | None
    ) -> AbstractContextManager[Artifact]:
        """The source, or where the recipe asks for it the same function without outliers; learned ranges forbid it."""
        if not recipe.equalized or (recipe.needs_ranges and learned_ranges(source, calibration)):
            return contextlib.nullcontext(source)
        with opened(source.model_path) as model:
            weights = balanced_weights(model, find_layers(model, source.config), source.config)
        return self._with_weights(source, weights)

    def _kernels(self, source: Artifact, recipe: Recipe, calibration: Calibration | None) -> Weights:
        """The kernels whose rounding errors make up for each other; none of a recipe that does not ask for it."""
        if not recipe.compensated:
            return {}
        with opened(source.model_path) as model:
            layers = find_layers(model, source.config)
            recipe = _with_room(model, recipe, layers)
        return rounded_kernels(source, layers, recipe, calibration)

    @contextlib.contextmanager
    def _with_weights(self, source: Artifact, weights: Weights) -> Iterator[Artifact]:
        """An artifact whose file has other weights; the source itself where there are none."""
        if not weights:
            yield source
            return
        with _in_a_copy(source) as changed:
            with opened(source.model_path) as model:
                layers = find_layers(model, source.config)
                write_weights(changed.model_path, model, layers, weights, inline_limit=self.inline_limit)
            yield changed

    @contextlib.contextmanager
    def _widened(
        self, source: Artifact, target: Artifact, recipe: Recipe, seen: Observations | None
    ) -> Iterator[tuple[Artifact, Artifact, Recipe]]:
        """What is given; a file of integers alone has 16 bits where 8 are too coarse, see `widening`.

        Squares of norms become products where 16 bits are asked for throughout.
        """
        content = None
        wide = recipe
        if recipe.all_integers:
            content = bytes(with_products_for_squares(source.model_path.read_bytes()))
        elif recipe.integer_io:
            wide, content = widened(source, recipe, seen)
        if wide != recipe:
            chosen = {"residual_bits": wide.residual_bits, "wide_layers": list(wide.wide_layers)}
            told = {**target.options.get("recipe", {}), **chosen, **({WIDE: True} if content else {})}
            target = dataclasses.replace(target, options={**target.options, "recipe": told})
        if content is None:
            yield source, target, wide
            return
        with _in_a_copy(source) as copy:
            copy.model_path.write_bytes(content)
            yield copy, target, wide

    def _observed(self, source: Artifact, recipe: Recipe, calibration: Calibration | None) -> Observations | None:
        """The values of the tensors of a file that its ranges follow from, where the recipe has any."""
        if calibration is None or not recipe.needs_ranges:
            return None
        with opened(source.model_path) as model:
            layers, between = find_layers(model, source.config), find_tensors(model, source.config)
            products = integer_products(model, recipe, between)
            recipe = _with_room(model, recipe, layers)

        def observed(class_token_of: int) -> Observations:
            seen = observe(
                source.model_path,
                source.input,
                calibration,
                only=needed_tensors(recipe, layers, products),
                counted=recipe.clipping is not Clipping.MIN_MAX,
                means_of={layer.input for layer in layers.values()} if recipe.bias_correction else (),
                class_token_of=class_token_of,
            )
            return seen.with_ranges(learned_by_tensor(source, calibration, layers, between))

        seen = observed(0)
        summary = tokens_beside_summary(source.config)
        if summary and recipe.integer_io and widened(source, recipe, seen)[1] is not None:
            return observed(summary)
        return seen

    def _write(
        self, source: Artifact, target: Artifact, recipe: Recipe, seen: Observations | None, exact: Artifact
    ) -> Artifact:
        """Write a file, whose biases may make up for what its kernels have of those of an exact one."""
        with opened(source.model_path) as model:
            layers, between = find_layers(model, source.config), find_tensors(model, source.config)
            products = integer_products(model, recipe, between)
            recipe = _with_room(model, recipe, layers)
            if recipe.all_integers:
                _refuse_squared_differences(model)
        dynamic = () if recipe.integer_io else coarse_layers(layers, recipe, seen)
        floats = () if recipe.integer_io else coarse_products(products, recipe, seen)
        if dynamic or floats:
            told = {RECORD: list(dynamic), FLOAT: list(floats)}
            told = {**target.options.get("recipe", {}), **{name: names for name, names in told.items() if names}}
            target = dataclasses.replace(target, options={**target.options, "recipe": told})
        products = tuple(product for product in products if product.name not in floats)
        content = _quantized(source, recipe, layers, products, seen, dynamic)
        if recipe.weight_bits != HALF:
            with opened(source.model_path) as original:
                content = with_scales_for_empty(content, original, source.config)
        if target.outputs:
            with opened(source.model_path) as original:
                content = with_named_outputs(content, output_order(original))
        target = _with_integer_io(target, content) if recipe.integer_io else target
        model = root(memoryview(content))
        contents = {}
        if recipe.bias_correction and seen is not None:
            with opened(exact.model_path) as original:
                contents = corrected_biases(original, model, source.config, seen.means)
        write_model(
            target.model_path,
            model,
            contents,
            metadata_entries(target, output_order(model)),
            inline_limit=self.inline_limit,
            trailer=packed_labels(target.labels),
        )
        return target


@contextlib.contextmanager
def _in_a_copy(source: Artifact) -> Iterator[Artifact]:
    """The artifact in a folder of its own, whose file is still to be written."""
    with tempfile.TemporaryDirectory() as folder:
        yield dataclasses.replace(source, directory=Path(folder))


def _quantized(
    source: Artifact,
    recipe: Recipe,
    layers: dict[str, Layer],
    products: Sequence[Product],
    seen: Observations | None,
    dynamic: Collection[str] = (),
) -> Any:
    # Its progress bars cannot be turned off; ours says what is being done.
    # Its warnings are of blocks of zeros, whose scales are found here.
    silent = np.errstate(divide="ignore", invalid="ignore")
    failing = explained(f"litert-quantizer failed on {source.model_path}", (RuntimeError, ValueError), FIX)
    with failing, quiet_stderr(), contextlib.redirect_stderr(io.StringIO()), silent:
        work = aeq.Quantizer(engine_path(source.model_path))
        instruct(work, recipe, layers, products, dynamic)
        static = recipe.activations is Activations.STATIC
        ranges = ranges_of(seen, recipe, products) if static and seen is not None else None
        shares = {} if ranges is None else largest_shares(ranges, products)  # quantizing changes the ranges it is given
        content = work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model
        return with_calibrated_shares(content, shares) if shares else content


def _refuse_squared_differences(model: Model) -> None:
    if has_squared_differences(model):
        raise ExportError(
            "a norm takes a squared difference that cannot be a product, and LiteRT has none of 16 bits",
            fix="leave --all-integers out, or ask for int8-full",
        )


def _with_room(model: Model, recipe: Recipe, layers: Mapping[str, Layer]) -> Recipe:
    """The recipe without what 16-bit floats cannot hold: layers in float, or in 8 bits, whose scales have 32 bits."""
    buffers = model.buffers

    def failing(fits: Callable[[NDArray[np.float32]], bool], names: Iterable[str]) -> tuple[str, ...]:
        kernels = ((name, np.frombuffer(buffers[layers[name].kernel].content, np.float32)) for name in names)
        return tuple(name for name, kernel in kernels if not fits(kernel))

    if recipe.weight_bits == HALF:
        return dataclasses.replace(recipe, keep_float=(*recipe.keep_float, *failing(fits_half, layers)))
    if recipe.block_size:
        narrow = [name for name in layers if recipe.bits_of(name) < 8]
        return dataclasses.replace(recipe, eight_bits=(*recipe.eight_bits, *failing(fits_blocks, narrow)))
    return recipe


def _with_integer_io(target: Artifact, content: Any) -> Artifact:
    """The target with the scale and the zero point that the file's input has.

    Raises:
        ExportError: input or output are no integers.
    """
    with quiet_stderr():
        engine = Interpreter(model_content=bytes(content))
    (given,), results = engine.get_input_details(), engine.get_signature_runner().get_output_details()
    kinds = {result["dtype"] for result in results.values()} - ({np.int16} if target.outputs else set())
    if given["dtype"] != np.int8 or kinds - {np.int8}:
        gives = ", ".join(dict.fromkeys(result["dtype"].__name__ for result in results.values()))
        raise ExportError(
            f"the integer file takes {given['dtype'].__name__} and gives {gives}, expected int8",
            fix="report this with the model's config",
        )
    scale, zero_point = given["quantization"]
    spec = dataclasses.replace(target.input, dtype="int8", scale=float(scale), zero_point=int(zero_point))
    scales = {name: result["quantization"] for name, result in results.items()}
    outputs = {
        name: OutputSpec(np.dtype(results[name]["dtype"]).name, float(scale), int(zero))
        for name, (scale, zero) in scales.items()
    }
    return dataclasses.replace(target.giving(outputs), input=spec)
