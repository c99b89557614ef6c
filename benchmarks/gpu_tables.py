"""Targets and tables of what was measured on an NVIDIA GPU."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.markdown import number, table
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

OURS, STANDARD, TORCH = "made for CUDA, CUDA graph", "standard file, CUDA graph", "PyTorch, CUDA graph"
SHOWN = "base"


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """What is to be reached on an H100 or H200."""
    result = results.get(SHOWN)
    for batch in (1, 32):
        ratio = None if result is None else _ratio(result, "fp16", batch, OURS, TORCH)
        yield Target(f"ViT-Base fp16, batch {batch}: its latency over that of PyTorch's fastest", 1.0, ratio)
    proofs = [] if result is None else result["proofs"]
    strict = next((proof for proof in proofs if not proof["bundle"] and proof["precision"] == "fp32"), None)
    loose = next((proof for proof in proofs if not proof["bundle"] and proof["tf32"]), None)
    yield Target(
        "ViT-Base fp32 without TF32: its largest error over the tolerance of the noise floor",
        1.0,
        None if strict is None else strict["max_abs"] / strict["tolerance"],
    )
    yield Target(
        "the same with TF32: its largest error over that without",
        5.0,
        None if strict is None or loose is None else loose["max_abs"] / strict["max_abs"],
        at_least=True,
        digits=0,
    )
    short = None if result is None else result["steadiness"]
    yield Target(
        "of six short benchmarks, how many blame the warm-up",
        1.0,
        None if short is None else float(sum(not each["flat"] for each in short)),
        digits=0,
    )
    energy = None if result is None else result["energy"]
    off = None if energy is None else abs(energy["counted_j"] / (energy["polled_w"] * energy["seconds"]) - 1)
    yield Target("energy told, its distance from polled power times seconds", 0.25, off)


def render(results: Mapping[str, Result]) -> str:
    """A section a size, and what the tests found."""
    sections = [_section(name, result) for name, result in results.items() if "checks" not in result]
    accepted = [_acceptance(result) for result in results.values() if "checks" in result]
    return "\n\n".join([*sections, *(["### Acceptance on a GPU"] if accepted else []), *accepted])


def summary(result: Result) -> str:
    """Latency alone, with the card."""
    return f"ViT-Base on {_card(result)}:\n\n{_latency(result)}"


def _section(name: str, result: Result) -> str:
    rows = [
        (
            f"`{proof['precision']}`{' with TF32' if proof['tf32'] else ''}",
            "made for CUDA" if proof["bundle"] else "standard file",
            f"{proof['max_abs']:.1e}",
            number(proof["snr_db"], 1),
            "same" if proof["ok"] else "**different**",
        )
        for proof in result["proofs"]
    ]
    proofs = table(("precision", "file", "max abs", "SNR in dB", "verdict"), rows)
    energy = result["energy"]
    told = "" if energy is None else f"\n\nEnergy of batch 32 in fp16: {energy['mj_per_image']:.0f} mJ an image."
    return f"### On a GPU: {name}\n\n{facts_line(result)} {_card(result)}.\n\n{_latency(result)}\n\n{proofs}{told}"


def _acceptance(result: Result) -> str:
    counts = Counter(check["outcome"] for check in result["checks"])
    said = ", ".join(f"{counts[name]} {name}" for name in ("passed", "failed", "skipped") if counts[name])
    what = "The first run of all, before what it found was mended" if result.get("first") else "Tests"
    why = Counter(check["detail"] for check in result["checks"] if check["outcome"] == "skipped" and check["detail"])
    listed = "".join(f"\n- {count} skipped: {reason}" for reason, count in why.items())
    return f"{what}: {said} ({result['started']}, {_card(result)}).{chr(10) * bool(listed)}{listed}"


def _card(result: Result) -> str:
    gpu = result["gpu"]
    return f"{gpu['name']}, driver {gpu['driver']}, {gpu['power_limit_w']:.0f} W"


def _latency(result: Result) -> str:
    batches = list(dict.fromkeys(row["batch"] for row in result["latency"]))
    rows = []
    for precision, way in dict.fromkeys((row["precision"], row["way"]) for row in result["latency"]):
        cells = []
        for batch in batches:
            entry = _entry(result, precision, batch, way)
            ratio = _ratio(result, precision, batch, way, TORCH)
            cells += ["does not run" if entry["error"] else number(_p50_ms(entry), 3), number(ratio, 2)]
        rows.append((f"`{precision}`" + (" with TF32" if precision == "fp32" else ""), way, *cells))
    head = [f"batch {batch}: {each}" for batch in batches for each in ("p50 ms", "over PyTorch's graph")]
    return table(("precision", "way", *head), rows)


def _entry(result: Result, precision: str, batch: int, way: str) -> Mapping[str, Any]:
    return next(
        row for row in result["latency"] if (row["precision"], row["batch"], row["way"]) == (precision, batch, way)
    )


def _p50_ms(entry: Mapping[str, Any]) -> float:
    return statistics.median(sample for each in entry["samples_ns"] for sample in each) / 1e6


def _ratio(result: Result, precision: str, batch: int, way: str, base: str) -> float | None:
    """The median over all rounds of the ratio of their medians: what slows a round slows it for all."""
    mine, theirs = (_entry(result, precision, batch, each) for each in (way, base))
    if mine["error"] or theirs["error"]:
        return None
    rounds = zip(mine["samples_ns"], theirs["samples_ns"], strict=True)
    return statistics.median(statistics.median(own) / statistics.median(other) for own, other in rounds)
