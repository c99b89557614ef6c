"""Devices and rounding of Keras' backends; their GPUs are pretended."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from vit_deploy.errors import EngineError
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.keras.devices import call_rounding, chosen_device, name_of, rounding

ON_CUDA = RuntimeOptions(provider="cuda")


@pytest.fixture
def gpus(monkeypatch):
    """Puts a JAX and a PyTorch with as many GPUs in the place of the real ones; returns them."""

    def install(count):
        def devices(kind):
            if not count:
                raise RuntimeError(f"Unknown backend: {kind!r} requested")
            return ["cuda"] * count

        jax, torch = ModuleType("jax"), ModuleType("torch")
        jax.devices = devices
        torch.cuda = SimpleNamespace(is_available=lambda: count > 0, device_count=lambda: count)
        torch.backends = SimpleNamespace(
            cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=False)), cudnn=SimpleNamespace(allow_tf32=True)
        )
        monkeypatch.setitem(sys.modules, "jax", jax)
        monkeypatch.setitem(sys.modules, "torch", torch)
        return SimpleNamespace(jax=jax, torch=torch)

    return install


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_backend_without_a_gpu_says_so(gpus, backend):
    gpus(0)
    with pytest.raises(EngineError, match=rf"Keras on {backend} sees no GPU\n  fix: .*or run with --provider cpu"):
        chosen_device(backend, ON_CUDA)
    assert chosen_device(backend, RuntimeOptions()) == "cpu"
    assert chosen_device(backend, RuntimeOptions(provider="cpu-eager")) == "cpu"


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_gpu_is_chosen_by_its_number(gpus, backend):
    gpus(2)
    assert chosen_device(backend, RuntimeOptions(provider="cuda-eager", device=1)) == "cuda"
    assert name_of(backend, "cuda", 1) == "gpu:1"
    with pytest.raises(EngineError, match=rf"this process sees no GPU 2: {backend} finds 2"):
        chosen_device(backend, RuntimeOptions(provider="cuda", device=2))


def test_tensorflow_sees_the_chosen_gpu_as_its_first():
    assert name_of("tensorflow", "cuda", 1) == "gpu:0"
    assert name_of("jax", "cpu", 1) == "cpu:0"


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_threads_are_refused_only_where_they_are_given(gpus, backend):
    gpus(1)
    assert chosen_device(backend, ON_CUDA) == "cuda"
    with pytest.raises(EngineError, match=rf"Keras on {backend} takes no number of threads"):
        chosen_device(backend, RuntimeOptions(provider="cuda", threads=1))


def test_a_cuda_graph_is_an_error(gpus):
    gpus(1)
    with pytest.raises(EngineError, match="Keras records no CUDA graphs"):
        chosen_device("jax", RuntimeOptions(provider="cuda", cuda_graph=True))


def test_pytorch_does_not_round_in_a_strict_session_and_rounds_again_after_it(gpus):
    backends = gpus(1).torch.backends
    backends.cuda.matmul.allow_tf32 = True
    with pytest.raises(KeyError), rounding("torch", "cuda", allow_tf32=False):
        assert (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32) == (False, False)
        raise KeyError
    assert (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32) == (True, True)
    for provider, allowed in (("cpu", False), ("cuda", True)):
        with rounding("torch", provider, allow_tf32=allowed):
            assert (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32) == (True, True)


@pytest.mark.peers
def test_jax_computes_products_in_full_within_strict_calls_alone():
    jax = pytest.importorskip("jax")
    for provider, allowed, inside in (("cuda", False, "highest"), ("cuda", True, None), ("cpu", False, None)):
        with call_rounding("jax", provider, allow_tf32=allowed):
            assert jax.config.jax_default_matmul_precision == inside
        assert jax.config.jax_default_matmul_precision is None


@pytest.mark.peers
def test_pytorchs_own_flags_can_be_set_and_set_back():
    torch = pytest.importorskip("torch")
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with rounding("torch", "cuda", allow_tf32=False):
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (False, False)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
