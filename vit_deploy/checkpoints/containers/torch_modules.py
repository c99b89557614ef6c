"""What a pickled module says of its function besides its tensors: heads, epsilon and activation, as attributes.

A state dict does not have them. They are taken where all modules of a model agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vit_deploy.checkpoints.containers.torch_pickle import Inert
from vit_deploy.core.config import Activation, is_count

HEADS = ("num_heads", "num_attention_heads")
GATED = ("glu", "swi")  # in names of classes whose activation is another thing
ACTIVATIONS: Mapping[str, Activation] = {
    **dict.fromkeys(("GELU", "GELUActivation"), Activation.GELU),
    **dict.fromkeys(("GELUTanh", "PytorchGELUTanh", "NewGELUActivation", "FastGELUActivation"), Activation.GELU_TANH),
    **dict.fromkeys(("QuickGELU", "QuickGELUActivation"), Activation.QUICK_GELU),
    **dict.fromkeys(("SiLU", "Swish", "SiLUActivation"), Activation.SILU),
    "ReLU": Activation.RELU,
}
"""By the name of the class, without its module."""


def facts_of(modules: Iterable[Inert]) -> dict[str, Any]:
    """Fields of the config that all of these modules agree in."""
    heads: set[int] = set()
    epsilons: set[float] = set()
    activations: set[str] = set()
    for module in modules:
        attributes = module.attributes
        name = module.name.rpartition(".")[2]
        heads |= {value for key in HEADS if is_count(value := attributes.get(key)) and value > 0}
        if name.endswith("Norm") and isinstance(attributes.get("eps"), float):
            epsilons.add(attributes["eps"])
        if any(each in name.lower() for each in GATED):
            activations |= {"", name}
        if name in ACTIVATIONS:
            tanh = attributes.get("approximate") == "tanh"
            activations.add(str(Activation.GELU_TANH if tanh else ACTIVATIONS[name]))
    found: dict[str, set[Any]] = {"num_heads": heads, "epsilon": epsilons, "activation": activations}
    return {field: next(iter(values)) for field, values in found.items() if len(values) == 1}
