"""The figures in the tables of a report, and their words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vit_deploy.performance.latency import Latency
from vit_deploy.performance.report.answer import answers
from vit_deploy.performance.report.documents import Gathered, Quality, Timed
from vit_deploy.performance.report.naming import Names, engine, in_words, setting, usual_setting
from vit_deploy.performance.report.operator_names import by_known_name
from vit_deploy.performance.report.wording import listed, milliseconds

ABSENT = "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """One figure or one name.

    Args:
        text: the text that is shown.
        key: that a column of figures is sorted by; None for words and for a figure that is absent.
        mark: the mark of a cell that stands out, in a word; empty for others.
    """

    text: str
    key: float | None = None
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under a heading.

    Args:
        name: the name for links.
        title: the title that is shown.
        note: a sentence on how to read it; may be empty.
        columns: names with units; a column is one of figures if any of its cells has a key.
        rows: the first cell of each names it.
        sortable: whether another order makes sense.
        wrapped: numbers of the columns of sentences and lists, which may take several lines.
    """

    name: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    sortable: bool = True
    wrapped: tuple[int, ...] = ()

    def is_numeric(self, column: int) -> bool:
        """Whether a column is one of figures."""
        return any(row[column].key is not None for row in self.rows)


Column = tuple[str, Callable[[Timed], Cell]]


def tables(gathered: Gathered, names: Names) -> list[Table]:
    """Those that have something to tell."""
    found = [
        candidates(gathered, names),
        latencies(gathered, names),
        costs(gathered, names),
        qualities(gathered, names),
    ]
    found += [operators(gathered, names), machines(gathered)]
    return [table for table in found if table.rows]


def candidates(gathered: Gathered, names: Names) -> Table:
    """What there is to choose from, the one to ship first."""
    found = answers(gathered, names)
    several = len(found) > 1
    rows = []
    for answer in found:
        for place, candidate in enumerate(answer.candidates):
            case, quality = candidate.case, candidate.case.quality
            ship = place == 0 and not candidate.against
            verdict = "ship" if ship else candidate.against or ", ".join(candidate.virtues) or ABSENT
            also = f"ship: {', '.join(candidate.virtues)}" if ship and candidate.virtues else verdict
            rows.append(
                (
                    Cell(names.artifact_of(case)),
                    Cell(also, mark="ship" if ship else ""),
                    Cell(engine(case)),
                    *([Cell(answer.machine)] if several else []),
                    _megabytes(case.bytes),
                    _ms(case.latency.p50_ms),
                    _accuracy(quality),
                    _percent(quality.agreement),
                    Cell("unsteady", mark="unsteady") if case.latency.unsteady else Cell("yes"),
                )
            )
    machine = ("machine",) if several else ()
    columns = (
        "artifact",
        "verdict",
        "engine",
        *machine,
        "size MB",
        "p50 ms",
        "top-1 % (95 %)",
        "agreement %",
        "steady",
    )
    called = listed(list(dict.fromkeys(answer.called for answer in found)))
    note = (
        f"Each file in the engine that runs it fastest, at {called}. The one to ship is the fastest, or the smallest "
        "of those that are as fast within chance, among the files that compute the same function as their checkpoint, "
        "are right as often as the best within chance, and agree with fp32."
    )
    return _without_empty(
        Table("choice", "Which file to ship", note, columns, tuple(rows), wrapped=(columns.index("verdict"),))
    )


def rate(case: Timed) -> float:
    """Images a second."""
    return case.latency.throughput_per_s


def latencies(gathered: Gathered, names: Names) -> Table:
    """What each case took."""
    best = min((case.latency.p50_ms for case in gathered.cases), default=0.0)
    most = max(map(rate, gathered.cases), default=0.0)
    several = len(gathered.cases) > 1
    columns: list[Column] = [
        ("artifact", lambda case: Cell(names.artifact(str(case.latency.case.artifact)))),
        ("engine", lambda case: Cell(engine(case))),
    ]
    if len(gathered.machines) > 1:
        columns.append(("machine", lambda case: Cell(case.machine)))
    if any(case.latency.gpu is not None for case in gathered.cases):
        columns.append(("GPU", lambda case: Cell(_gpu(case.latency))))
    if any(map(names.file, gathered.cases)):
        columns.append(("file", lambda case: Cell(names.file(case))))
    columns += [
        ("batch", lambda case: _count(case.latency.case.batch)),
        ("threads", lambda case: _count(case.latency.case.threads)),
    ]
    if any(case.latency.case.streams > 1 for case in gathered.cases):
        columns.append(("streams", lambda case: _count(case.latency.case.streams)))
    columns += [
        (
            "p50 ms",
            lambda case: _ms(case.latency.p50_ms, best="best" if several and case.latency.p50_ms == best else ""),
        ),
        ("95 % of p50, ms", lambda case: _interval(case.latency)),
        ("to first (95 %)", lambda case: Cell(_ratio(case), case.ratio)),
        ("p90 ms", lambda case: _ms(case.latency.p90_ms)),
        ("p99 ms", lambda case: _ms(case.latency.p99_ms)),
        (
            "images/s",
            lambda case: Cell(f"{rate(case):.1f}", rate(case), "best" if several and rate(case) == most else ""),
        ),
        ("size MB", lambda case: _megabytes(case.bytes)),
        ("steady", lambda case: Cell("unsteady", mark="unsteady") if case.latency.unsteady else Cell("yes")),
    ]
    return _table(
        "latency",
        "Latency",
        "p50, p90 and p99 are percentiles of single calls. “To first” is the p50 in relation to that of the first case "
        "on the same machine. What is true lies in the intervals with 95 % confidence (bootstrap).",
        columns,
        gathered.cases,
    )


def costs(gathered: Gathered, names: Names) -> Table:
    """What a case takes beside its calls; figures that none of them has are left out."""
    possible: list[tuple[str, str, Callable[[Latency], float | None]]] = [
        ("load ms", "{:.0f}", lambda case: case.load_ms),
        ("engine build ms", "{:.0f}", lambda case: case.build_ms),
        ("first call ms", "{:.1f}", lambda case: case.first_ms),
        ("image file to input ms", "{:.1f}", lambda case: case.preprocess_ms),
        ("copy to and from device ms", "{:.2f}", lambda case: case.transfer_ms),
        ("images/s, calls queued", "{:.1f}", lambda case: case.queued_throughput_per_s),
        ("peak memory MB", "{:.0f}", lambda case: case.peak_rss_mb),
        ("of that for the model MB", "{:.0f}", lambda case: case.growth_mb),
        ("peak GPU memory MB", "{:.0f}", lambda case: case.peak_gpu_mb),
        ("energy mJ/image", "{:.1f}", lambda case: case.energy_mj_per_image),
        ("GPU energy mJ/image", "{:.1f}", lambda case: case.gpu_energy_mj_per_image),
    ]
    columns: list[Column] = [("case", lambda case: Cell(names.case(case)))]
    for title, form, read in possible:
        if any(read(case.latency) is not None for case in gathered.cases):
            columns.append((title, _reader(read, form)))
    return _table("costs", "Start, memory and energy", "MB are 10⁶ bytes.", columns, gathered.cases)


def _reader(read: Callable[[Latency], float | None], form: str) -> Callable[[Timed], Cell]:
    return lambda case: _figure(read(case.latency), form)


def qualities(gathered: Gathered, names: Names) -> Table:
    """How right the artifacts are, and how close to the reference."""
    asked = {case.quality.artifact: case.quality for case in gathered.cases if is_known(case.quality)}
    seen = {case.quality.artifact: str(case.latency.case.artifact) for case in gathered.cases}
    rows = []
    for quality in (*asked.values(), *gathered.untimed):
        rows.append(
            (
                Cell(names.artifact(seen.get(quality.artifact, quality.artifact))),
                Cell(quality.precision or ABSENT),
                _megabytes(quality.bytes),
                _accuracy(quality),
                _percent(quality.top5),
                _percent(quality.agreement),
                _figure(quality.images, "{:.0f}"),
                _figure(quality.max_abs, "{:.1e}"),
                _figure(quality.cosine, "{:.6f}"),
                _figure(quality.snr_db, "{:.1f}"),
                Cell(quality.verdict or ABSENT, mark="different" if quality.verdict == "different" else ""),
            )
        )
    right = ("top-1 % (95 %)", "top-5 %", "agreement with fp32 %", "images")
    columns = ("artifact", "precision", "size MB", *right, "largest difference", "cosine", "SNR dB", "parity")
    return _without_empty(Table("quality", "Accuracy and parity", "", columns, tuple(rows)))


def is_known(quality: Quality) -> bool:
    """Whether any command has looked at the artifact."""
    return quality != Quality(quality.artifact)


def operators(gathered: Gathered, names: Names) -> Table:
    """What the operators take, under the names that people know, where they were profiled."""
    profiled = [case for case in gathered.cases if case.profile]
    usual = usual_setting(gathered.cases)
    shown = [case for case in profiled if setting(case) == usual] or profiled
    rows = [
        (
            Cell(names.series(case) if len(shown) < len(profiled) else names.case(case)),
            Cell(known),
            Cell(", ".join(operator.operator for operator in those)),
            _figure(sum(operator.calls for operator in those), "{:g}"),
            _figure(sum(operator.ms for operator in those), "{:.3f}"),
            _percent(sum(operator.share for operator in those)),
        )
        for case in shown
        for known, those in by_known_name(case.profile).items()
    ]
    note = "Calls and time are of one call of the model, while the engine's profiler watched, which slows it down."
    note += f" At {in_words(usual)}; the saved results have the other cases too." if len(shown) < len(profiled) else ""
    columns = ("case", "operators", "the engine's names", "calls", "ms", "share %")
    return Table("operators", "Time of each kind of operator", note, columns, tuple(rows), wrapped=(2,))


def machines(gathered: Gathered) -> Table:
    """Where it was measured."""
    hosts = list(gathered.machines.values())
    facts: list[tuple[str, list[str]]] = [
        ("processor", [str(host.cpu) for host in hosts]),
        ("architecture", [str(host.architecture) for host in hosts]),
        ("cores that it may use", [f"{host.cores:g}" for host in hosts]),
        ("memory that it may use, MB", [_text(host.memory_mb, "{:.0f}") for host in hosts]),
        ("system", [str(host.os) for host in hosts]),
        ("Python", [str(host.python) for host in hosts]),
        ("frequency governor", [str(host.governor or ABSENT) for host in hosts]),
        ("frequency, MHz", [_text(host.cpu_mhz, "{:.0f}") for host in hosts]),
        ("temperature, °C", [_text(host.temperature_c, "{:.0f}") for host in hosts]),
        ("load over the last minute", [_text(host.load_1m, "{:.2f}") for host in hosts]),
        ("cores that others kept busy", [_text(host.competing, "{:.1f}") for host in hosts]),
    ]
    rows = tuple((Cell(name), *map(Cell, values)) for name, values in facts)
    return Table(
        "machines",
        "Where it was measured",
        "When the measurement began.",
        ("fact", *gathered.machines),
        rows,
        sortable=False,
    )


def _table(name: str, title: str, note: str, columns: Sequence[Column], cases: Sequence[Timed]) -> Table:
    rows = tuple(tuple(read(case) for _, read in columns) for case in cases)
    return Table(name, title, note, tuple(title for title, _ in columns), rows)


def _without_empty(table: Table) -> Table:
    kept = [index for index in range(len(table.columns)) if any(row[index].text != ABSENT for row in table.rows)]
    rows = tuple(tuple(row[index] for index in kept) for row in table.rows)
    wrapped = tuple(place for place, index in enumerate(kept) if index in table.wrapped)
    return replace(table, columns=tuple(table.columns[index] for index in kept), rows=rows, wrapped=wrapped)


def _gpu(latency: Latency) -> str:
    """The card, and its power limit where that is known: figures of one say nothing about another."""
    if latency.gpu is None:
        return ABSENT
    limit = latency.gpu.power_limit_w
    return latency.gpu.name + ("" if limit is None else f", {limit:.0f} W")


def _text(value: float | None, form: str) -> str:
    return ABSENT if value is None else form.format(value)


def _figure(value: float | None, form: str) -> Cell:
    return Cell(_text(value, form), value)


def _count(value: int | None) -> Cell:
    return _figure(value, "{:d}")


def _ms(value: float, best: str = "") -> Cell:
    return Cell(milliseconds(value), value, best)


def _percent(fraction: float | None) -> Cell:
    return _figure(None if fraction is None else 100 * fraction, "{:.1f}")


def _accuracy(quality: Quality) -> Cell:
    """The accuracy with its interval."""
    interval = quality.top1_interval
    if quality.top1 is None or interval is None:
        return _percent(quality.top1)
    low, high = 100 * interval.low, 100 * interval.high
    return Cell(f"{100 * quality.top1:.1f} ({low:.1f} to {high:.1f})", 100 * quality.top1)


def _megabytes(count: float | None) -> Cell:
    return _figure(None if count is None else count / 1e6, "{:.2f}")


def _interval(latency: Latency) -> Cell:
    interval = latency.p50_interval_ms
    if interval is None:
        return Cell(ABSENT)
    return Cell(f"{milliseconds(interval.low)} to {milliseconds(interval.high)}", interval.low)


def _ratio(case: Timed) -> str:
    interval = case.ratio_interval
    return f"{case.ratio:.2f}" + ("" if interval is None else f" ({interval.low:.2f} to {interval.high:.2f})")
