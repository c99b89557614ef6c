"""Files of names, one a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from vit_deploy.errors import DataError
from vit_deploy.text.lines import lines_of


@pytest.mark.parametrize(
    ("held", "names"),
    [
        (b"cat\ndog", ["cat", "dog"]),
        (b"\xef\xbb\xbfcat\r\ndog\r\n", ["cat", "dog"]),
        (b"cat\rdog\r", ["cat", "dog"]),
        ("猫\n🙂 \n\n\n".encode(), ["猫", "🙂"]),
        ("form\x0bfeed\u2028inside\n".encode(), ["form\x0bfeed\u2028inside"]),
    ],
)
def test_lines_are_read_whatever_ends_them(held: bytes, names: list[str], tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(held)
    assert lines_of(tmp_path / "labels.txt", "class") == names


@pytest.mark.parametrize(
    ("held", "problem"),
    [
        (b"", "labels.txt is empty"),
        (b"\n\n", "labels.txt is empty"),
        (b"cat\n\ndog\n \nfox", "labels.txt has no class in line 2, 4"),
        ("cat\nmäuse".encode("latin-1"), "labels.txt is no UTF-8 text: line 2 has the byte 0xE4 at 2"),
        (b"\xef\xbb\xbf\xff", "labels.txt is no UTF-8 text: line 1 has the byte 0xFF at 1"),
        ("cat\n\u200b \u2060\ndog".encode(), "labels.txt has no class in line 2"),
        ("cat".encode("utf-16"), "labels.txt is UTF-16 text; expected UTF-8"),
        ("cat".encode("utf-32"), "labels.txt is UTF-32 text; expected UTF-8"),
        ("cat\ndog".encode("utf-16-be"), "labels.txt is no UTF-8 text: line 1 has the control character 0x00"),
        ("cat\n犬".encode("iso2022_jp"), "labels.txt is no UTF-8 text: line 2 has the control character 0x1B"),
        ("猫\n犬".encode("shift_jis"), "labels.txt is no UTF-8 text: line 1 has the byte 0x94 at 1"),
    ],
)
def test_files_that_hold_no_names_are_refused(held: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(held)
    with pytest.raises(DataError) as caught:
        lines_of(tmp_path / "labels.txt", "class")
    assert problem in caught.value.message
    assert caught.value.fix


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*labels.txt: No such file"):
        lines_of(tmp_path / "labels.txt", "class")
