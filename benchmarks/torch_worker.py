"""The process that times a ViT in PyTorch on a GPU, with the weights of an artifact, as `performance.worker` does.

The request names the fp32 `artifact` whose weights are taken, the `dtype`, whether query, key and value are one product
(`one_product`, as timm writes them), and whether the calls are replayed from a CUDA graph (`cuda_graph`).
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from vit_deploy.core.config import ViTConfig
from vit_deploy.core.manifest import read_artifact
from vit_deploy.formats.stored_weights import read_weights
from vit_deploy.performance.worker import Opened, main
from vit_deploy.verification.golden import read_golden

Weights = Mapping[str, torch.Tensor]
WARM_CALLS = 3  # on a stream of their own before a graph is recorded, as PyTorch's documents ask


class TorchViT:
    """A pre-norm ViT with a class token and a GELU, whose attention is PyTorch's own fused one."""

    provider = "cuda"
    placement: Mapping[str, int] = {}
    notes: tuple[str, ...] = ()
    trial_ns = 0
    build_ns = 0

    def __init__(self, config: ViTConfig, weights: Weights, *, one_product: bool, cuda_graph: bool) -> None:
        self._config, self._weights = config, weights
        self._one_product, self._wants_graph = one_product, cuda_graph
        self._graph: torch.cuda.CUDAGraph | None = None

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Logits `(batch, classes)` for images `(batch, height, width, channels)`."""
        self.upload(images)
        self.compute()
        return self.download()

    def upload(self, images: NDArray[Any]) -> None:
        """Copy images to the GPU, into the same place where a graph has been recorded."""
        given = torch.from_numpy(images).to("cuda", self._weights["patch"].dtype)
        if self._graph is not None and self._images.shape == given.shape:
            self._images.copy_(given)
            torch.cuda.synchronize()
            return
        self._images = given
        if self._wants_graph:
            self._record()
        torch.cuda.synchronize()

    def _record(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_CALLS):
                self._forward()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits = self._forward()

    def compute(self) -> None:
        """Run on what was uploaded last, to the end."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start to run on what was uploaded last."""
        if self._graph is not None:
            self._graph.replay()
        else:
            self._logits = self._forward()

    def wait(self) -> None:
        """Return when the GPU has finished."""
        torch.cuda.synchronize()

    def download(self) -> NDArray[np.float32]:
        """Copy the logits of the last call to the host."""
        return self._logits.float().cpu().numpy()

    def _forward(self) -> torch.Tensor:
        config, weights = self._config, self._weights
        x = functional.conv2d(
            self._images.permute(0, 3, 1, 2), weights["patch"], weights["patch_embed.bias"], stride=config.patch_size
        )
        x = x.flatten(2).transpose(1, 2)
        first = weights["class_token.class"].reshape(1, 1, -1).expand(len(x), 1, -1)
        x = torch.cat([first, x], 1) + weights["pos_embed.table"]
        for index in range(config.num_layers):
            block = f"block_{index}"
            x = x + self._attention(self._norm(x, f"{block}.norm1"), f"{block}.attention")
            hidden = functional.gelu(self._dense(self._norm(x, f"{block}.norm2"), f"{block}.ffn.up"))
            x = x + self._dense(hidden, f"{block}.ffn.down")
        return self._dense(self._norm(x[:, 0], "norm"), "head")

    def _attention(self, x: torch.Tensor, name: str) -> torch.Tensor:
        batch, tokens, width = x.shape
        heads = self._config.num_heads
        if self._one_product:
            joined = self._dense(x, f"{name}.qkv").reshape(batch, tokens, 3, heads, -1)
            query, key, value = joined.permute(2, 0, 3, 1, 4)
        else:
            query, key, value = (
                self._dense(x, f"{name}.{role}").reshape(batch, tokens, heads, -1).transpose(1, 2)
                for role in ("query", "key", "value")
            )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self._dense(mixed.transpose(1, 2).reshape(batch, tokens, width), f"{name}.out")

    def _dense(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(x, self._weights[f"{name}.kernel"], self._weights[f"{name}.bias"])

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        scale, bias = self._weights[f"{name}.scale"], self._weights[f"{name}.bias"]
        return functional.layer_norm(x, (self._config.embed_dim,), scale, bias, self._config.epsilon)


def weights_of(stored: Mapping[str, NDArray[Any]], config: ViTConfig, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Weights on the GPU as PyTorch lays them out: kernels `(outputs, inputs)`, query, key and value joined as well."""
    arrays = {name: np.asarray(array, np.float32) for name, array in stored.items() if array.dtype == np.float32}
    for index in range(config.num_layers):
        name = f"block_{index}.attention"
        for kind in ("kernel", "bias"):
            parts = [arrays[f"{name}.{role}.{kind}"] for role in ("query", "key", "value")]
            arrays[f"{name}.qkv.{kind}"] = np.concatenate(parts, axis=-1)
    patch = arrays.pop("patch_embed.kernel")
    turned = {name: array.T if name.endswith(".kernel") else array for name, array in arrays.items()}
    turned["patch"] = patch.transpose(3, 2, 0, 1)
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to("cuda", dtype) for name, array in turned.items()}


@contextlib.contextmanager
def opened(request: Mapping[str, Any]) -> Iterator[Opened]:
    """The session, its images, and what is known once it is loaded."""
    artifact = read_artifact(Path(request["artifact"]), check_digests=False)
    golden = read_golden(artifact)
    chosen = np.arange(request["batch"]) % len(golden.images)
    # As ONNX Runtime rounds products of float32 unless it is told not to.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.zeros(1, device="cuda")  # its time is no part of loading a model
    start = time.perf_counter_ns()
    stored = read_weights(artifact.model_path, artifact.format)
    weights = weights_of(stored, artifact.config, getattr(torch, request["dtype"]))
    session = TorchViT(artifact.config, weights, one_product=request["one_product"], cuda_graph=request["cuda_graph"])
    load_ms = (time.perf_counter_ns() - start) / 1e6
    with torch.inference_mode():
        images = np.ascontiguousarray(golden.images[chosen])
        exact = golden.outputs[chosen]
        error = np.square(session.infer(images).astype(np.float64) - exact).mean()
        snr_db = float(10 * np.log10(np.square(exact).mean() / error))
        yield session, images, {"load_ms": load_ms, "file_batch": None, "snr_db": snr_db}


if __name__ == "__main__":
    sys.exit(main(opened))
