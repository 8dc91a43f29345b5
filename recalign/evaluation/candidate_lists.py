"""Short candidate lists: a few held-out items among drawn negatives (KAR), and ranks in them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from recalign.ranking import target_ranks


@dataclass(frozen=True)
class CandidateLists:
    """items [U, C], 0 padded, of which the first n_targets [U] are the user's held-out items."""

    items: Tensor
    n_targets: Tensor

    def of(self, where: slice, n_samples: int, device: torch.device) -> "CandidateLists":
        """The lists of some users on `device`, each repeated for the user's samples."""
        return CandidateLists(
            self.items[where].to(device).repeat_interleave(n_samples, 0),
            self.n_targets[where].to(device).repeat_interleave(n_samples, 0),
        )


def candidate_lists(
    targets: Tensor, negatives: Tensor, list_targets: int, list_length: int
) -> CandidateLists:
    """The first `list_targets` targets, filled up to `list_length` with the first negatives.

    targets [U, T] in order of time and negatives [U, N], both 0 padded at their end. A target that
    is repeated counts once, as in the full catalogue (`target_ranks`). A user with
    fewer targets gets more negatives; a list is shorter only where the negatives run out.
    ValueError: a drawn negative is one of the user's targets.
    """
    kept, negatives = _distinct(targets)[:, :list_targets], negatives[:, :list_length]
    if (negatives[:, :, None] == kept[:, None, :]).logical_and(kept[:, None, :] > 0).any():
        raise ValueError("a negative of a candidate list is a target of its user")
    joined = _padding_last(torch.cat([kept, negatives], 1))
    return CandidateLists(joined[:, :list_length], (kept > 0).sum(1))


def _distinct(targets: Tensor) -> Tensor:
    """The rows [U, T] without later copies of an item, 0 padded at their end."""
    ordered, places = targets.sort(dim=1, stable=True)  # equal items next to each other
    again = torch.zeros_like(targets, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    copies = torch.zeros_like(again).scatter(1, places, again)
    return _padding_last(targets.masked_fill(copies, 0))


def _padding_last(rows: Tensor) -> Tensor:
    """The rows with every 0 at their end, by a stable sort: the items keep their order."""
    order = (rows == 0).to(torch.int8).argsort(dim=1, stable=True)
    return rows.gather(1, order)


def ranks_in_lists(scores: Tensor, lists: CandidateLists) -> Tensor:
    """Ranks of the targets among their lists, int64 [B, T], 0 padded; scores [B, C] of the items.

    Ties count against the targets, as in the full catalogue.
    """
    length, most = lists.items.shape[1], int(lists.n_targets.max())
    places = torch.arange(1, length + 1, device=scores.device)
    is_target = places[:most] <= lists.n_targets[:, None]
    is_padding = lists.items == 0
    own = torch.nn.functional.pad(scores, (1, 0))
    return target_ranks(own, places[:most] * is_target, places * is_padding)
