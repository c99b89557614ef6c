"""Fine-tuned Keras models that are one ViT under a new head, and the layers they consist of.

A functional model or a sequence of exactly: inputs, one ViT without a head that gives one vector an image,
any number of Dropouts (which do nothing once trained), and one linear Dense. It computes what a ViT with a
head computes, and becomes that; everything else is an error that lists what stands in the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vit_deploy.core.choices import Pooling
from vit_deploy.errors import CheckpointError

REGISTERED = "vit_deploy>ViT"
HOUSES = ("Functional", "Sequential")
LINEAR = (None, "linear")
FOLDABLE = (
    "a model can be converted if it consists of InputLayer, one ViT with include_top=False and a pooling, "
    "Dropout, and one Dense without activation: build that with these weights and save it"
)
LOGITS = (
    "exported models give logits: set model.layers[-1].activation = keras.activations.linear, save the model "
    "again, and apply the activation to the outputs"
)


class FoldingError(CheckpointError):
    """A Keras model that is sound and is not one ViT under a linear head."""


@dataclass(frozen=True)
class Folded:
    """The two layers that count.

    Args:
        name: the name of the whole model.
        vit: the ViT as the file describes it.
        head: name of the Dense.
        num_classes: units of the Dense.
        use_bias: whether the Dense has a bias.
    """

    name: str
    vit: Mapping[str, Any]
    head: str
    num_classes: int
    use_bias: bool


def fold(document: Mapping[str, Any]) -> Folded:
    """The ViT and the head in the `config.json` of a functional model or a sequence.

    Raises:
        FoldingError: it holds anything else; the message names every layer that is in the way.
    """
    layers: list[Mapping[str, Any]] = document["config"]["layers"]
    vits = [layer for layer in layers if layer.get("registered_name") == REGISTERED]
    heads = [layer for layer in layers if _is_plain(layer, "Dense")]
    problems = [*_unexpected(layers), *_counted("ViT", vits), *_counted("Dense", heads)]
    problems += [problem for vit in vits for problem in _vit_problems(vit)]
    activated = [head for head in heads if head["config"]["activation"] not in LINEAR]
    problems += [f"{label(head)} has the activation {_named(head['config']['activation'])}" for head in activated]
    if not problems:
        problems += _order_problems(document, layers, vits[0], heads[0])
    if problems:
        only_activation = len(problems) == len(activated)
        raise FoldingError(
            f"it is not one ViT under a linear head: {'; '.join(problems)}",
            fix=LOGITS if only_activation else FOLDABLE,
        )
    head = heads[0]["config"]
    return Folded(document["config"]["name"], vits[0], head["name"], head["units"], head["use_bias"])


def label(layer: Mapping[str, Any]) -> str:
    """Class and name of a layer, for people."""
    return f"{layer.get('registered_name') or layer['class_name']} {layer['config'].get('name', '')!r}"


def _is_plain(layer: Mapping[str, Any], kind: str) -> bool:
    own = layer.get("registered_name") in (None, kind)  # somebody's own class of that name is registered with a package
    return own and layer["class_name"] == kind and str(layer.get("module")).split(".")[0] == "keras"


def _unexpected(layers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for layer in layers:
        if layer.get("registered_name") == REGISTERED or any(
            _is_plain(layer, kind) for kind in ("InputLayer", "Dropout", "Dense")
        ):
            continue
        code = ", which is code from the file and is not run" if layer["class_name"] == "Lambda" else ""
        yield f"{label(layer)} is a layer of another kind{code}"


def _counted(kind: str, layers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not layers:
        yield f"it has no {kind}"
    elif len(layers) > 1:
        yield f"it has {len(layers)} of {kind}: {', '.join(map(label, layers))}"


def _vit_problems(vit: Mapping[str, Any]) -> Iterator[str]:
    if vit["config"].get("include_top", True):
        yield f"{label(vit)} has a head of its own (include_top=True)"
    elif vit["config"].get("pooling") not in list(Pooling):
        yield f"{label(vit)} has pooling={vit['config'].get('pooling')!r} and gives a sequence"


def _named(activation: object) -> str:
    if isinstance(activation, Mapping):
        return repr(activation.get("registered_name") or activation.get("class_name"))
    return repr(activation)


def _order_problems(
    document: Mapping[str, Any],
    layers: Sequence[Mapping[str, Any]],
    vit: Mapping[str, Any],
    head: Mapping[str, Any],
) -> Iterator[str]:
    if document["class_name"] == "Sequential":
        chain = list(layers)
    else:
        problems: list[str] = []
        chain = _chain(document["config"], problems)
        chain.reverse()
        yield from problems
        if problems:
            return
    aside = [layer for layer in layers if not any(layer is one for one in chain)]
    yield from (f"{label(layer)} is not between the input and the output" for layer in aside)
    if not aside and _position(chain, vit) > _position(chain, head):
        yield f"{label(head)} comes before {label(vit)}"


def _position(chain: Sequence[Mapping[str, Any]], layer: Mapping[str, Any]) -> int:
    return next(index for index, one in enumerate(chain) if one is layer)


def _chain(config: Mapping[str, Any], problems: list[str]) -> list[Mapping[str, Any]]:
    """The layers from the output back to the input; what makes it no chain goes to `problems`."""
    outputs = config["output_layers"]
    names = [outputs[0]] if isinstance(outputs[0], str) else [output[0] for output in outputs]
    if len(names) != 1:
        problems.append(f"it has {len(names)} outputs")
    by_name = {layer["config"]["name"]: layer for layer in config["layers"]}
    chain: list[Mapping[str, Any]] = []
    while len(chain) < len(by_name):
        layer = by_name[names[0]]
        chain.append(layer)
        if _is_plain(layer, "InputLayer"):
            return chain
        nodes = layer["inbound_nodes"]
        if len(nodes) != 1:
            problems.append(f"{label(layer)} is called {len(nodes)} times")
            return chain
        if nodes[0]["kwargs"].get("training"):
            problems.append(f"{label(layer)} is called with training=True")
        names = list(_inputs([nodes[0]["args"], nodes[0]["kwargs"]]))
        if len(names) != 1:
            problems.append(f"{label(layer)} is called with {len(names)} tensors")
            return chain
    problems.append("its layers form a loop")
    return chain


def _inputs(value: Any) -> Iterator[str]:
    """Names of the layers that the tensors anywhere in the arguments of a call come from."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            yield value["config"]["keras_history"][0]
            return
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _inputs(part)
