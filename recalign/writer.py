"""The door between prompts and texts: what any writer is asked, and what it gives back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from recalign.config import AnswersConfig


@dataclass(frozen=True)
class Asked:
    """What is wanted for every prompt alike.

    Text s of user u is drawn from the random stream (sampling.seed, stream, u, s), so that it
    does not depend on the other prompts; a writer that cannot promise this says so.
    """

    sampling: AnswersConfig
    n_samples: int  # sampled texts per prompt
    greedy: bool = True  # and the one of the most likely tokens
    stream: str = "reasonings"

    @property
    def samples(self) -> range:
        """Numbers of one prompt's texts: 0..n_samples-1, and before them -1 for the greedy one."""
        return range(-1 if self.greedy else 0, self.n_samples)


@dataclass(frozen=True)
class Written:
    """One text of one prompt."""

    user: int
    sample: int  # one of `Asked.samples`
    text: str  # without special tokens
    n_tokens: int  # without the token that ended it
    finished: bool  # False: cut off at max_new_tokens


class Writer(Protocol):
    """Turns prompts into texts: an LLM in this process, or one behind a server.

    It knows nothing of shards, of resuming, of checks or of progress: those are the same for all
    writers and stand outside (see recalign.reasonings.generation).
    """

    def write(
        self, prompts: Sequence[str], users: Sequence[int], asked: Asked
    ) -> Iterator[list[Written]]:
        """All texts of all prompts, in any order, handed over in groups as they are done.

        users: whose prompt each is, all different. Raises UserError for a prompt it cannot take.
        """
