"""Names of artifacts and cases, short and no two alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from vit_deploy.performance.report.documents import Gathered, Timed

Setting = tuple[int, int | None, int]
"""Images a call, threads of one call, and calls at the same time."""


class Names:
    """Names of everything in a report.

    Args:
        gathered: what the report tells.
    """

    def __init__(self, gathered: Gathered) -> None:
        paths = [str(case.latency.case.artifact) for case in gathered.cases]
        self._short = short_names([*paths, *(quality.artifact for quality in gathered.untimed)])
        self._settings = {setting(case) for case in gathered.cases}
        self._machines = len(gathered.machines)
        self._files, self._numbers = _told_apart(gathered.cases)

    def artifact(self, path: str) -> str:
        """The last parts of a path that no other artifact shares."""
        return self._short[path]

    def artifact_of(self, case: Timed) -> str:
        """The same of the artifact of a case."""
        return self.artifact(str(case.latency.case.artifact))

    def place(self, case: Timed) -> str:
        """The engine, and the machine and the file where that does not tell cases apart."""
        words = engine(case)
        words += f" on {case.machine}" if self._machines > 1 else ""
        words += f" in {self.file(case)}" if self.file(case) else ""
        number = self._numbers[id(case)]
        return f"{words}, no. {number}" if number > 1 else words

    def file(self, case: Timed) -> str:
        """The file that a case is from, where several have one like it; else empty."""
        return self._files.get(str(case.file), "")

    def series(self, case: Timed) -> str:
        """Artifact and engine, and the machine and the file where that does not tell cases apart."""
        return f"{self.artifact_of(case)}, {self.place(case)}"

    def case(self, case: Timed) -> str:
        """The same with the setting, where there are several."""
        return f"{self.series(case)}, {in_words(setting(case))}" if len(self._settings) > 1 else self.series(case)


def _told_apart(cases: Sequence[Timed]) -> tuple[dict[str, str], dict[int, int]]:
    """Short names of the files if two have a case alike, and for each case the how many-th of its kind in its file."""
    kinds = [(str(case.latency.case.artifact), engine(case), case.machine, setting(case)) for case in cases]
    in_file = list(zip(kinds, (str(case.file) for case in cases), strict=True))
    alike = len(set(in_file)) > len(set(kinds))
    numbers = {id(case): in_file[: place + 1].count(in_file[place]) for place, case in enumerate(cases)}
    return short_names(dict.fromkeys(str(case.file) for case in cases)) if alike else {}, numbers


def engine(case: Timed) -> str:
    """Runtime and provider, and whether CUDA graphs were used."""
    graph = ", graph" if case.latency.case.cuda_graph else ""
    return f"{case.latency.case.runtime} ({case.latency.provider}{graph}{case.latency.case.of_size})"


def setting(case: Timed) -> Setting:
    """How a case was called."""
    called = case.latency.case
    return (called.batch, called.threads, called.streams)


def in_words(called: Setting) -> str:
    """A setting for people."""
    batch, threads, streams = called
    words = [f"batch {batch}"]
    words += [f"{threads} thread{'s' * (threads > 1)}"] if threads is not None else []
    words += [f"{streams} streams"] if streams > 1 else []
    return ", ".join(words)


def usual_setting(cases: Sequence[Timed]) -> Setting:
    """The one that most cases have; of several the first."""
    return Counter(map(setting, cases)).most_common(1)[0][0]


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """For each path as many of its last parts as tell all of them apart."""
    parts = {path: PurePath(path).parts or (path,) for path in paths}
    for count in range(1, max(map(len, parts.values()), default=1)):
        names = {path: "/".join(split[-count:]) for path, split in parts.items()}
        if len(set(names.values())) == len(names):
            return names
    return {path: path for path in parts}
