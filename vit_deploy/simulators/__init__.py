"""Processors that are not here, by name, as the runtimes that compute as they would."""

from __future__ import annotations

from vit_deploy.plugins import Plugin, Registry

NO_VNNI = "no-vnni"

SIMULATORS = Registry(
    "processor to simulate",
    {NO_VNNI: Plugin("vit_deploy.simulators.onnx_no_vnni:OnnxWithoutVnni", extra="cpu", needs=("onnx",))},
)

FORMATS: dict[str, tuple[str, ...]] = {NO_VNNI: ("onnx",)}
"""The formats whose engine computes otherwise on such a processor."""
