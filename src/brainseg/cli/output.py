"""What the command says, and how it ends when something is wrong."""

import sys
from typing import NoReturn


def say(text: str) -> None:
    """One line for the user, never wrapped or coloured."""
    from rich.console import Console

    Console(markup=False).print(text, soft_wrap=True, highlight=False)


def in_words(error: OSError | ValueError) -> str:
    """What is wrong, and with which file where the system alone says it."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    if error.filename is None:  # what was raised here says it all
        return str(error.strerror)
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{error.filename} needs a folder, and a file is there; give another folder"
    return f"{error.filename}: {error.strerror}"


def stop(message: str, *, code: int = 2) -> NoReturn:
    """One line and an exit code, by default that of what is the user's to change."""
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    raise SystemExit(code)
