"""How the words of a command line are read, and refused in one sentence."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from ..engine.names import suggestion


class Parser(argparse.ArgumentParser):
    """A parser that refuses an unknown word in one sentence and reads -8/255 as a number."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Of the subcommands; options check their names themselves."""
        if action.choices is not None and value not in action.choices:
            near = suggestion(value, action.choices)
            known = ", ".join(action.choices)
            message = f"expected one of {known}, got {value!r}{near}"
            raise argparse.ArgumentError(action, message)

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Exits with an error about words that no option or argument takes."""
        word = unknown[0].partition("=")[0]
        if re.fullmatch(r"-?[\d./]+", word):
            self.error(f"unexpected {word!r}: the option before it takes no value, or fewer")
        if word.startswith("-"):
            self.error(f"unknown option {word}{suggestion(word, self._option_string_actions)}")
        self.error(f'unexpected {word!r}; names with spaces need quotes, such as "my photos"')

    def error(self, message: str) -> NoReturn:
        before, _, missing = message.partition("the following arguments are required: ")
        if missing and not before:
            message = f"missing argument{'s' if ', ' in missing else ''}: {missing}"
        message = message.replace("ignored explicit argument", "expected no value, got")
        self.exit(2, f"unlearnable: {message} (see {self.prog} --help)\n")


class Command:
    """Adds options to a subcommand, directly or with ``experts`` in a separate group."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser
        self._experts: Any = None

    def __call__(self, *names: str, **options: Any) -> None:
        self._parser.add_argument(*names, **options)

    def usage(self, words: str) -> None:
        """Sets the first line of the help, instead of a list of all options."""
        self._parser.usage = f"{self._parser.prog} {words}"

    def experts(self, *names: str, **options: Any) -> None:
        if self._experts is None:
            self._experts = self._parser.add_argument_group("for experts")
        self._experts.add_argument(*names, **options)
