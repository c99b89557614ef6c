"""What ONNX Runtime raises, told as an `EngineError`."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from vit_deploy.core import engine_errors
from vit_deploy.core.engine_errors import Reason
from vit_deploy.core.stderr import Captured, quiet_stderr
from vit_deploy.errors import EngineError
from vit_deploy.runtimes.ort.reasons import Setting, cleaned, known_reason

USUAL_FIX = "export the model again, or check the installation with vit-deploy doctor"

# They have no base class of their own; the last of them came with later versions.
NATIVE_ERRORS: tuple[type[Exception], ...] = (
    native.EngineError,
    native.EPFail,
    native.Fail,
    native.InvalidArgument,
    native.InvalidGraph,
    native.InvalidProtobuf,
    native.ModelLoaded,
    native.NoModel,
    native.NoSuchFile,
    native.NotImplemented,
    native.RuntimeException,
    UnicodeDecodeError,  # its message quotes a name of a damaged file
    *(
        getattr(native, name)
        for name in ("DeviceReset", "ModelLoadCanceled", "ModelRequiresCompilation", "NotFound")
        if hasattr(native, name)
    ),
)
# What providers, bindings and values on a device raise is often C++'s std::runtime_error as it is.
DEVICE_ERRORS: tuple[type[Exception], ...] = (*NATIVE_ERRORS, RuntimeError, ValueError)


def setting_of(provider: str, device: int = 0) -> Setting:
    """A provider of the installed ONNX Runtime, with the CUDA that it was built with."""
    return Setting(provider, device, str(getattr(ort, "cuda_version", "") or ""))


def explained(doing: str, setting: Setting, *, fix: str = USUAL_FIX) -> engine_errors.explained:
    """A block in which ONNX Runtime's errors become ours; one can be entered again and again, by any thread.

    Args:
        doing: completes "ONNX Runtime cannot …".
        setting: the setting; on the CPU, other errors than its own are bugs of ours and stay as they are.
        fix: the fix where no usual reason is found.
    """
    return engine_errors.explained(
        f"ONNX Runtime {ort.__version__} cannot {doing}",
        NATIVE_ERRORS if setting.provider == "cpu" else DEVICE_ERRORS,
        fix,
        words=lambda error: _first_line(str(error)),
        reason=lambda error: known_reason(str(error), setting),
    )


@contextlib.contextmanager
def opening(doing: str, setting: Setting, *, heard: str = "", fix: str = USUAL_FIX) -> Iterator[Captured]:
    """The same for what is done once, with all that is printed meanwhile kept from the user and looked at for reasons.

    Args:
        doing: completes "ONNX Runtime cannot …".
        setting: the setting in which the work is done.
        heard: what was written before.
        fix: the fix where no usual reason is found.
    """
    printed, noise = io.StringIO(), Captured()
    try:
        with quiet_stderr() as noise, contextlib.redirect_stdout(printed):  # in this order threads take turns at both
            yield noise
    except DEVICE_ERRORS as error:
        if setting.provider == "cpu" and not isinstance(error, NATIVE_ERRORS):
            raise
        raise failure(
            doing, setting, str(error), heard=f"{printed.getvalue()}\n{noise.text}\n{heard}", fix=fix
        ) from error


def failure(doing: str, setting: Setting, raised: str, *, heard: str = "", fix: str = USUAL_FIX) -> EngineError:
    """What to raise of a failure.

    Args:
        doing: completes "ONNX Runtime cannot …".
        setting: the setting in which it happened.
        raised: the error's own text, or what else is to be said where no usual reason is found.
        heard: what was written before.
        fix: the fix where no usual reason is found.
    """
    reason = known_reason(f"{raised}\n{heard}", setting) or Reason(_first_line(raised), fix)
    return EngineError(f"ONNX Runtime {ort.__version__} cannot {doing}: {reason.words}", fix=reason.fix)


def _first_line(text: str) -> str:
    return next(iter(cleaned(text).splitlines()), text.strip())
