"""TFLite files read without any engine."""

from __future__ import annotations

from vit_deploy.formats.tflite.graph import input_quantization, read_graph, weight_types

__all__ = ["input_quantization", "read_graph", "weight_types"]
