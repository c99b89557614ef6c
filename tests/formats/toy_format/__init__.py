"""A format of another distribution: a zip of arrays that NumPy runs."""

from vit_deploy.core.format import FP32, Format, RuntimeEntry, Target
from vit_deploy.core.registry import Plugin

TOY = Format(
    name="toy",
    title="Toy",
    noun="a .toy file",
    kind="file",
    model_files=("model.toy",),
    runtimes=(
        RuntimeEntry("toy-numpy", Plugin("toy_format.engine:ToyRuntime"), not_profiled="NumPy's calls are not timed"),
    ),
    suffixes=(".toy",),
    read_graph=Plugin("toy_format.files:read_graph"),
    read_weights=Plugin("toy_format.files:read_weights"),
    precisions={Target.CPU: (FP32,)},
    exporter=Plugin("toy_format.files:ToyExporter"),
)
