"""What the LLM answers when nothing holds it to the catalogue, and which title that is."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:  # transformers: seconds, for those who only match titles
    from recalign.titles.reading import Reading


ENOUGH = 32  # tokens of an answer that is no title, to be read and told from others


def greedy_answers(
    reading: "Reading",
    stop_ids: Sequence[int],
    max_new_tokens: int,
    promising: Callable[[list[int]], bool] = lambda ids: True,
) -> list[list[int]]:
    """Per prompt, the most likely token again and again until a stop token, which is kept.

    A stop token may be part of the text: a whole title, or its last letters and the line break. An
    answer of `ENOUGH` tokens goes on only as long as its tokens so far are `promising`: an LLM that
    talks on and on would cost as much as the longest title twice.
    """
    stops = torch.tensor(list(stop_ids), dtype=torch.int64, device=reading.first.device)
    token = reading.first.argmax(-1)
    written = [token]
    lengths = torch.isin(token, stops).long()  # 0: not at its end
    for depth in range(max_new_tokens - 1):
        if lengths.all():
            break
        sees = torch.ones(len(token), 1, depth + 1, dtype=torch.bool, device=token.device)
        depths = torch.full_like(token, depth)[:, None]
        token = reading.extend(token[:, None], depths, sees)[:, 0].argmax(-1)
        written.append(token)
        ended = torch.isin(token, stops)
        if len(written) >= ENOUGH:
            for row in torch.nonzero((lengths == 0) & ~ended)[:, 0].tolist():
                ended[row] = not promising([int(tokens[row]) for tokens in written])
        lengths = torch.where((lengths == 0) & ended, len(written), lengths)
    reading.forget()
    table = torch.stack(written, 1).tolist()
    return [ids[: n or len(ids)] for ids, n in zip(table, lengths.tolist(), strict=True)]


def beginnings(titles: Sequence[str], normalised: Callable[[str], str]) -> Callable[[str], bool]:
    """Whether a text may yet become a title, once both are normalised; titles[0] is padding.

    Its last letters are not looked at: half a letter, or one that what follows may still change.
    """
    known = sorted(normalised(title) for title in titles[1:])

    def begins(text: str) -> bool:
        start = normalised(text)[:-4]
        at = bisect_left(known, start)
        return at < len(known) and known[at].startswith(start)

    return begins


def match_titles(
    texts: Sequence[str], titles: Sequence[str], normalised: Callable[[str], str]
) -> np.ndarray:
    """The item whose whole title each text is, once both are normalised: int64 [n], 0: none.

    titles[0] is padding. "Alien" is not "Aliens": nothing is matched by parts.
    """
    items = {normalised(title): item for item, title in enumerate(titles) if item}
    return np.array([items.get(normalised(text), 0) for text in texts], dtype=np.int64)
