"""Where every slow test is run: by a step of `.ci/run`, or by hand as CONTRIBUTING.md says."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- slow tests of no step -->", "<!-- end -->"
FILE = re.compile(r"tests/[\w/]+\.py(?:::\w+)?")


@dataclass(frozen=True)
class Step:
    """What one `pytest` of slow tests in `.ci/run` takes.

    Args:
        paths: files, folders and single tests.
        without: parts of names that its `-k` leaves out.
    """

    paths: tuple[str, ...]
    without: tuple[str, ...]

    def runs(self, test: str) -> bool:
        """Whether a test, `tests/module.py::name`, is among them."""
        file, _, name = test.partition("::")
        named = any(path in (file, test) or file.startswith(f"{path}/") for path in self.paths)
        return named and not any(part in name for part in self.without)


def steps(script: str) -> list[Step]:
    """Those of a script whose `-m` asks for slow tests, or for those on Arm, which are slow too."""
    found = []
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True) if "pytest " in line else []
        if "-m" in words and words[words.index("-m") + 1] in ("slow", "arm"):
            left_out = words[words.index("-k") + 1] if "-k" in words else ""
            paths = tuple(word for word in words if word.startswith("tests/"))
            found.append(Step(paths, tuple(re.findall(r"not (\w+)", left_out))))
    return found


def is_slow(node: ast.AST) -> bool:
    """Whether `mark.slow` stands anywhere in it."""
    return any(
        isinstance(one, ast.Attribute)
        and one.attr == "slow"
        and (isinstance(one.value, ast.Attribute) and one.value.attr == "mark")
        for one in ast.walk(node)
    )


def slow_tests(file: str, text: str) -> Iterator[str]:
    """The tests of a module that are slow, or have cases that are; all of them where the mark is outside of tests."""
    body = ast.parse(text).body
    tests = [each for each in body if isinstance(each, ast.FunctionDef) and each.name.startswith("test_")]
    everything = any(is_slow(each) for each in body if each not in tests)
    for each in tests:
        if everything or is_slow(each):
            yield f"{file}::{each.name}"


def by_hand(text: str) -> set[str]:
    """Files and tests between the markers of CONTRIBUTING.md."""
    return set(FILE.findall(text.partition(BEGIN)[2].partition(END)[0]))


def all_slow_tests() -> list[str]:
    return [
        test
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for test in slow_tests(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    ]


def test_every_slow_test_is_in_a_step_or_said_to_be_run_by_hand() -> None:
    taken = steps((ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    told = by_hand((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    left = {test for test in all_slow_tests() if not any(step.runs(test) for step in taken)}
    untold = {test for test in left if not told & {test, test.partition("::")[0]}}
    assert not untold, f"in no step of .ci/run, and not in CONTRIBUTING.md: {sorted(untold)}"
    needless = {each for each in told if not left & {each} and not any(test.startswith(f"{each}::") for test in left)}
    assert not needless, f"CONTRIBUTING.md says that no step runs these: {sorted(needless)}"


def test_what_a_step_names_is_there() -> None:
    for step in steps((ROOT / ".ci" / "run").read_text(encoding="utf-8")):
        for path in step.paths:
            file, _, name = path.partition("::")
            assert (ROOT / file).exists(), path
            assert not name or f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), path


def test_marks_on_cases_and_modules_are_seen() -> None:
    case = "@pytest.mark.parametrize('a', [pytest.param(1, marks=pytest.mark.slow)])\ndef test_a(a): ...\n"
    module = "pytestmark = [pytest.mark.slow]\ndef test_a(): ...\ndef helper(): ...\n"
    assert list(slow_tests("f.py", f"{case}def test_b(): ...\n")) == ["f.py::test_a"]
    assert list(slow_tests("f.py", module)) == ["f.py::test_a"]
    assert not list(slow_tests("f.py", "def test_slow(): ...\n"))


def test_steps_are_read_with_what_they_leave_out() -> None:
    paths = "tests/a.py \\\n  tests/folder tests/b.py::test_b"
    [step] = steps(f"pytest -q\nA=1 pytest -m slow -k 'not whole and not any' {paths}\n")
    assert all(step.runs(test) for test in ("tests/a.py::test_a", "tests/folder/c.py::test_c", "tests/b.py::test_b"))
    others = ("tests/a.py::test_whole", "tests/b.py::test_c", "tests/folders.py::test_d")
    assert not any(step.runs(test) for test in others)
