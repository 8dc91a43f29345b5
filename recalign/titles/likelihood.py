"""How likely an LLM finds titles as the answer to a prompt: candidates, or the whole catalogue."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from recalign.policy import Policy
from recalign.titles.answers import greedy_answers
from recalign.titles.beam import beam_search
from recalign.titles.packed import title_log_probs
from recalign.titles.reading import Reading, check_room
from recalign.titles.trie import Catalogue, Trie, catalogue_of, trie_of

FED = 256  # at most about as many title tokens stand behind one prompt in one pass
LOGITS = {"cpu": 1 << 26, "cuda": 1 << 28}  # held at once, of the model's own width
TOKENS = {"cpu": 1 << 11, "cuda": 1 << 15}  # of prompts read at once, with their keys and values
ROWS = 512


class TitleScorer:
    """Log-probabilities of titles, summed over their tokens (or, with `mean`, per token).

    title_ids[i] are the tokens of item i's title as the answer to any prompt, whatever ends it
    included; title_ids[0] is empty (padding). Prompts are token ids, none empty.
    """

    def __init__(
        self, policy: Policy, title_ids: Sequence[Sequence[int]], *, mean: bool = False
    ) -> None:
        if len(title_ids[0]) or not all(len(ids) for ids in title_ids[1:]):
            raise ValueError("title 0 is padding and has no tokens; every other title has some")
        self.policy, self.title_ids, self.mean = policy, title_ids, mean
        self.longest = max(len(ids) for ids in title_ids)
        self.lengths = torch.tensor([max(1, len(ids)) for ids in title_ids])
        self.single = self.longest == 1
        self._chunks: dict[int, list[tuple[np.ndarray, Trie]]] = {}

    @property
    def n_answer_tokens(self) -> int:
        """Most tokens of a free answer: room for texts that are no title, where titles end."""
        return 1 if self.single else 2 * self.longest

    def require_room(self, prompt: int) -> None:
        """UserError when prompts of so many tokens leave the LLM no room for free answers."""
        check_room(self.policy.model, prompt + self.n_answer_tokens, not self.single)

    @cached_property
    def tree(self) -> Catalogue:
        """All titles in one tree."""
        return catalogue_of(self.title_ids)

    def read(self, prompts: Sequence[Sequence[int]]) -> "TitleReading":
        """Read these prompts once, all in one batch, for any of the questions below."""
        return TitleReading(self, prompts)

    def candidates(
        self, prompts: Sequence[Sequence[int]], candidates: np.ndarray, *, rows: int = ROWS
    ) -> np.ndarray:
        """log p(title | prompt) of candidates [B, C] (0 padded): float32 [B, C], -inf at padding.

        One packed row per prompt: [prompt | title tokens ...], shared beginnings once.
        """
        found = np.full(candidates.shape, -np.inf, dtype=np.float32)
        for batch, reading in self._readings(prompts, rows):
            found[batch] = reading.candidates(candidates[batch])
        return found

    def catalogue(self, prompts: Sequence[Sequence[int]], *, rows: int = ROWS) -> np.ndarray:
        """log p(title | prompt) of every item: float32 [B, I+1], -inf for padding (column 0)."""
        found = np.empty((len(prompts), len(self.title_ids)), dtype=np.float32)
        for batch, reading in self._readings(prompts, rows):
            found[batch] = reading.catalogue().cpu()
        return found

    def _readings(
        self, prompts: Sequence[Sequence[int]], rows: int
    ) -> "Iterator[tuple[np.ndarray, TitleReading]]":
        """Prompts of nearly equal length, read together: their places int64 [b], and these read."""
        for batch in self.batches(prompts, rows):
            yield batch, self.read([prompts[i] for i in batch])

    def batches(self, prompts: Sequence[Sequence[int]], rows: int) -> list[np.ndarray]:
        """Which prompts to read together, at most `rows`: int64 [b] each, the longest first.

        So a few long prompts cost the others neither padding nor room.
        """
        order, parts = np.argsort([-len(prompt) for prompt in prompts], kind="stable"), []
        while len(order):
            n = self.rows_at_once([prompts[order[0]]], rows)
            parts.append(order[:n])
            order = order[n:]
        return parts

    def rows_at_once(self, prompts: Sequence[Sequence[int]], rows: int) -> int:
        """How many of these prompts may be read together, at most `rows`."""
        longest = max((len(prompt) for prompt in prompts), default=1)
        tokens = TOKENS.get(self.policy.model.device.type, TOKENS["cpu"])
        return max(1, min(rows, tokens // longest, self._logits_of_tokens))

    def fed_at_once(self, rows: int) -> int:
        """How many title tokens stand behind each of this many prompts in one pass.

        Few behind many is as much work as many behind few, and every step of a free answer or of
        the beam, which feeds a token or a few, serves more prompts.
        """
        return max(1, min(FED, self._logits_of_tokens // rows))

    @property
    def _logits_of_tokens(self) -> int:
        """Of how many tokens the logits are held at once."""
        held = LOGITS.get(self.policy.model.device.type, LOGITS["cpu"])
        return held // self.policy.model.config.get_text_config().vocab_size

    def chunks(self, fed: int) -> list[tuple[np.ndarray, Trie]]:
        """The catalogue in parts of about `fed` title tokens: items [t] and their tree."""
        if fed not in self._chunks:
            order = self.tree.order
            sizes = np.cumsum([len(self.title_ids[item]) for item in order])
            cuts = np.flatnonzero(np.diff(sizes // fed)) + 1
            parts = [items for items in np.split(order, cuts) if len(items)]
            self._chunks[fed] = [(items, self.trie(items)) for items in parts]
        return self._chunks[fed]

    def trie(self, items: np.ndarray) -> Trie:
        """The tree of these items' titles."""
        return trie_of([self.title_ids[item] for item in items.tolist()])

    def normed(self, log_probs: Tensor, items: Tensor) -> Tensor:
        """Sums over tokens [B, C] as they were asked for; -inf at padding."""
        if self.mean:
            log_probs = log_probs / self.lengths.to(items.device)[items]
        return log_probs.masked_fill(items == 0, -torch.inf)


class TitleReading:
    """Prompts read by a `TitleScorer`'s model: every question about them costs only its answer."""

    def __init__(self, scorer: TitleScorer, prompts: Sequence[Sequence[int]]) -> None:
        self.scorer = scorer
        continued = not scorer.single
        self.reading = Reading(scorer.policy, prompts, scorer.longest, continued=continued)

    def candidates(self, candidates: np.ndarray) -> np.ndarray:
        """See `TitleScorer.candidates`."""
        items = torch.from_numpy(candidates).to(self.reading.first.device, torch.int64)
        if self.scorer.single:
            return self._single()[torch.arange(len(items))[:, None], items].cpu().numpy()
        lengths = self.scorer.lengths[candidates]
        longest = int(lengths.sum(1).max())  # title tokens of a row
        n_parts = min(-(-longest // self.scorer.fed_at_once(len(items))), candidates.shape[1])
        order = lengths.argsort(dim=1, stable=True)  # titles of like length together: less padding
        parts = np.array_split(np.take_along_axis(candidates, order.numpy(), 1), n_parts, axis=1)
        tries = ([self.scorer.trie(row) for row in part] for part in parts)
        found = torch.cat([title_log_probs(self.reading, own) for own in tries], 1)
        found = found.gather(1, order.argsort(1).to(found.device))
        return self.scorer.normed(found, items).cpu().numpy()

    def catalogue(self) -> Tensor:
        """See `TitleScorer.catalogue`; stays on the model's device."""
        if self.scorer.single:
            return self._single()
        first = self.reading.first
        found = first.new_zeros(len(first), len(self.scorer.title_ids))
        for items, trie in self.scorer.chunks(self.scorer.fed_at_once(len(first))):
            found[:, torch.from_numpy(items)] = title_log_probs(self.reading, [trie])
        every = torch.arange(found.shape[1], device=found.device)
        return self.scorer.normed(found, every.expand_as(found))

    def beam(self, width: int, forbidden: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The best titles found: items int64 [B, width] (0 padded), log-probs float32 [B, width].

        forbidden: see `beam_search`. Prefixes are cut by their sums, also where `mean` is asked.
        """
        items, sums = beam_search(self.reading, self.scorer.tree, width, forbidden)
        scores = self.scorer.normed(torch.from_numpy(sums), torch.from_numpy(items)).numpy()
        order = np.argsort(-scores, axis=1, kind="stable")
        return np.take_along_axis(items, order, 1), np.take_along_axis(scores, order, 1)

    def answers(
        self, max_new_tokens: int, promising: Callable[[list[int]], bool] = lambda ids: True
    ) -> list[list[int]]:
        """Free greedy answers, see `greedy_answers`; UserError without room for them."""
        self.reading.require_room(max_new_tokens)
        return greedy_answers(self.reading, self.scorer.policy.eos_ids, max_new_tokens, promising)

    def _single(self) -> Tensor:
        """All titles are single tokens: one distribution holds them all, [B, I+1]."""
        first = self.reading.first
        tokens = [ids[0] for ids in self.scorer.title_ids[1:]]
        found = first.new_full((len(first), len(tokens) + 1), -torch.inf)
        log_probs = first[:, torch.tensor(tokens, device=first.device)]
        torch.sub(log_probs, first.logsumexp(1, keepdim=True), out=found[:, 1:])
        return found
