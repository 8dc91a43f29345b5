"""How long work tells how far it is: one callable, so that the library knows no display."""

from typing import Protocol


class Progress(Protocol):
    """Called with the amount done, the total and a short note ("loss 2.31")."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def silent(done: int, total: int, note: str = "") -> None:
    """The default: show nothing."""
