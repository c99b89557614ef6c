"""How do the stored results of Arm processors with half arithmetic read: a row a model?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.markdown import number, table
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

CPUS = ("cortex-a53", "cortex-a76", "neoverse-n2")
IN_HALF = CPUS[1:]  # the first one has no half arithmetic
LEAST = 40.0  # dB, the tolerance of fp16
APART = 2.0  # dB between the simulation and the emulated processors


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """Files hold their tolerance there, and the simulation tells what they answer."""
    found = [result["snr_db"] for result in results.values()]
    there = [snr[cpu] for snr in found for cpu in IN_HALF]
    text = "onnx `fp16`: dB of signal to noise on processors with half arithmetic, the least of all models"
    yield Target(text, LEAST, min(there, default=None), at_least=True)
    apart = [abs(snr["simulated"] - snr[cpu]) for snr in found for cpu in IN_HALF]
    text = "onnx `fp16`: dB between `--simulate arm-fp16` and ONNX Runtime on such processors, the most of all models"
    yield Target(text, APART, max(apart, default=None))


def render(results: Mapping[str, Result]) -> str:
    """A table of signal to noise, and the first run's facts."""
    places = ("here", *CPUS, "simulated")
    rows = [
        (f"{result['model']} ({name})", *(number(result["snr_db"][place], 1) for place in places))
        for name, result in results.items()
    ]
    columns = ("signal to noise, dB", "here", *(f"{cpu}, under QEMU" for cpu in CPUS), "simulated")
    return f"{facts_line(next(iter(results.values())))}\n\n{table(columns, rows)}"
