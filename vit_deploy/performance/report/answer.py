"""The file to ship, by accuracy, speed and size, and what stands against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vit_deploy.performance.report.documents import Gathered, Timed
from vit_deploy.performance.report.naming import Names, in_words, setting, usual_setting
from vit_deploy.performance.report.wording import counted, listed, milliseconds

LEAST_AGREEMENT = 0.9  # with fp32, below which a file answers as another model would
LOST = 0.01  # of all images, which is much where their number does not tell what is chance
FEW_IMAGES = 200  # fewer say little about accuracy
AS_FAST = 1.03  # times the fastest median, where too few calls tell what is chance
DIFFERENT = "different"
FP32 = "fp32"


@dataclass(frozen=True)
class Candidate:
    """An artifact in the engine that runs it fastest.

    Args:
        case: the case that was timed.
        against: why it is not to be shipped; empty where nothing stands against it.
        virtues: what it is first in, in words.
    """

    case: Timed
    against: str
    virtues: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What to ship for one machine.

    Args:
        machine: its name.
        called: how the cases that are compared were called, in words.
        candidates: the artifacts that were timed so, the one to ship first; without one, none of them is to be shipped.
        sentences: the answer in words, the most important one first.
    """

    machine: str
    called: str
    candidates: tuple[Candidate, ...]
    sentences: tuple[str, ...]


def answers(gathered: Gathered, names: Names) -> list[Answer]:
    """One for each machine, in their order."""
    return [
        _answer([case for case in gathered.cases if case.machine == name], name, names) for name in _machines(gathered)
    ]


def _machines(gathered: Gathered) -> list[str]:
    return list(dict.fromkeys(case.machine for case in gathered.cases))


def _answer(cases: Sequence[Timed], machine: str, names: Names) -> Answer:
    usual = usual_setting(cases)
    compared = _fastest_of_each([case for case in cases if setting(case) == usual])
    most_right = _most_right(compared)
    against = {id(case): _against(case, most_right, names) for case in compared}
    fit = [case for case in compared if not against[id(case)]]
    chosen = _chosen(fit)
    order = sorted(compared, key=lambda case: (case is not chosen, bool(against[id(case)]), case.latency.p50_ms))
    candidates = tuple(Candidate(case, against[id(case)], _virtues(case, compared)) for case in order)
    sentences = _sentences(chosen, fit, candidates, cases, names)
    return Answer(machine, in_words(usual), candidates, tuple(sentences))


def _fastest_of_each(cases: Sequence[Timed]) -> list[Timed]:
    """Of an artifact that was timed twice in one engine the later time counts; of several engines the fastest."""
    last = {(str(case.latency.case.artifact), case.latency.case.runtime, case.latency.provider): case for case in cases}
    fastest: dict[str, Timed] = {}
    for (artifact, *_), case in last.items():
        if artifact not in fastest or case.latency.p50_ms < fastest[artifact].latency.p50_ms:
            fastest[artifact] = case
    return list(fastest.values())


def _most_right(cases: Sequence[Timed]) -> Timed | None:
    known = [case for case in cases if case.quality.top1 is not None and case.quality.verdict != DIFFERENT]
    return max(known, key=lambda case: case.quality.top1 or 0.0, default=None)


def _against(case: Timed, most_right: Timed | None, names: Names) -> str:
    quality, interval = case.quality, case.quality.top1_interval
    if quality.verdict == DIFFERENT:
        return "it computes another function than its checkpoint"
    if most_right is not None and quality.top1 is None:
        return "how right it is was not measured"
    if most_right is not None and quality.top1 is not None:
        least = most_right.quality.top1 or 0.0
        if interval is None and quality.top1 < least - LOST:
            return f"less often right than {names.artifact_of(most_right)}"
        if interval is not None and interval.high < least:
            return f"less often right than {names.artifact_of(most_right)}, beyond chance"
    if quality.agreement is not None and quality.agreement < LEAST_AGREEMENT:
        return f"answers as fp32 does on {quality.agreement:.0%} of the images only"
    return ""


def _chosen(fit: Sequence[Timed]) -> Timed | None:
    """The smallest of those that are as fast as the fastest within chance."""
    if not fit:
        return None
    fastest = min(fit, key=lambda case: case.latency.p50_ms)
    level = [case for case in fit if _as_fast(case, fastest)]
    return min(level, key=lambda case: (case.bytes or float("inf"), case.latency.p50_ms))


def _as_fast(case: Timed, fastest: Timed) -> bool:
    one, other = case.latency.p50_interval_ms, fastest.latency.p50_interval_ms
    if one is None or other is None:
        return case.latency.p50_ms <= AS_FAST * fastest.latency.p50_ms
    return one.low <= other.high


def _virtues(case: Timed, compared: Sequence[Timed]) -> tuple[str, ...]:
    if len(compared) < 2:
        return ()
    found = ["fastest"] if case.latency.p50_ms == min(other.latency.p50_ms for other in compared) else []
    sizes = [other.bytes for other in compared if other.bytes is not None]
    found += ["smallest"] if sizes and case.bytes == min(sizes) < max(sizes) else []
    rights = [other.quality.top1 for other in compared if other.quality.top1 is not None]
    found += ["most often right"] if rights and case.quality.top1 == max(rights) > min(rights) else []
    return tuple(found)


def _sentences(
    chosen: Timed | None,
    fit: Sequence[Timed],
    candidates: Sequence[Candidate],
    cases: Sequence[Timed],
    names: Names,
) -> list[str]:
    if chosen is None:
        said = ["Ship none of these files: something stands against each of them."]
    else:
        said = [f"Ship {names.series(chosen)}: {_figures(chosen)}."]
        said += _why(chosen, fit, candidates, names)
    for reason in dict.fromkeys(candidate.against for candidate in candidates if candidate.against):
        those = [names.artifact_of(candidate.case) for candidate in candidates if candidate.against == reason]
        said.append(f"Not {listed(those)}: {reason}.")
    measured = [int(case.quality.images) for case in cases if case.quality.top1 is not None and case.quality.images]
    if not measured:
        said.append("How right the files are is not among these results: add what evaluate --json writes.")
    elif min(measured) < FEW_IMAGES:
        said.append(f"Accuracy is of {min(measured)} images only, which says little.")
    unsteady = sum(bool(case.latency.unsteady) for case in cases)
    if unsteady:
        among = ", this file among them" if chosen is not None and chosen.latency.unsteady else ""
        said.append(
            f"{unsteady} of {counted(len(cases), 'case')} {'was' if unsteady == 1 else 'were'} unsteady{among}: "
            "measure again on an idle machine before relying on the times."
        )
    else:
        said.append("All times were steady.")
    return said


def _figures(case: Timed) -> str:
    latency, quality = case.latency, case.quality
    said = [] if case.bytes is None else [f"{case.bytes / 1e6:.1f} MB"]
    said.append(f"{milliseconds(latency.p50_ms)} ms a call at {in_words(setting(case))}")
    if quality.top1 is not None:
        interval = quality.top1_interval
        sure = "" if interval is None else f" ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
        said.append(f"right on {100 * quality.top1:.1f} %{sure} of the images")
    return ", ".join(said)


def _why(chosen: Timed, fit: Sequence[Timed], candidates: Sequence[Candidate], names: Names) -> list[str]:
    if len(candidates) == 1:
        return ["No other file was timed so."]
    said = []
    fastest = min(fit, key=lambda case: case.latency.p50_ms)
    of = "" if len(fit) == len(candidates) else f" of the {len(fit)} that nothing stands against"
    if fastest is chosen:
        said.append(f"It is the fastest{of}.")
    else:
        said.append(f"It is as fast as {names.artifact_of(fastest)} within chance, and smaller.")
    exact = next((candidate.case for candidate in candidates if candidate.case.quality.precision == FP32), None)
    exact = exact or next(
        (candidate.case for candidate in candidates if FP32 in names.artifact_of(candidate.case)), None
    )
    if exact is not None and exact is not chosen:
        parts = (
            []
            if None in (chosen.bytes, exact.bytes)
            else [f"{(chosen.bytes or 0) / (exact.bytes or 1):.2f} of the size"]
        )
        parts.append(f"{chosen.latency.p50_ms / exact.latency.p50_ms:.2f} of the latency")
        said.append(f"Beside {names.artifact_of(exact)} it has {' and '.join(parts)}.")
    return said
