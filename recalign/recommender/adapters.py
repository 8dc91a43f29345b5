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
        half, self.inner = N_EXPERTS // 2, max(out, width // 4)
        self.shared = nn.Linear(width, half * self.inner)
        self.own = nn.ModuleList(
            nn.Linear(width, half * self.inner + N_EXPERTS) for _ in range(n_sources)
        )  # its experts, and the mixture of all
        self.dropout = nn.Dropout(dropout)
        scale = self.inner**-0.5
        self.shared_out = nn.Parameter(torch.randn(half, self.inner, out) * scale)
        self.own_out = nn.Parameter(torch.randn(n_sources, half, self.inner, out) * scale)

    def forward(self, z: Tensor, source: int) -> Tensor:
        """z [..., width] of a source -> [..., out]."""
        own, mixture = self.own[source](z).split([self.own_out[0, :, :, 0].numel(), N_EXPERTS], -1)
        inner = nn.functional.gelu(torch.cat([self.shared(z), own], -1))
        inner = self.dropout(inner).unflatten(-1, (N_EXPERTS, self.inner))
        weighted = inner * torch.softmax(mixture, dim=-1)[..., None]
        outer = torch.cat([self.shared_out, self.own_out[source]]).flatten(0, 1)
        return weighted.flatten(-2) @ outer


@torch.no_grad()
def scale_output(adapter: nn.Module, factor: float) -> None:
    """Multiply what comes out of either adapter by `factor`."""
    for name, weight in adapter.named_parameters():
        if name.startswith("outer"):
            weight.mul_(factor)
