"""ONNX Runtime's plugin for Qualcomm's Hexagon tensor processor (HTP) as the runtime of ONNX artifacts.

Nothing falls back to the CPU unseen: an operator that the processor does not take is an error. Where there is no such
processor the plugin's own library emulates one, operator by operator in its numbers: good for verdicts, not for times.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort
import onnxruntime_qnn

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.engine_paths import engine_path
from vit_deploy.core.hexagon import EMULATED, PROVIDER, Chip, chip_of, providers
from vit_deploy.core.stderr import stdout_to_stderr
from vit_deploy.errors import EngineError
from vit_deploy.formats.onnx.file import refuse_outside_data
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.ort.errors import explained, opening, setting_of
from vit_deploy.runtimes.ort.placement import RECORD
from vit_deploy.runtimes.ort.sessions import OnnxSession

QNN, CPU = "QNNExecutionProvider", "CPUExecutionProvider"
BATCH = "batch"  # what our files call their open side
DATA_FOLDER = "session.model_external_initializers_file_folder_path"
CONTEXT = {"ep.context_enable": "1", "ep.context_embed_mode": "1"}
SILENT = 4  # the log level above which ONNX Runtime writes nothing
MOST_NAMES = 8
CONVERSIONS = ("(QuantizeLinear)", "(DequantizeLinear)")
# Numbers become integers at the edges on the processor too, so that the whole graph is there.
EDGES = {"offload_graph_io_quantization": "0"}
FIX = "export it in a precision that the chip takes (--for qnn --precision fp16, int16x8 or int8-static), or run it "
FIX += "with --runtime onnxruntime"


class Qnn:
    """The Hexagon tensor processor, or an emulated one."""

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[OnnxSession]:
        """Load an artifact; one of an open batch is compiled for one image.

        Raises:
            EngineError: a file of which the processor does not take every operator, whose weights lie outside the
                artifact, or that is for images of any size; or a provider that is not there.
        """
        with opened(artifact, options) as session:
            yield session

    def write_context(self, artifact: Artifact, chip: Chip, path: Path) -> tuple[int, bool]:
        """Write an artifact's graph as the program of a chip, inside of an ONNX file.

        Args:
            artifact: the artifact to compile.
            chip: that it is compiled for.
            path: of the new file.

        Returns:
            How many operators the chip has taken, and whether a chip is emulated here.

        Raises:
            EngineError: it does not take all of them.
        """
        device, emulated = _device()
        entries = {**CONTEXT, "ep.context_file_path": engine_path(path)}
        return _placed(_engine(artifact, device, chip, None, entries), artifact, chip), emulated


@contextlib.contextmanager
def opened(artifact: Artifact, options: RuntimeOptions) -> Iterator[OnnxSession]:
    """A session of which every operator is on the processor.

    Args:
        artifact: the artifact to load.
        options: the requested options.
    """
    device, emulated = _device()
    chip = _chip(options.provider or PROVIDER, emulated=emulated)
    engine = _engine(artifact, device, chip, None, {})
    placed = _placed(engine, artifact, chip)
    spec = artifact.input
    fixed = dataclasses.replace(artifact, input=dataclasses.replace(spec, shape=(spec.batch or 1, *spec.shape[1:])))
    session = OnnxSession(engine, fixed, EMULATED if emulated else PROVIDER)
    session.placement = {session.provider: placed}
    if chip is not None:
        session.notes = (f"{chip.in_words} is emulated on this processor: its answers count, times do not",)
    try:
        yield session
    finally:
        session.close()


@contextlib.contextmanager
def compiled(artifact: Artifact, options: RuntimeOptions, model: bytes) -> Iterator[Any]:
    """ONNX Runtime's session of another form of an artifact's model, whose operators are all on the processor.

    Args:
        artifact: the artifact.
        options: the requested options.
        model: a model with its input, and with its weights, which may lie beside the artifact's own.
    """
    device, emulated = _device()
    chip = _chip(options.provider or PROVIDER, emulated=emulated)
    engine = _engine(artifact, device, chip, model, {DATA_FOLDER: engine_path(artifact.model_path.parent.resolve())})
    _placed(engine, artifact, chip, but=CONVERSIONS)
    with explained(f"run {artifact.model_path}", setting_of(PROVIDER)):
        yield engine


def _engine(artifact: Artifact, device: Any, chip: Chip | None, model: bytes | None, entries: Mapping[str, str]) -> Any:
    """ONNX Runtime's session of an artifact's file, or of a model in memory; an open batch is one image."""
    if artifact.is_for_any_size:
        raise EngineError(
            f"{artifact.path} is for images of any size, and Hexagon's compiler takes sizes that are known",
            fix="export it for one size",
        )
    refuse_outside_data(artifact.model_path)
    settings = ort.SessionOptions()
    settings.log_severity_level = SILENT
    for name, value in {RECORD: "1", **entries}.items():
        settings.add_session_config_entry(name, value)
    settings.add_free_dimension_override_by_name(BATCH, artifact.input.batch or 1)
    chosen = {"backend_path": onnxruntime_qnn.get_qnn_htp_path(), **EDGES}
    chosen |= {"soc_model": str(chip.number)} if chip is not None else {}
    settings.add_provider_for_devices([device], chosen)
    doing = f"compile {artifact.model_path} for {_in_words(chip)}"
    # Qualcomm's library greets on stdout, which is for results.
    with opening(doing, setting_of(PROVIDER), fix=_fix(artifact, chip)), stdout_to_stderr():
        return ort.InferenceSession(engine_path(artifact.model_path) if model is None else model, settings)


def _placed(engine: Any, artifact: Artifact, chip: Chip | None, but: tuple[str, ...] = ()) -> int:
    """How many operators the processor has.

    Raises:
        EngineError: it does not have all of them, but for those of some kinds.
    """
    assigned = _assigned(engine)
    left = [name for provider, names in assigned.items() if provider != QNN for name in names]
    if any(not name.endswith(but) if but else True for name in left):
        count = sum(map(len, assigned.values()))
        raise EngineError(
            f"{_in_words(chip)} does not take {len(left)} of {count} operators of {artifact.model_path}: "
            f"{_shown(left)}",
            fix=_fix(artifact, chip),
        )
    return len(assigned.get(QNN, ()))


def _in_words(chip: Chip | None) -> str:
    return "this computer's Hexagon processor" if chip is None else chip.in_words


def _device() -> tuple[Any, bool]:
    """The processor to compile for, and whether it is emulated."""
    with opening("load the library of Hexagon processors", setting_of(PROVIDER)):
        if not any(device.ep_name == QNN for device in ort.get_ep_devices()):
            ort.register_execution_provider_library(QNN, onnxruntime_qnn.get_library_path())
        found = [device for device in ort.get_ep_devices() if device.ep_name == QNN]
    real = [device for device in found if device.device.type == ort.OrtHardwareDeviceType.NPU]
    if not found:
        raise EngineError(
            f"onnxruntime-qnn {onnxruntime_qnn.__version__} offers no device here", fix="vit-deploy doctor says more"
        )
    return (real or found)[0], not real


def _chip(provider: str, *, emulated: bool) -> Chip | None:
    """The chip to emulate; None on a real one, which is known."""
    if provider not in providers():
        raise EngineError(
            f"QNN is not run with the provider {provider!r} here", fix=f"choose one of {', '.join(providers())}"
        )
    if emulated:
        return chip_of(provider)
    if provider != PROVIDER:
        raise EngineError(
            f"{chip_of(provider).in_words} would be emulated, and this computer has a Hexagon processor of its own",
            fix=f"run with --provider {PROVIDER}",
        )
    return None


def _assigned(engine: Any) -> dict[str, list[str]]:
    """Names of operators, with their kind, by the full name of their provider."""
    found: dict[str, list[str]] = {}
    for part in engine.get_provider_graph_assignment_info():
        found.setdefault(part.ep_name, []).extend(f"{node.name} ({node.op_type})" for node in part.get_nodes())
    return found


def _shown(names: Sequence[str]) -> str:
    """Names of operators, those first that compute something."""
    computing = [name for name in names if not name.endswith(CONVERSIONS)]
    shown = [*computing, *(name for name in names if name not in computing)][:MOST_NAMES]
    return ", ".join(shown) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def _fix(artifact: Artifact, chip: Chip | None) -> str:
    floats = artifact.precision in ("fp32", "fp16", "bf16")
    if chip is not None and not chip.has_floats and floats:
        return (
            f"{chip.in_words} computes in integers alone: export it with --for qnn --precision int16x8 or int8-static"
        )
    return FIX
