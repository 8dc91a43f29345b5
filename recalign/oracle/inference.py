"""States and exact ranks for many users, in bounded memory."""

import numpy as np
import torch
from torch import Tensor

from recalign.oracle.sequence_model import SequenceModel
from recalign.ranking import row_chunks, target_ranks
from recalign.sequences import Sequences

POSITIONS = {"cpu": 1 << 13, "cuda": 1 << 20}  # in one pass; a CPU's cache must hold them

PRODUCT_USERS = 16  # a product for fewer users spends its time on reading a large item matrix


@torch.inference_mode()
def states_of(
    model: SequenceModel,
    sequences: Sequences,
    users: np.ndarray,
    stops: np.ndarray,
) -> Tensor:
    """States [U, d] of `users` [U] after their items at positions < stops [U], on model's device.

    Of a longer history only the latest `model.longest` items are read. Users are taken by length,
    as many at a time as suit the device; the result keeps their given order.
    """
    device = model.items.device
    matrix = model.item_matrix()
    lengths = np.minimum(np.minimum(stops, sequences.lengths[users]), model.longest)
    order = np.argsort(lengths, kind="stable")
    batch = max(1, POSITIONS.get(device.type, 1 << 13) // max(1, int(lengths.max(initial=1))))
    states = torch.empty(len(users), model.config.hidden, device=device)
    for start in range(0, len(users), batch):
        rows = order[start : start + batch]
        histories, sizes = sequences.until(users[rows], stops[rows], model.longest)
        found = model.states(
            torch.from_numpy(histories).to(device), torch.from_numpy(sizes).to(device), matrix
        )
        states[torch.from_numpy(rows).to(device)] = found
    return states


@torch.inference_mode()
def scores_of(
    model: SequenceModel,
    sequences: Sequences,
    users: np.ndarray,
    stops: np.ndarray,
    items: np.ndarray,
) -> np.ndarray:
    """Scores of `items` [U, C] to `users` [U] after positions < stops [U], float32 [U, C].

    -inf at padding (item 0). A user may stand in several rows, with different stops.
    """
    states = states_of(model, sequences, users, stops)
    matrix, bias = model.item_matrix(), model.bias
    found = np.full(items.shape, -np.inf, dtype=np.float32)
    for rows in row_chunks(len(items), items.shape[1] * states.shape[1]):
        asked = torch.from_numpy(items[rows]).to(states.device)
        scores = torch.einsum("ud,und->un", states[rows], matrix[asked]) + bias[asked]
        found[rows] = scores.masked_fill(asked == 0, -torch.inf).float().cpu().numpy()
    return found


@torch.inference_mode()
def rank_in_full(
    model: SequenceModel,
    sequences: Sequences,
    users: np.ndarray,
    stops: np.ndarray,
    targets: np.ndarray,
) -> np.ndarray:
    """Ranks of `targets` [U, T] (0 padded) in the whole catalogue, int64 [U, T], 0 at padding.

    All items at positions < stops [U] are seen and never ranked, unless they are targets.
    """
    device = model.items.device
    states = states_of(model, sequences, users, stops)
    matrix, bias = model.item_matrix(), model.bias
    ranks = np.zeros(targets.shape, dtype=np.int64)
    for rows in row_chunks(len(users), model.n_items + 1, least=PRODUCT_USERS):
        seen, _ = sequences.until(users[rows], stops[rows], int(stops[rows].max(initial=1)))
        ranks[rows] = target_ranks(
            torch.addmm(bias, states[rows], matrix.T),
            torch.from_numpy(targets[rows]).to(device),
            torch.from_numpy(seen).to(device),
        ).cpu()
    return ranks
