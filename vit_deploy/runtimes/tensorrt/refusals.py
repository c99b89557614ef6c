"""Plans that are refused before they are loaded: built for other options, another version or another GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vit_deploy.errors import EngineError
from vit_deploy.formats.tensorrt_plan import PROVIDERS, TITLES, PlanRecord
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.cuda.memory import Gpu

AGAIN = "export the model again with --format tensorrt on the machine that runs it"
GPU = "cuda"  # the provider that one asks for who means the GPU, whatever uses it
RELEASE = 3  # numbers of a version that a plan is tied to; the fourth counts builds


def refuse_options(record: PlanRecord, options: RuntimeOptions, path: Path) -> None:
    """Refuse a provider or a rounding that the plan was not built for."""
    provider = PROVIDERS[record.flavour]
    if options.provider not in (None, GPU, provider):
        raise EngineError(
            f"{path} was built by {TITLES[record.flavour]}, and is not run with the provider {options.provider!r}",
            fix=f"leave --provider out, or give {provider}",
        )
    if record.tf32 and not options.allow_tf32:
        raise EngineError(
            f"{path} was built with TF32 allowed, which rounds factors of fp32 products, and this run allows none",
            fix="add --allow-tf32, or export the plan again without it",
        )


def refuse_foreign(record: PlanRecord, version: str, gpu: Gpu, path: Path) -> None:
    """Refuse a plan of another version or GPU: its manifest says so in plainer words than TensorRT."""
    if record.version.split(".")[:RELEASE] != version.split(".")[:RELEASE]:
        title = TITLES[record.flavour]
        raise EngineError(
            f"{path} was built by {title} {record.version}, and {title} {version} is installed, which reads plans of "
            "only its own version",
            fix=f"{AGAIN}, or install {title} {record.version}",
        )
    if gpu.compute_capability not in record.compute_capabilities:
        raise EngineError(f"{path} was built for {record.built_for}, and this is {gpu}", fix=AGAIN)


def refuse_invalid(engine: Any, runtime: Any, content: bytes, path: Path) -> None:
    """Refuse what TensorRT for RTX says is invalid, without loading it."""
    if not hasattr(runtime, "get_engine_validity"):
        return
    validity, bits = runtime.get_engine_validity(content)
    if validity != engine.EngineValidity.INVALID:
        return
    kinds = engine.EngineInvalidityDiagnostics.__members__
    found = [name.lower().replace("_", " ") for name, kind in kinds.items() if int(bits) & int(kind)]
    if found:  # else loading it says why
        raise EngineError(f"{path} cannot be run here: {', '.join(found)}", fix=AGAIN)
