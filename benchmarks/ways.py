"""Which ways from a model to a file are compared, and what does each of them take?"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from benchmarks.sizes import Size
from vit_deploy.core.child_processes import python


@dataclass(frozen=True)
class Way:
    """One way to a file that an engine runs.

    Args:
        name: short, for files and options.
        label: for tables.
        runtime: that runs the file: "onnxruntime" or "litert".
        ours: whether it is `vit-deploy export`, whose result is an artifact.
        needs: modules that have to be installed.
        after: the way whose file this one works on; its time is its own alone.
        layout: of the file's input.
    """

    name: str
    label: str
    runtime: str
    ours: bool = False
    needs: tuple[str, ...] = ()
    after: str | None = None
    layout: str = "nhwc"

    @property
    def suffix(self) -> str:
        """Of the file."""
        return ".onnx" if self.runtime == "onnxruntime" else ".tflite"

    def missing(self) -> list[str]:
        """Modules it needs that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]

    def target(self, folder: Path) -> Path:
        """The artifact, or the file, that the way writes."""
        if self.ours:
            return folder / self.name / f"{'onnx' if self.runtime == 'onnxruntime' else 'tflite'}-fp32"
        return folder / f"{self.name}{self.suffix}"

    def command(self, size: Size, folder: Path) -> list[str]:
        """What is run, as a whole process, to write `target(folder)`."""
        if self.ours:
            format = "onnx" if self.runtime == "onnxruntime" else "tflite"
            options = ["--format", format, "-o", str(folder / self.name), "--force", "--json", "--quiet"]
            return python("-m", "vit_deploy", "export", *size.arguments, *options)
        command = python("-m", "benchmarks.peers", self.name, size.name, str(self.target(folder)))
        return command if self.after is None else [*command, str(WAYS[self.after].target(folder))]


_TORCH = ("torch", "timm", "onnx", "onnxscript")

WAYS = {
    way.name: way
    for way in (
        Way("vit-deploy-onnx", "vit-deploy", "onnxruntime", ours=True, needs=("tensorflow", "tf2onnx", "onnxruntime")),
        Way("vit-deploy-tflite", "vit-deploy", "litert", ours=True, needs=("tensorflow", "ai_edge_litert")),
        Way("keras-onnx", 'Keras `model.export(format="onnx")`', "onnxruntime", needs=("tensorflow", "tf2onnx")),
        Way("keras-litert", 'Keras `model.export(format="litert")`', "litert", needs=("tensorflow",)),
        Way(
            "timm-script",
            "timm, `torch.onnx.export(dynamo=False)`",
            "onnxruntime",
            needs=_TORCH,
            layout="nchw",
        ),
        Way("timm-dynamo", "timm, `torch.onnx.export(dynamo=True)`", "onnxruntime", needs=_TORCH, layout="nchw"),
        Way(
            "timm-script-optimized",
            "… `dynamo=False`, then onnxruntime's transformer optimizer",
            "onnxruntime",
            needs=_TORCH,
            after="timm-script",
            layout="nchw",
        ),
        Way(
            "timm-dynamo-optimized",
            "… `dynamo=True`, then onnxruntime's transformer optimizer",
            "onnxruntime",
            needs=_TORCH,
            after="timm-dynamo",
            layout="nchw",
        ),
    )
}
