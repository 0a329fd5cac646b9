"""Wrong usage: one line that says what is wrong and where to look, and exit code 2."""

from __future__ import annotations

import pytest

from mas_edge.wire.command_line import Parser


def parser() -> Parser:
    top = Parser(prog="tool")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    there = commands.add_parser("go").add_subparsers(required=True, metavar="COMMAND").add_parser("there")
    there.add_argument("--times", type=int, required=True)
    return top


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("", "tool: the following arguments are required: COMMAND (see tool --help)"),
        (
            "go there",
            "tool go there: the following arguments are required: --times (see tool go there --help)",
        ),
        (
            "go there --times x",
            "tool go there: argument --times: invalid int value: 'x' (see tool go there --help)",
        ),
        (
            "go there --times 1 --far",
            "tool go there: unrecognized arguments: --far (see tool go there --help)",
        ),
    ],
)
def test_wrong_usage_is_one_line_of_the_command_that_was_meant(typed, said, capsys):
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(typed.split())
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", said + "\n")


def test_right_usage_is_parsed():
    assert parser().parse_args(["go", "there", "--times", "2"]).times == 2
