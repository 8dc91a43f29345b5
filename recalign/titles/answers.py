"""What the LLM answers when nothing holds it to the catalogue, and which title that is."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:  # transformers: seconds, for those who only match titles
    from recalign.titles.reading import Reading


def greedy_answers(
    reading: "Reading", stop_ids: Sequence[int], max_new_tokens: int
) -> list[list[int]]:
    """Per prompt, the most likely token again and again until a stop token, which is kept.

    A stop token may be part of the text: a whole title, or its last letters and the line break.
    """
    stops = torch.tensor(list(stop_ids), dtype=torch.int64, device=reading.first.device)
    token = reading.first.argmax(-1)
    written = [token]
    stopped = torch.isin(token, stops)
    for depth in range(max_new_tokens - 1):
        if stopped.all():
            break
        sees = torch.ones(len(token), 1, depth + 1, dtype=torch.bool, device=token.device)
        depths = torch.full_like(token, depth)[:, None]
        token = reading.extend(token[:, None], depths, sees)[:, 0].argmax(-1)
        written.append(token)
        stopped |= torch.isin(token, stops)
    reading.forget()
    table = torch.stack(written, 1)
    ends = torch.isin(table, stops).int()
    lengths = torch.where(ends.any(1), ends.argmax(1) + 1, table.shape[1])
    return [ids[:n] for ids, n in zip(table.tolist(), lengths.tolist(), strict=True)]


def match_titles(
    texts: Sequence[str], titles: Sequence[str], normalised: Callable[[str], str]
) -> np.ndarray:
    """The item whose whole title each text is, once both are normalised: int64 [n], 0: none.

    titles[0] is padding. "Alien" is not "Aliens": nothing is matched by parts.
    """
    items = {normalised(title): item for item, title in enumerate(titles) if item}
    return np.array([items.get(normalised(text), 0) for text in texts], dtype=np.int64)
