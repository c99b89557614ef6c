"""A session of ONNX Runtime whose images and outputs stay on a device."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.runtimes import infer_on_device
from vit_deploy.runtimes.batching import groups, groups_within, joined
from vit_deploy.runtimes.ort.recording import RECORDING
from vit_deploy.runtimes.ort.sessions import OnnxSession
from vit_deploy.runtimes.values import as_stored, checked_images

Array = NDArray[Any]

DO_NOT_WAIT = "disable_synchronize_execution_providers"  # a run option: it returns once the device has been asked


@dataclass(frozen=True)
class Place:
    """Where the images of a call lie on a device, bound to the model; its outputs are bound as well.

    Args:
        binding: the I/O binding of ONNX Runtime.
        images: its input.
        shape: the shape of the input.
        options: the options of a run that ends when the device is done; None for the usual ones.
        asking: the options of a run that returns before the device is done.
    """

    binding: Any
    images: Any
    shape: tuple[int, ...]
    options: Any
    asking: Any


class OnnxDeviceSession(OnnxSession):
    """One loaded ONNX file whose inputs and outputs stay on a device until they are requested.

    Its steps are for one thread; `infer` is whole, whatever other threads call.

    Args:
        engine: the session of ONNX Runtime.
        artifact: that it has loaded.
        provider: that runs it.
        device: index of the GPU.
        memory: what ONNX Runtime calls the device's.
        most: images that one run takes, of a file that takes any number; None for any number.
    """

    trial_ns = 0
    build_ns = 0

    def __init__(
        self, engine: Any, artifact: Artifact, provider: str, device: int, memory: str, most: int | None = None
    ) -> None:
        super().__init__(engine, artifact, provider, device)
        self._device, self._memory, self._most = device, memory, most
        self._places: list[Place] = []
        self._count = 0
        self._asked = False  # whether the device may still be at work
        self._whole = threading.Lock()

    def infer(self, images: Array) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        with self._whole:
            return infer_on_device(self, images)

    def infer_outputs(self, images: Array) -> dict[str, NDArray[np.float32]]:
        """Every recorded output by its name, copied to the host; see `runtimes.NamedSession`."""
        with self._whole, RECORDING:
            return super().infer_outputs(images)

    def upload(self, images: Array) -> None:
        """Copy images to the device; see `runtimes.DeviceSession`."""
        spec = self._artifact.input
        checked = checked_images(images, self._artifact)
        parts = groups(checked, spec.batch) if self._most is None else groups_within(checked, 1, self._most)
        stored = [as_stored(part, spec) for part in parts]
        self.wait()  # for what still reads the images before these
        with self._copying_images, RECORDING:
            self._put(stored)
        self._count = len(images)

    def compute(self) -> None:
        """Run the model on what was uploaded last, to the end."""
        if len(self._places) == 1:  # a run waits only for its own work, not for that of other sessions
            with self._running:
                self._call(self._places[0], self._places[0].options)
        else:
            self.launch()
            self.wait()

    def launch(self) -> None:
        """Ask the device to run the model on what was uploaded last; see `runtimes.DeviceSession`."""
        with self._running:
            self._asked = True
            for place in self._places:
                self._call(place, place.asking)

    def wait(self) -> None:
        """Return when the device has finished; it is waited for once, with all that other sessions asked of it."""
        if self._asked:
            with self._running, RECORDING:
                self._places[-1].binding.synchronize_outputs()
            self._asked = False

    def download(self) -> NDArray[np.float32]:
        """Copy the outputs of the last `compute` to the host."""
        self.wait()
        with self._copying_outputs, RECORDING:
            outputs = [place.binding.copy_outputs_to_cpu()[0] for place in self._places]
        return np.asarray(joined(outputs, self._count), np.float32)

    def close(self) -> None:
        """Free the engine, its weights, and what lies on the device."""
        with RECORDING:
            self._forget()
            super().close()

    def _forget(self) -> None:
        self._places = []

    def _put(self, stored: Sequence[Array]) -> None:
        """Fill the places on the device, again where others are needed."""
        if [place.shape for place in self._places] == [part.shape for part in stored]:
            for place, part in zip(self._places, stored, strict=True):
                place.images.update_inplace(part)
        else:
            self._places = []  # their memory is needed
            self._places = [self._placed(part) for part in stored]

    def _placed(self, stored: Array) -> Place:
        binding, images = self._engine.io_binding(), self._on_device(stored)
        binding.bind_ortvalue_input(self._artifact.input.name, images)
        binding.bind_output(self._artifact.output_name, self._memory, self._device)
        return Place(binding, images, stored.shape, None, run_options(**{DO_NOT_WAIT: "1"}))

    def _on_device(self, stored: Array) -> Any:
        return ort.OrtValue.ortvalue_from_numpy(stored, self._memory, self._device)

    def _call(self, place: Place, options: Any) -> None:
        with RECORDING:
            self._engine.run_with_iobinding(place.binding, options)


def run_options(**entries: str) -> Any:
    """Options of one run."""
    options = ort.RunOptions()
    for key, value in entries.items():
        options.add_run_config_entry(key, value)
    return options
