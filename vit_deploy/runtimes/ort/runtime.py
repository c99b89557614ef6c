"""ONNX Runtime as the runtime of ONNX artifacts."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from vit_deploy.core.artifact import Artifact
from vit_deploy.errors import EngineError
from vit_deploy.formats.onnx.file import refuse_outside_data
from vit_deploy.runtimes import ON_GPUS_ALONE, RuntimeOptions
from vit_deploy.runtimes.ort.sessions import PROVIDERS, OnnxSession, loaded

CPU = "cpu"


class OnnxRuntime:
    """ONNX Runtime, on the CPU unless another provider is requested."""

    def prepare(self, options: RuntimeOptions = RuntimeOptions()) -> None:
        """Load what a provider needs and open its device; see `runtimes.DeviceRuntime`.

        Raises:
            EngineError: a provider or a device that is not there, with the reason.
        """
        provider = _checked_provider(options)
        if provider != CPU:
            from vit_deploy.runtimes.ort import gpus  # a machine without one goes without

            gpus.prepare(provider, options.device)

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[OnnxSession]:
        """Load an artifact.

        Raises:
            EngineError: a file that ONNX Runtime refuses or whose weights lie outside the artifact, or a provider or a
                device that is not there.
        """
        if options.provider is None and artifact.precision == ON_GPUS_ALONE:
            options = dataclasses.replace(options, provider="cuda")
        provider = _checked_provider(options)
        if provider == CPU:
            refuse_outside_data(artifact.model_path)
            with loaded(artifact, options, lambda engine: OnnxSession(engine, artifact, provider)) as session:
                yield session
            return
        from vit_deploy.runtimes.ort import gpus

        with gpus.opened(artifact, options, provider) as on_device:
            yield on_device


def _checked_provider(options: RuntimeOptions) -> str:
    """The provider that is requested, by its short name.

    Raises:
        EngineError: there is no such provider, or none that records a CUDA graph.
    """
    provider = options.provider or CPU
    if provider not in PROVIDERS:
        raise EngineError(f"ONNX Runtime has no provider {provider!r}", fix=f"choose one of {', '.join(PROVIDERS)}")
    if options.cuda_graph and provider == CPU:
        raise EngineError(
            f"a CUDA graph is recorded on a GPU, and the provider is {provider}",
            fix="add --provider cuda, or leave --cuda-graph out",
        )
    return provider
