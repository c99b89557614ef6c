"""The places of the weights of keras-hub's image towers in an HDF5 file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from vit_deploy.checkpoints.gathering import Origin, zeros
from vit_deploy.checkpoints.keras.keras_hub_names import ROLES, by_path
from vit_deploy.checkpoints.keras.parts import Parts, first, reshaped
from vit_deploy.checkpoints.keras.source import STATES
from vit_deploy.core.choices import FFNType, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.weights import weight_specs


@dataclass(frozen=True)
class Layout:
    """The paths to the parts of one family, from the top of a tower or from a block.

    Args:
        snake: how Keras begins the names of its layers.
        embedding: what follows, for the token embedding.
        patches: the name of the convolution within it.
        block: what follows `snake`, for the first block; those after it have a number.
        norms: the names of a block's norms.
        attention: the name of a block's attention.
        up: first Dense of the feed-forward.
        down: second Dense of the feed-forward.
        around: paths of the norms before the blocks and after them, where the tower has them.
    """

    snake: str
    embedding: str
    patches: str
    block: str
    norms: tuple[str, str]
    attention: str
    up: str
    down: str
    around: Mapping[str, str]


_CLIP = Layout(
    snake="clip",
    embedding="_vision_embedding",
    patches="patch_embedding",
    block="_encoder_layer",
    norms=("layer_norm_1", "layer_norm_2"),
    attention="attention",
    up="dense_1",
    down="dense_2",
    around={"pre_norm": "layer_normalization", "norm": "layer_normalization_1"},
)
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "DINOV3": Layout(
            snake="dinov3",
            embedding="_embedding",
            patches="patch_embeddings.projection",
            block="_encoder.dinov3_layer",
            norms=("norm1", "norm2"),
            attention="attention",
            up="mlp.up_proj",
            down="mlp.down_proj",
            around={"norm": "layer_normalization"},
        ),
        "CLIP": _CLIP,
        "MetaCLIP2": Layout(
            snake="meta_clip2",
            embedding=_CLIP.embedding,
            patches=_CLIP.patches,
            block=_CLIP.block,
            norms=_CLIP.norms,
            attention=_CLIP.attention,
            up=_CLIP.up,
            down=_CLIP.down,
            around={"pre_norm": "layer_normalization"},
        ),
        "SigLIP": Layout(
            snake="sig_lip",
            embedding=_CLIP.embedding,
            patches=_CLIP.patches,
            block=_CLIP.block,
            norms=("layer_norm1", "layer_norm2"),
            attention="self_attn",
            up="mlp.fc1",
            down="mlp.fc2",
            around={"norm": "layer_normalization"},
        ),
    }
)
GATE = "mlp.gate_proj"  # of DINOv3's gated feed-forward
POOLING = "_multi_head_attention_pooling"  # of SigLIP
PROJECTION, POOLED_NORM = "dense", "layer_normalization"  # of the image, in a model of images and texts


@dataclass(frozen=True)
class Places:
    """Where the variables of a tower are.

    Args:
        layout: of its family.
        inside: names of the tower's variables, by their paths with dots.
        around: names of those of the model around it that are about images, likewise.
        beside: names of all others.
    """

    layout: Layout
    inside: Mapping[str, str]
    around: Mapping[str, str]
    beside: tuple[str, ...]

    @property
    def embedding(self) -> str:
        """The path of the token embedding."""
        return f"{self.layout.snake}{self.layout.embedding}"

    def named(self, path: str) -> list[str]:
        """The name of the variable at a path, or none."""
        return [self.inside[path]] if path in self.inside else []

    @property
    def rows(self) -> str | None:
        """The name of the variable that says which row of the position table each token has; None without one."""
        class_token = LAYOUTS["SigLIP"] is not self.layout
        return self.inside.get(f"{self.embedding}.{int(class_token)}")


def places_in(names: Iterable[str], family: str, *, whole: bool) -> Places:
    """Where the variables of a file are.

    Args:
        names: of the file.
        family: key of `LAYOUTS`.
        whole: whether the tower stands in a model of images and texts.

    Raises:
        CheckpointError: two variables at the same path.
    """
    layout = LAYOUTS[family]
    stored = [name for name in names if not STATES & set(name.split("/"))]
    if not whole:
        return Places(layout, by_path(stored), {}, ())
    tower = f"layers/{layout.snake}_vision_encoder/"
    of_images = {PROJECTION} | ({POOLED_NORM} if "norm" not in layout.around else set())
    top = {name: name.removeprefix("layers/").partition("/")[0] for name in stored if not name.startswith(tower)}
    inside = {path: tower + name for path, name in by_path(_without(tower, stored)).items()}
    around = by_path(name for name, part in top.items() if part in of_images)
    return Places(layout, inside, around, tuple(name for name, part in top.items() if part not in of_images))


def _without(start: str, names: Iterable[str]) -> list[str]:
    return [name.removeprefix(start) for name in names if name.startswith(start)]


def origins(
    places: Places, config: ViTConfig, without: Collection[str] = (), rows: NDArray[np.uint32] | None = None
) -> dict[str, Origin]:
    """Where each weight comes from.

    Args:
        places: the result of `places_in`.
        config: the config of the tower.
        without: parts of every block that have no bias: `attention.key`, `ffn.up`.
        rows: which row of the position table each token has; None where they are in order.
    """
    table, layout = Parts(places.inside), places.layout
    _embedding(table, places, config, rows)
    for canonical, path in layout.around.items():
        _norm(table, canonical, path)
    for index in range(config.num_layers):
        block = f"block_{index}"
        path = f"{layout.snake}{layout.block}" + (f"_{index}" if index else "")
        for number, norm in enumerate(layout.norms, start=1):
            _norm(table, f"{block}.norm{number}", f"{path}.{norm}")
        _attention(table, f"{block}.attention", f"{path}.{layout.attention}", config)
        if config.ffn_type is not FFNType.MLP:
            table.dense(f"{block}.ffn.gate", f"{path}.{GATE}")
        table.dense(f"{block}.ffn.up", f"{path}.{layout.up}")
        table.dense(f"{block}.ffn.down", f"{path}.{layout.down}")
        for number in (1, 2) if config.layer_scale else ():
            table.put(f"{block}.scale{number}.gamma", f"{path}.layer_scale{number}.0")
    if config.effective_pooling is Pooling.MAP:
        _pooling(table, f"{layout.snake}{POOLING}", config)
    return table.origins | _zeros(config, without) | _around(places, config)


def _embedding(table: Parts, places: Places, config: ViTConfig, rows: NDArray[np.uint32] | None) -> None:
    embedding, dim = places.embedding, config.embed_dim
    table.dense("patch_embed", f"{embedding}.{places.layout.patches}")
    if config.pre_norm:  # CLIP's patches have no bias
        table.constant("patch_embed.bias", 0, dim)
    if config.rotary is not None:
        table.put("class_token.class", f"{embedding}.0", first)
        if config.register_tokens:
            behind = 2 if f"{embedding}.2" in places.inside else 1  # a mask token
            table.put("class_token.registers", f"{embedding}.{behind}", first)
        table.origins["pos_embed.table"] = zeros(config.sequence_length, dim)
        return
    if config.class_token:
        table.put("class_token.class", f"{embedding}.0", reshaped((dim,), (1, dim)))
    table.put("pos_embed.table", f"{embedding}.position_embedding.0", None if rows is None else lambda rest: rest[rows])


def _norm(table: Parts, canonical: str, path: str) -> None:
    table.put(f"{canonical}.scale", f"{path}.0")
    table.put(f"{canonical}.bias", f"{path}.1")


def _attention(table: Parts, canonical: str, path: str, config: ViTConfig) -> None:
    """Matrices, or kernels with an axis for the heads, as Keras's own attention has them."""
    dim, heads, width = config.embed_dim, config.num_heads, config.head_dim
    if config.rotary is not None:
        for role in ROLES:
            table.dense(f"{canonical}.{role}", f"{path}.{role}_dense")
        table.dense(f"{canonical}.out", f"{path}.output_dense")
        return
    for role in ROLES:
        table.put(f"{canonical}.{role}.kernel", f"{path}.{role}_dense.0", reshaped((dim, heads, width), (dim, dim)))
        table.put(f"{canonical}.{role}.bias", f"{path}.{role}_dense.1", reshaped((heads, width), (dim,)))
    table.put(f"{canonical}.out.kernel", f"{path}.output_dense.0", reshaped((heads, width, dim), (dim, dim)))
    table.put(f"{canonical}.out.bias", f"{path}.output_dense.1")


def _pooling(table: Parts, path: str, config: ViTConfig) -> None:
    table.put("map_pool.probe", f"{path}.0", first)
    _attention(table, "map_pool.attention", f"{path}.attention", config)
    _norm(table, "map_pool.norm", f"{path}.layer_norm")
    table.dense("map_pool.ffn.up", f"{path}.mlp.fc1")
    table.dense("map_pool.ffn.down", f"{path}.mlp.fc2")


def _zeros(config: ViTConfig, without: Collection[str]) -> dict[str, Origin]:
    """Zeros for the biases that no block has."""
    specs = weight_specs(config)
    names = [f"block_{index}.{part}.bias" for index in range(config.num_layers) for part in without]
    return {name: zeros(*specs[name].shape) for name in names if name in specs}


def _around(places: Places, config: ViTConfig) -> dict[str, Origin]:
    if not config.include_top:
        return {}
    table = Parts(places.around)
    if "norm" not in places.layout.around:
        _norm(table, "norm", POOLED_NORM)
    table.put("head.kernel", f"{PROJECTION}.0")
    table.constant("head.bias", 0, config.num_classes)
    return table.origins
