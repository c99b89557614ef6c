"""TensorRT plans, built of ONNX artifacts by TensorRT or TensorRT for RTX."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vit_deploy.core.artifact import Artifact, versions
from vit_deploy.core.cache import cache_folder, read_cached, write_cached
from vit_deploy.core.engine_paths import engine_path
from vit_deploy.core.options.tensorrt import FULL, RTX, BatchRange
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.errors import EngineError
from vit_deploy.exporters import PlanOptions
from vit_deploy.formats.tensorrt_plan import RECORD, TITLES, PlanRecord
from vit_deploy.runtimes.cuda.memory import Gpu, find_gpu
from vit_deploy.runtimes.tensorrt.engine import Complaints, explained, is_installed, load_engine, make_log

AMPERE = (8, 0)  # TensorRT for RTX multiplies in float32 from this compute capability on
OF_TURING = ("fp16",)  # what it builds for those before
FIX = "export the ONNX artifact alone to see whether the graph is right, or take another version of TensorRT"


class TensorRTCompiler:
    """Builds strongly typed networks, in which each tensor has the type that the graph gives it."""

    libraries: tuple[str, ...] = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt_rtx")

    def check(self, options: PlanOptions) -> None:
        """Refuse, before any work, what could not be built or proven here.

        Raises:
            MissingEngineError: TensorRT of that flavour is not installed.
            EngineError: there is no GPU to prove on or to build for, or it is not one of TensorRT for RTX.
        """
        gpu, why = _gpu_or_reason()
        if gpu is None and not options.unproven:
            raise EngineError(
                f"there is no GPU to prove the plan on: {why}",
                fix="export on a machine with the GPU, or add --unproven and prove it there with vit-deploy verify",
            )
        flavour = chosen_flavour(options, gpu)
        engine = load_engine(flavour)
        if gpu is None and flavour == FULL:
            raise EngineError(
                f"TensorRT builds a plan on the GPU that it is for, and there is none: {why}",
                fix="export on a machine with that GPU, or take --tensorrt rtx --unproven",
            )
        if gpu is not None and flavour == RTX and not options.unproven:
            _refuse_other_gpu(gpu, compute_capabilities(engine), f"{TITLES[RTX]} {engine.__version__}")

    def write(self, source: Artifact, target: Artifact, options: PlanOptions) -> Artifact:
        """Write the plan of the source's graph.

        Raises:
            MissingEngineError, EngineError: TensorRT is not installed, or refuses the graph.
            OSError: the disk is full.
        """
        gpu, _ = _gpu_or_reason()
        flavour = chosen_flavour(options, gpu)
        engine = load_engine(flavour)
        complaints = Complaints()
        fixed = source.input.batch
        batches = options.batches if fixed is None else BatchRange(fixed, fixed, fixed)
        start = time.perf_counter()
        with explained(f"build a plan of {source.name}", flavour, complaints, FIX), quiet_stderr():
            log = make_log(engine, complaints)
            builder = engine.Builder(log)
            network = builder.create_network(1 << int(engine.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
            parser = engine.OnnxParser(network, log)
            if not parser.parse_from_file(engine_path(source.model_path)):
                raise EngineError(
                    f"{TITLES[flavour]} {engine.__version__} cannot read the graph of {source.name}: "
                    f"{_parser_errors(parser) or complaints.text}",
                    fix=FIX,
                )
            config = builder.create_builder_config()
            (config.set_flag if options.allow_tf32 else config.clear_flag)(engine.BuilderFlag.TF32)
            if fixed is None:
                config.add_optimization_profile(_profile(builder, network, batches))
            targets = compute_capabilities(engine, source.precision) if flavour == RTX else ()
            _build_for(engine, config, targets)
            cache = _timing_cache(engine, gpu) if flavour == FULL and gpu is not None else None
            if cache is not None:
                config.set_timing_cache(config.create_timing_cache(read_cached(cache)), False)
            built = builder.build_serialized_network(network, config)
        if built is None:
            raise EngineError(
                f"{TITLES[flavour]} {engine.__version__} cannot build a plan of {source.name}: {complaints.text}",
                fix=FIX,
            )
        build_ms = (time.perf_counter() - start) * 1e3
        with target.model_path.open("wb") as file:
            file.write(memoryview(built))
        if cache is not None:
            write_cached(cache, bytes(config.get_timing_cache().serialize()))
        record = PlanRecord(
            flavour=flavour,
            version=engine.__version__,
            batches=batches,
            tf32=options.allow_tf32,
            compute_capabilities=targets if gpu is None or flavour == RTX else (gpu.compute_capability,),
            gpu=None if gpu is None else gpu.name,
            cuda=None if gpu is None else gpu.cuda,
            build_ms=build_ms,
        )
        return dataclasses.replace(
            target,
            options={**target.options, RECORD: record.to_dict()},
            producer={**target.producer, **versions(*self.libraries), flavour: engine.__version__},
        )

    def account(self, artifact: Artifact) -> str:
        """What built the plan, how long that took, and what for."""
        record = PlanRecord.of(artifact)
        return (
            f"built by {record.title} in {record.build_ms / 1e3:.1f} s for {record.built_for}, batches {record.batches}"
        )


def chosen_flavour(options: PlanOptions, gpu: Gpu | None) -> str:
    """The one that was asked for; else TensorRT where it is installed and a GPU is there, else TensorRT for RTX."""
    if options.flavour is not None:
        return options.flavour
    return FULL if gpu is not None and is_installed(FULL) else RTX


def compute_capabilities(engine: Any, precision: str = "") -> tuple[str, ...]:
    """Those that TensorRT for RTX builds for, of the GPUs that have the products of a precision if one is given."""
    names = (re.fullmatch(r"SM(\d+)(\d)", name) for name in engine.ComputeCapability.__members__)
    found = sorted((int(name[1]), int(name[2])) for name in names if name)
    least = AMPERE if precision not in ("", *OF_TURING) else (0, 0)
    return tuple(f"{major}.{minor}" for major, minor in found if (major, minor) >= least)


def _build_for(engine: Any, config: Any, capabilities: Sequence[str]) -> None:
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        config.set_compute_capability(getattr(engine.ComputeCapability, f"SM{capability.replace('.', '')}"), index)


def _refuse_other_gpu(gpu: Gpu, capabilities: Sequence[str], what: str) -> None:
    """Raise `EngineError` where a GPU is not among those of these compute capabilities."""
    if gpu.compute_capability not in capabilities:
        raise EngineError(
            f"{what} runs on GPUs of compute capability {', '.join(capabilities)}, and this is {gpu}",
            fix="build the plan with TensorRT for this GPU: --tensorrt full",
        )


def _gpu_or_reason() -> tuple[Gpu | None, str]:
    try:
        return find_gpu(), ""
    except EngineError as error:
        return None, error.message


def _profile(builder: Any, network: Any, batches: BatchRange) -> Any:
    images = network.get_input(0)
    profile = builder.create_optimization_profile()
    image = tuple(images.shape)[1:]
    profile.set_shape(images.name, *((batch, *image) for batch in (batches.least, batches.best, batches.most)))
    return profile


def _parser_errors(parser: Any) -> str:
    return "; ".join(" ".join(str(parser.get_error(index).desc()).split()) for index in range(parser.num_errors))


def _timing_cache(engine: Any, gpu: Gpu) -> Path:
    """How fast its kernels were on this GPU, so that a second build need not try them all again."""
    kind = re.sub(r"[^A-Za-z0-9.]+", "-", f"{engine.__version__}-{gpu.name}-{gpu.compute_capability}")
    return cache_folder() / "tensorrt-plans" / f"timing-{kind}.cache"
