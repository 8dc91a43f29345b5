"""How long work tells how far it is: one callable, so that the library knows no display."""

from typing import Protocol


class Progress(Protocol):
    """Called with the amount done, the total and a short note.

    A note that begins with a figure, "loss 2.31, epoch 3", is drawn as a curve over what is done.
    """

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


def silent(done: int, total: int, note: str = "") -> None:
    """The default: show nothing."""
