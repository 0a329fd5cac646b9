"""Wrong usage of a command is said in one line, as all other bad input is.

argparse by itself prints the usage above it, and for an unknown option that of the outermost command.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

WRONG = 2
"""The exit code of wrong usage and of wrong configuration."""


class Parser(argparse.ArgumentParser):
    """A parser that ends with exit code 2 and one line: the command, what is wrong, where to look."""

    def error(self, message: str) -> NoReturn:
        """End because of wrong usage."""
        self.exit(WRONG, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """The options; as this is also how a subcommand parses its own, it names what it does not know."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown
