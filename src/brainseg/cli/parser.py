"""Arguments of the command, with errors of one line."""

import re
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from brainseg.cli.output import stop


class Parser(ArgumentParser):
    """A parser that takes no abbreviations and says in one line what is wrong."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(allow_abbrev=False, **arguments)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: ARG002
        """Ends the command."""
        if group := re.match(r"Parser key \"(\w+)\": Unable to load config '(.*?)'", " ".join(message.split())):
            name, value = group.groups()
            first = "root" if name == "data" else "name"
            message = f"--{name} takes a YAML file, and there is no {value}; perhaps --{name}.{first} is meant"
        stop(f"{message}; {self.prog.replace(' [options]', '')} --help shows what there is")


def add_memory_option(parser: Parser) -> None:
    """The option that `main` reads before it runs a command that computes."""
    parser.add_argument(
        "--keep_freed_memory",
        type=bool,
        default=True,
        help="keep freed memory for the next step, faster on the CPU; false: give it back to the system as it is freed",
    )
