"""Tables in Markdown keep their cells, whatever is in them."""

from __future__ import annotations

from vit_deploy.core.markdown import SPECIAL, escaped, table


def test_a_table_has_a_line_a_row_and_numbers_stand_at_the_right():
    assert table(["case", "ms"], [["a", "1.5"], ["b", "20"]], numeric=[1]) == [
        "| case | ms |",
        "| --- | ---: |",
        "| a | 1.5 |",
        "| b | 20 |",
    ]


def test_every_special_character_is_escaped_and_lines_are_joined():
    assert escaped(SPECIAL) == "".join(f"\\{character}" for character in SPECIAL)
    assert escaped("a|b\n\n c") == "a\\|b c"
    assert escaped("a&b") == "a&b" and escaped("a&b", SPECIAL + "&") == "a\\&b"
