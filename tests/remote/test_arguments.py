"""The runner on a device takes the options of the commands, one by one or as another machine sends them."""

from __future__ import annotations

import pytest

from vit_deploy.core.options import EvaluateOptions, PredictOptions
from vit_deploy.core.options.commands import BenchOptions, ProofOptions
from vit_deploy.core.options.option import described
from vit_deploy.errors import UsageError
from vit_deploy.remote.arguments import options_from, request
from vit_deploy.remote.device import _parser
from vit_deploy.remote.work import COMMANDS

ODD_BENCH = BenchOptions(
    *(("onnxruntime",), ("cuda", "cpu"), (2, 3), (1, 4), 2, 1.5),
    **{"device": 1, "cuda_graph": True, "one_at_a_time": True, "runs": 9, "profile": True, "timeout": 900.0},
    **{"runtime_files": "node_modules", "browser": "firefox", "image_size": "32x48", "signature": "images_32x48"},
)
ODD_PROOF = ProofOptions("onnxruntime", "cuda", 1, True, (1, 4), True, "node_modules", "firefox", "images_32x48")
ODD = {
    "bench": ODD_BENCH,
    "verify": ODD_PROOF,
    "predict": PredictOptions("onnxruntime", "cuda", 1, True, 4, "node_modules", "firefox", "images_32x48", 2, "32x48"),
    "evaluate": EvaluateOptions("onnxruntime", "cuda", 1, True, 4, "node_modules", "firefox", 7, "32x48"),
}


def test_every_command_of_the_runner_has_options_here() -> None:
    assert {name: type(options) for name, options in ODD.items()} == {
        name: command.options for name, command in COMMANDS.items()
    }


@pytest.mark.parametrize("command", ODD)
def test_another_machine_is_asked_for_the_same(command: str) -> None:
    options = ODD[command]
    kind = type(options)
    assert all(getattr(options, field.name) != field.default for field in described(kind) if field.name != "under")
    assert options_from(_parser().parse_args(request(command, options)), kind) == options
    assert options_from(_parser().parse_args(request(command, kind())), kind) == kind()


@pytest.mark.parametrize("command", ODD)
def test_by_hand_the_options_are_those_of_the_command(command: str) -> None:
    kind = type(ODD[command])
    assert options_from(_parser().parse_args([command]), kind) == kind()
    threads = "1,4" if command in ("verify", "bench") else "4"
    words = ["--threads", threads, "--device", "1", "--cuda-graph", "--runtime", "onnxruntime", "--provider", "cuda"]
    there = options_from(_parser().parse_args([command, *words]), kind)
    assert (there.threads, there.device, there.cuda_graph) == (ODD[command].threads, 1, True)
    more = ["--batch", "2,3", "--streams", "2", "--seconds", "1.5", "--under", "250us", "--provider", "cuda,cpu"]
    if command == "bench":
        with pytest.raises(UsageError, match="expected no --batch, found 2,3"):
            options_from(_parser().parse_args([command, *more]), kind)
        there = options_from(_parser().parse_args([command, *more[2:]]), kind)
        assert (there.streams, there.seconds, there.under, there.provider) == (2, 1.5, 0.25, ("cuda", "cpu"))
        with pytest.raises(SystemExit):
            _parser().parse_args([command, "--streams", "0"])
