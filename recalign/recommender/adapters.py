"""What a text vector becomes beyond its projection: a gated layer, or KAR's small experts."""

import torch
from torch import Tensor, nn

N_EXPERTS = 4


class GatedAdapter(nn.Module):
    """W_o (gelu(W_1 z) * sigmoid(W_2 z)): two layers, the second one gates the first."""

    def __init__(self, width: int, hidden: int, out: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.gate = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Linear(hidden, out, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """z [..., width] -> [..., out]."""
        opened = nn.functional.gelu(self.inner(z)) * torch.sigmoid(self.gate(z))
        return self.outer(self.dropout(opened))


class ExpertsAdapter(nn.Module):
    """sum_n softmax(W_g z)_n E_n(z): small experts, mixed by the text (KAR, arXiv 2306.10933)."""

    def __init__(self, width: int, hidden: int, out: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, N_EXPERTS * hidden)
        self.dropout = nn.Dropout(dropout)
        self.outer = nn.Parameter(torch.randn(N_EXPERTS, hidden, out) / hidden**0.5)
        self.mixture = nn.Linear(width, N_EXPERTS)

    def forward(self, z: Tensor) -> Tensor:
        """z [..., width] -> [..., out]."""
        inner = self.dropout(nn.functional.gelu(self.inner(z))).unflatten(-1, (N_EXPERTS, -1))
        weighted = inner * torch.softmax(self.mixture(z), dim=-1)[..., None]
        return weighted.flatten(-2) @ self.outer.flatten(0, 1)


class SharedExperts(nn.Module):
    """KAR's hybrid-expert adaptor: experts of a source and experts that all sources share.

    sum_n softmax(W_s z)_n E_n(z) over the experts of source s and the shared ones, which are as
    many (arXiv 2306.10933, equation 6; two layers each).
    """

    def __init__(self, width: int, out: int, n_sources: int, dropout: float) -> None:
        super().__init__()
        self.shared = nn.ModuleList(_expert(width, out, dropout) for _ in range(N_EXPERTS // 2))
        self.own = nn.ModuleList(
            nn.ModuleList(_expert(width, out, dropout) for _ in range(N_EXPERTS // 2))
            for _ in range(n_sources)
        )
        self.mixtures = nn.ModuleList(nn.Linear(width, N_EXPERTS) for _ in range(n_sources))

    def forward(self, z: Tensor, source: int) -> Tensor:
        """z [..., width] of a source -> [..., out]."""
        experts = [*self.shared, *self.own[source]]  # type: ignore[misc]
        told = torch.stack([expert(z) for expert in experts], -2)
        weights = torch.softmax(self.mixtures[source](z), -1)
        return (weights[..., None] * told).sum(-2)


def _expert(width: int, out: int, dropout: float) -> nn.Sequential:
    inner = max(out, width // 4)
    return nn.Sequential(
        nn.Linear(width, inner), nn.GELU(), nn.Dropout(dropout), nn.Linear(inner, out)
    )


@torch.no_grad()
def scale_output(adapter: nn.Module, factor: float) -> None:
    """Multiply what comes out of either adapter by `factor`."""
    for name, weight in adapter.named_parameters():
        if name.startswith("outer"):
            weight.mul_(factor)
