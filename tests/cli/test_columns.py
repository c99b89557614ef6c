"""Tables on terminals: what a width has room for, whole words and figures, and a word on what is missing."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vit_deploy.cli import compress, output
from vit_deploy.cli.columns import ELLIPSIS, fitted, on_a_page, paths, prose, ranked
from vit_deploy.cli.options import OutputOptions
from vit_deploy.cli.output import Output
from vit_deploy.compression.table import Row

WIDTHS = (60, 80, 100, 120, 140)
COLUMNS = ranked((paths("artifact"), "runtime", "p50 ms", "p90 ms", "steady"), ["runtime", "p90 ms"])
ROWS = (
    ("models/of/mine/vit/onnx-fp32", "onnxruntime (cpu)", "12.34", "13.00", "yes"),
    ("models/of/mine/vit/onnx-int8", "onnxruntime (cpu)", "4.56", "5.00", "NO"),
)


def test_a_table_that_fits_is_shown_whole():
    shown = fitted(COLUMNS, ROWS, 200, len)
    assert (shown.columns, shown.rows, shown.remarks) == (COLUMNS, ROWS, [])
    assert on_a_page(COLUMNS, ROWS, 40, len) == shown


def test_paths_lose_their_first_parts_before_a_column_is_left_out():
    shown = fitted(COLUMNS, ROWS, 70, len)
    assert [row[0] for row in shown.rows] == ["…/mine/vit/onnx-fp32", "…/mine/vit/onnx-int8"]
    assert shown.columns == COLUMNS
    assert shown.remarks == ["… stands for what was cut (a wider terminal and --json show all)"]


def test_the_least_important_columns_are_left_out_and_named_and_what_is_everywhere_is_told_once():
    shown = fitted(COLUMNS, ROWS, 45, len)
    assert [column.name for column in shown.columns] == ["artifact", "p50 ms", "p90 ms", "steady"]
    assert shown.remarks[0] == "in every row: runtime onnxruntime (cpu)"
    absent = fitted(COLUMNS, [(row[0], "-", *row[2:]) for row in ROWS], 45, len)
    assert absent.remarks[0] == "in every row: runtime none"
    shown = fitted(COLUMNS, ROWS, 36, len)
    assert [column.name for column in shown.columns] == ["artifact", "p50 ms", "steady"]
    assert "left out: p90 ms; " in shown.remarks[1]


def test_what_tells_rows_apart_is_never_cut():
    rows = [("a/vit/onnx-fp32/model.onnx", "1"), ("b/vit/onnx-fp32/model.onnx", "2")]
    shown = fitted(ranked((paths("model"), "max abs")), rows, 38, len)
    assert [row[0] for row in shown.rows] == ["a/vit/onnx-fp32/model.onnx", "b/vit/onnx-fp32/model.onnx"]
    one = fitted(ranked((paths("model"), "max abs")), rows[:1], 34, len)
    assert one.rows[0][0] == "…/onnx-fp32/model.onnx"


def test_sentences_go_on_after_whole_words_and_a_longer_word_is_cut_with_a_mark():
    text = f"resize 224x224 bilinear; mean (0.48145466, 0.4578275) {'0123456789abcdef' * 4}"
    shown = fitted((prose("of"), prose("found")), [("preprocessing", text)], 50, len)
    lines = shown.rows[0][1].split("\n")
    assert all(len(line) <= 50 - 2 - 3 - len("preprocessing") for line in lines)
    assert [word for line in lines[:-1] for word in line.split()] == text.split()[:-1]
    assert lines[-1].endswith(ELLIPSIS) and shown.cut


def test_in_a_file_sentences_go_on_in_the_next_line_and_long_words_are_whole():
    digest = "0123456789abcdef" * 4
    rows = [("preprocessing", "resize 224x224 bilinear; mean 0.48145466, std 0.5"), ("weights digest", digest)]
    shown = on_a_page((prose("of"), prose("found")), rows, 50, len)
    assert shown.rows == (
        ("preprocessing", "resize 224x224 bilinear; mean\n0.48145466, std 0.5"),
        ("weights digest", digest),
    )
    assert shown.remarks == []
    long = on_a_page((prose("of"), prose("found")), [("left to the CPU by Arm Ethos-U85", "2 GELU"), *rows], 50, len)
    assert long.rows[0] == ("left to the CPU\nby Arm Ethos-U85", "2 GELU") and long.rows[1:] == shown.rows


def test_a_table_in_a_pipe_has_no_blanks_behind_its_lines_and_is_as_wide_as_columns_says(run, bundles, monkeypatch):
    for name, most in (("80", 80), ("200", 200), ("", 120)):
        monkeypatch.setenv("COLUMNS", name)
        said = run("inspect", bundles["onnx"]).out.splitlines()
        assert [line for line in said if line != line.rstrip()] == []
        longest = max(len(line) for line in said if "/" not in line and "─" not in line and "digest" not in line)
        assert most - 20 < longest <= most


def test_where_nothing_more_can_be_left_out_cells_stand_below_each_other():
    columns = ranked((paths("artifact"), "runtime", "p50 ms"))
    shown = fitted(columns, [row[:3] for row in ROWS], 30, len)
    assert [row for row in shown.rows if row[0] == "p50 ms"] == [("p50 ms", "12.34"), ("p50 ms", "4.56")]
    assert ("runtime", "onnxruntime (cpu)") in shown.rows and ("", "") in shown.rows


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(2)
    for name in "abcde":
        (folder / "a_data_set_with_a_long_name" / name).mkdir(parents=True)
        picture = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
        picture.save(folder / "a_data_set_with_a_long_name" / name / "photograph.png")
    return folder / "a_data_set_with_a_long_name"


def commands(bundles, keras_file, images, folder):
    """Every command that prints a table and needs no GPU, no other machine and no training."""
    artifacts = list(bundles.values())
    onnx = bundles["onnx"]
    timing = ["--runs", "3"]
    other = folder / "other.keras"
    (folder / "bench.json").unlink(missing_ok=True)
    return [
        ["bench", *artifacts, *timing, "--batch", "1", "--profile"],
        ["bench", onnx, *timing, "--save", folder / "bench.json"],
        ["report", folder / "bench.json", "-o", folder / "page.md"],
        ["verify", *artifacts],
        ["verify", onnx, "--tolerance", "max_abs=1e-12", "--locate"],
        ["export", keras_file, "-f", "onnx,tflite", "-p", "fp32,int8", "-o", folder / "exported", "--no-speed"],
        ["quantize", onnx, "-p", "int8", "-o", folder / "made", "--min-cosine", "0.99", "--no-speed"],
        ["compare", onnx, bundles["tflite"]],
        ["evaluate", *artifacts, "--data", images],
        ["predict", onnx, images],
        ["inspect", bundles["tflite"]],
        ["doctor"],
        ["resize", keras_file, "--image-size", "48x64", "-o", folder / "resized.keras", "--report"],
        ["convert", keras_file, "-o", other],
        ["build", "pico", "-o", folder / "built.keras", "--image-size", "32"],
        ["bundle", onnx, "-o", folder / "archive.tar.gz"],
        ["card", onnx, "-o", folder / "README.md"],
    ]


def wide_and_narrow(title, columns, rows, capfd, monkeypatch):
    """What is printed of a table at each width, and before that without one."""
    texts = {}
    for width in (None, *WIDTHS):
        monkeypatch.setattr(output, "terminal_width", lambda width=width: width)
        capfd.readouterr()
        Output("test", OutputOptions()).table(title, columns, rows)
        texts[width] = capfd.readouterr().out
    return texts


def check(texts):
    """Nothing is wider than the terminal, every word is whole or marked, and a figure is one of the wide table."""
    whole = set(texts[None].split())
    for width in WIDTHS:
        lines = texts[width].splitlines()
        assert max(map(len, lines)) <= width, texts[width]
        ends = [at for at, line in enumerate(lines) if line.startswith(("in every row: ", "left out: ", "… stands"))]
        table = lines[: ends[0]] if ends else lines
        strange = {word for line in table for word in line.split() if ELLIPSIS not in word} - whole
        assert not {word.strip("─") for word in strange} - {""}, (width, strange)
        first = texts[None].splitlines()[1].strip()
        names = [name for name in first.split("  ") if name.strip()]
        told = " ".join(lines)
        if "left out" not in told and "in every row" not in told:
            assert all(part in told for name in names for part in name.split() if "/" not in part), width


@pytest.mark.slow
def test_every_commands_tables_fit_the_terminal(run, bundles, keras_file, images, tmp_path, capfd, monkeypatch):
    printed = []
    table = Output.table

    def keep(self, title, columns, rows):
        printed.append((command[0], title, columns, rows))
        table(self, title, columns, rows)

    monkeypatch.setattr(Output, "table", keep)
    for command in commands(bundles, keras_file, images, tmp_path):
        done = run(*command)
        assert done.code in (0, 1), (command, done.err)
        assert printed and printed[-1][0] == command[0], command
    monkeypatch.setattr(Output, "table", table)
    for _, title, columns, rows in printed:
        check(wide_and_narrow(title, columns, rows, capfd, monkeypatch))


def test_the_table_of_a_compression_fits_the_terminal(capfd, monkeypatch, tmp_path):
    rows = [
        Row("before", "onnx-fp32", 0.9312, 0.0, 5_700_000, 22_900_000, 21_200_000, 12.3, ()),
        Row("after", "onnx-int8-static", 0.9288, 0.5, 2_900_000, 22_900_000, 12_100_000, 12.5, ()),
    ]
    cells = list(map(compress._cells, rows))
    texts = wide_and_narrow("", compress.COLUMNS, cells, capfd, monkeypatch)
    check(texts)
    assert "93.12%" in texts[60] and "92.88%" in texts[60]


def test_bench_keeps_what_it_is_sorted_by_and_whether_it_was_steady(run, bundles, monkeypatch):
    monkeypatch.setattr(output, "terminal_width", lambda: 60)
    artifacts = (bundles["onnx"], bundles["tflite"])
    shown = run("bench", *artifacts, "--runs", "3", "--sort", "memory").out
    head = next(line for line in shown.splitlines() if "artifact" in line)
    assert "p50 ms" in head and "peak MB" in head and "steady" in head
    assert "left out: " in shown and "--json" in shown


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of POSIX")
def test_the_width_is_that_of_the_terminal(bundles):
    import fcntl
    import pty
    import struct
    import termios

    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 60, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "vit_deploy", "inspect", "-q", str(bundles["onnx"])]
    with subprocess.Popen(command, stdout=terminal, stderr=subprocess.PIPE, env=environment) as child:
        os.close(terminal)
        said = b""
        with contextlib.suppress(OSError):  # Linux's way to say that nobody writes any more
            while part := os.read(ours, 65536):
                said += part
    os.close(ours)
    assert child.returncode == 0
    plain = [line for line in said.decode().split("\r\n") if "\x1b" not in line]
    assert 40 < max(map(len, plain)) <= 60


def test_a_file_or_a_pipe_has_no_width(monkeypatch):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((60, 40)))
    assert output.terminal_width() is None
