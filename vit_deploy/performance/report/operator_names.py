"""Names of operators that people know, for those of every engine."""

from __future__ import annotations

from collections.abc import Sequence

from vit_deploy.performance.profilers import OperatorTime

MATMUL = "matrix multiplication"
ELEMENTWISE = "element-wise arithmetic"
MOVING = "moving and reshaping"
CONVERTING = "quantizing and converting"
NORM = "layer normalization"

# Without case, spaces and underscores: ONNX Runtime, LiteRT, TensorFlow and OpenVINO write the same in several ways.
KNOWN = {
    MATMUL: "gemm matmul fusedmatmul fusedgemm matmulnbits matmulinteger matmulintegertofloat dynamicquantizematmul "
    "qlinearmatmul qgemm batchmatmul batchmatmulv2 batchmatrixmultiply fullyconnected fullyconnectedcompressed einsum",
    "attention": "attention multiheadattention qattention scaleddotproductattention sdpa packedattention",
    NORM: "layernormalization simplifiedlayernormalization skiplayernormalization mvn meansquared mean "
    "squareddifference rsqrt reciprocalsquareroot reducemean",
    "GELU": "gelu biasgelu fastgelu quickgelu biassplitgelu erf",
    "softmax": "softmax",
    "patch embedding": "conv convolution conv2d convinteger qlinearconv fusedconv nhwcconv depthwiseconv2d",
    ELEMENTWISE: "add mul multiply sum div divide sub subtract sqrt pow power powerstatic neg biasadd addv2 realdiv "
    "eltwise tanh sigmoid sigmoidmul swish exp max maximum min minimum qlinearadd qlinearmul",
    MOVING: "transpose reshape staticreshape concat concatenation slice stridedslice gather expand expanddims copy "
    "reorder reorderinput reorderoutput broadcast broadcastto shape shapeof squeeze unsqueeze split pack unpack tile "
    "statictranspose staticslice memcpytohost memcpyfromhost identity",
    "fused operators": "subgraph fused",
    CONVERTING: "cast convert dynamicquantizelinear quantizelinear dequantizelinear quantize dequantize reducemax "
    "reducemin fakequantize",
}
_BY_NAME = {name: known for known, names in KNOWN.items() for name in names.split()}


def known_name(operator: str) -> str:
    """What people call what an engine's operator does; an operator that nobody knows keeps its name."""
    return _BY_NAME.get("".join(letter for letter in operator.lower() if letter not in " _"), operator)


def by_known_name(profile: Sequence[OperatorTime]) -> dict[str, list[OperatorTime]]:
    """The operators of a profile under the names that people know, the costliest name first."""
    found: dict[str, list[OperatorTime]] = {}
    for row in profile:
        found.setdefault(known_name(row.operator), []).append(row)
    return dict(sorted(found.items(), key=lambda item: -sum(row.ms for row in item[1])))
