"""What TensorFlow is told of its GPUs, by one that only remembers it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from vit_deploy.errors import EngineError
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.tensorflow.options import apply, tf32


class Tensorflow:
    """As many GPUs as are asked for; once it runs, what it sees cannot be changed."""

    __version__ = "2.21"

    def __init__(self, gpus=2, *, runs=False, sees=None):
        self.gpus = [f"GPU:{number}" for number in range(gpus)]
        self.sees = self.gpus if sees is None else [self.gpus[number] for number in sees]
        self.runs, self.growing, self.rounds = runs, [], True
        self.config = SimpleNamespace(
            list_physical_devices=lambda kind: self.gpus,
            get_visible_devices=lambda kind: self.sees,
            set_visible_devices=self.see,
            experimental=SimpleNamespace(
                set_memory_growth=lambda gpu, on: self.growing.append((gpu, on)),
                tensor_float_32_execution_enabled=lambda: self.rounds,
                enable_tensor_float_32_execution=lambda on: setattr(self, "rounds", on),
            ),
        )

    def see(self, gpus, kind):
        if self.runs:
            raise RuntimeError("Visible devices cannot be modified after being initialized")
        self.sees = gpus


@pytest.mark.parametrize("device", [0, 1])
def test_it_sees_the_one_gpu_that_is_asked_for_and_takes_no_more_memory_than_it_needs(device):
    tensorflow = Tensorflow()
    assert apply(tensorflow, RuntimeOptions(device=device)) == "cuda"
    assert tensorflow.sees == [f"GPU:{device}"]
    assert tensorflow.growing == [(f"GPU:{device}", True)]


@pytest.mark.parametrize(("provider", "gpus"), [("cpu", 2), (None, 0)])
def test_the_cpu_leaves_gpus_alone(provider, gpus):
    tensorflow = Tensorflow(gpus)
    assert apply(tensorflow, RuntimeOptions(provider=provider)) == "cpu"
    assert tensorflow.growing == [] and len(tensorflow.sees) == gpus


@pytest.mark.parametrize("device", [2, -1])
def test_a_gpu_that_is_not_there_is_an_error(device):
    with pytest.raises(EngineError, match=rf"sees no GPU {device}: TensorFlow finds 2\n  fix: count from 0"):
        apply(Tensorflow(), RuntimeOptions(device=device))


def test_another_gpu_than_it_runs_on_already_is_an_error():
    with pytest.raises(EngineError, match=r"runs in this process already, on GPU 0, so it cannot take GPU 1 any more"):
        apply(Tensorflow(runs=True, sees=[0]), RuntimeOptions(device=1))
    assert apply(Tensorflow(runs=True, sees=[1]), RuntimeOptions(device=1)) == "cuda"


def test_it_records_no_cuda_graphs():
    with pytest.raises(EngineError, match="TensorFlow records no CUDA graphs"):
        apply(Tensorflow(), RuntimeOptions(cuda_graph=True))


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("allowed", [True, False])
def test_its_rounding_is_set_back_when_a_session_ends(before, allowed):
    tensorflow = Tensorflow()
    tensorflow.rounds = before
    with pytest.raises(KeyError), tf32(tensorflow, "cuda", allowed):
        assert tensorflow.rounds is allowed
        raise KeyError
    assert tensorflow.rounds is before
    with tf32(tensorflow, "cpu", not before):
        assert tensorflow.rounds is before
