"""The writer in this process: a loaded policy and the decoder of this package."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from recalign.llm.generate import generate
from recalign.policy import Policy
from recalign.writer import Asked, Written


@dataclass(frozen=True)
class LocalWriter:
    """Samples from `policy` on the device it lies on, at most `rows` texts at once.

    In float32 a text depends on neither `rows` nor the other prompts. See `recalign.writer.Writer`.
    """

    policy: Policy
    rows: int = 2048

    def write(
        self, prompts: Sequence[str], users: Sequence[int], asked: Asked
    ) -> Iterator[list[Written]]:
        """The texts of all prompts, batch after batch, those of the shortest prompts first."""
        policy = self.policy
        prompt_ids = [policy.encode_prompt(prompt) for prompt in prompts]
        for batch in generate(policy.model, prompt_ids, users, asked, policy.eos_ids, self.rows):
            yield [
                Written(user, sample, policy.decode(ids), len(ids), finished)
                for user, sample, ids, finished in batch
            ]
