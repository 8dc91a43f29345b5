"""The writer in this process: a loaded policy and the decoder of this package."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from recalign.llm.generate import ROOM, Generated, Room, generate
from recalign.policy import Policy
from recalign.writer import Asked, Written


@dataclass(frozen=True)
class LocalWriter:
    """Samples from `policy` on the device it lies on, as many texts at once as `room` has.

    In float32 on a processor a text depends on neither `room` nor the other prompts (elsewhere
    rounding does). See `recalign.writer.Writer`.
    """

    policy: Policy
    room: Room = ROOM

    def write(
        self, prompts: Sequence[str], users: Sequence[int], asked: Asked
    ) -> Iterator[list[Written]]:
        """The texts of all prompts, batch after batch, those of the shortest prompts first."""
        policy = self.policy
        prompt_ids = [policy.encode_prompt(prompt) for prompt in prompts]
        closing = self._sentence_ends if asked.sampling.ends_at == "sentence" else []
        stops = [*policy.eos_ids, *closing]
        for batch in generate(policy.model, prompt_ids, users, asked, stops, self.room):
            yield [self._written(one) for one in batch]

    def _written(self, one: Generated) -> Written:
        """The text; a full stop that ended it belongs to it, an end-of-text token does not."""
        ends = [] if one.end is None or one.end in self.policy.eos_ids else [one.end]
        ids = one.token_ids + ends
        text = self.policy.decode(ids)
        return Written(one.user, one.sample, text, len(ids), one.end is not None)

    @cached_property
    def _sentence_ends(self) -> list[int]:
        return self.policy.sentence_ends()
