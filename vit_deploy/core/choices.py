"""The choices of a ViT config: norms, feed-forwards, activations, poolings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vit_deploy.core.older_python import StrEnum

if TYPE_CHECKING:  # at run time it would bring NumPy into every `--help`
    from numpy.typing import NDArray


class NormalizationType(StrEnum):
    """The normalization of a token; formulas in `vit_deploy.core.reference`."""

    LAYER_NORM = "layer_norm"
    RMS_NORM = "rms_norm"
    DYNAMIC_TANH = "dynamic_tanh"
    BAND_RMS = "band_rms"


class NormalizationPosition(StrEnum):
    """Before each half of a block (as published), after its residual sum, inside of it, or once for both halves.

    Inside the sum it is `x + norm(half(x))` (Liu et al. 2021, arXiv 2111.09883), where the norm scales what is added.
    In parallel both halves read one norm, `x + attention(norm(x)) + ffn(norm(x))` (Dehghani et al. 2023).
    """

    PRE = "pre"
    POST = "post"
    RES_POST = "res_post"
    PARALLEL = "parallel"


class RelativePositions(StrEnum):
    """What attention adds to its scores by the distance of two tokens; see `vit_deploy.core.relative_positions`.

    A table has a row for each distance, and follows when a model is resized; scores are `(heads, tokens, tokens)` as
    they are added, and hold for one size. Each block has its own, or all share one.
    """

    NONE = "none"
    TABLE = "table"
    SHARED_TABLE = "shared_table"
    SCORES = "scores"
    SHARED_SCORES = "shared_scores"


class LayerScalePart(StrEnum):
    """Whose output a layer scale multiplies: that of both halves of a block, or of one alone."""

    BOTH = "both"
    ATTENTION = "attention"
    FFN = "ffn"


class FFNType(StrEnum):
    """The feed-forward half of a block; all have `mlp_dim` hidden units."""

    MLP = "mlp"
    SWIGLU = "swiglu"
    GEGLU = "geglu"
    GLU = "glu"


class Pooling(StrEnum):
    """How the sequence becomes one vector; mean and max leave the prefix tokens out, and `prefix_mean` the patches.

    Two give a vector of twice the embed dim: `cls_distillation` the class token beside the distillation token
    (Touvron et al. 2021), `cls_mean` the class token beside the mean (Oquab et al. 2023). `map` is attention of one
    learned probe to all tokens, followed by a feed-forward (Zhai et al. 2022).
    """

    CLS = "cls"
    MEAN = "mean"
    MAX = "max"
    CLS_DISTILLATION = "cls_distillation"
    CLS_MEAN = "cls_mean"
    PREFIX_MEAN = "prefix_mean"
    MAP = "map"


class PoolEnd(StrEnum):
    """What follows the attention of `map` pooling.

    A feed-forward behind a norm, added to what it reads (Zhai et al. 2022), a norm alone (CoCa, Yu et al. 2022, as
    OpenCLIP has it), or nothing.
    """

    FFN = "ffn"
    NORM = "norm"
    NONE = "none"


class Activation(StrEnum):
    """The activation of the `mlp` feed-forward; `gelu` is the exact one, with erf.

    A leaky ReLU has the slope 0.2, as in Keras, or that of its name, as in torch. A clipped GELU is at most 10.
    """

    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    QUICK_GELU = "quick_gelu"
    RELU = "relu"
    RELU6 = "relu6"
    LEAKY_RELU = "leaky_relu"
    LEAKY_RELU_TORCH = "leaky_relu_0.01"
    SQUARED_RELU = "squared_relu"
    GELU_CLIPPED = "gelu_clipped"
    MISH = "mish"
    ELU = "elu"
    SILU = "silu"
    HARD_SILU = "hard_silu"
    SIGMOID = "sigmoid"
    TANH = "tanh"


class Probabilities(StrEnum):
    """What makes probabilities of logits: classes that rule each other out, or each class by itself."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"

    def of(self, logits: NDArray[Any]) -> NDArray[Any]:
        """The probabilities of classes `(…, classes)`."""
        import numpy as np

        if self is Probabilities.SIGMOID:
            sigmoid: NDArray[Any] = 0.5 * (1 + np.tanh(0.5 * logits))  # of which no power overflows
            return sigmoid
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        softmax: NDArray[Any] = powers / powers.sum(axis=-1, keepdims=True)
        return softmax


ACTIVATION_ALIASES: Mapping[str, str] = MappingProxyType(
    {"swish": "silu", "hard_swish": "hard_silu", "gelu_new": "gelu_tanh"}
)
