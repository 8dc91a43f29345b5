"""The oracle."""

from typing import Literal

from pydantic import Field, model_validator

from recalign.config.base import UNLESS_DEFAULT, Config, Seed, held_unless, only_when


class OracleConfig(Config):
    """The sequential recommender: model, loss and training."""

    architecture: Literal["sasrec", "gru4rec"] = Field("sasrec", json_schema_extra=UNLESS_DEFAULT)
    """Self-attention (SASRec), or gated recurrent layers (GRU4Rec)."""
    hidden: int = Field(64, ge=8, le=2048)
    """Width of the item vectors and the layers."""
    blocks: int = Field(2, ge=1, le=12)
    """Transformer blocks, or recurrent layers."""
    heads: int = Field(1, ge=1, le=32, json_schema_extra=held_unless(architecture="sasrec"))
    """Attention heads per block; must divide hidden."""
    max_length: int = Field(50, ge=2, le=1000)
    """Longest history learned from, in items; SASRec reads as many of them as suit validation."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout rate between layers."""
    item_text: bool = True
    """Add a learned projection of each item's text embedding to its vector."""
    encoder: str = Field("minilm", json_schema_extra=only_when(item_text=True))
    """Sentence encoder of the item texts: 'minilm' (packaged), or a folder or owner/name@commit."""
    loss: Literal["full", "sampled", "gbce", "bce"] = "full"
    """Softmax over the whole catalogue, over shared sampled negatives, gBCE, or BCE."""
    n_negatives: int = Field(
        256, ge=1, le=100_000, json_schema_extra=only_when(loss=("sampled", "gbce"))
    )
    """Negatives per batch; bce takes one per position."""
    batch_users: int = Field(32, ge=1, le=65536)
    """Sequences per optimiser step."""
    learning_rate: float = Field(3e-3, gt=0, le=1)
    """Peak learning rate of AdamW, decayed linearly."""
    weight_decay: float = Field(0.0, ge=0, le=1)
    """Weight decay of AdamW."""
    epochs: int = Field(14, ge=1, le=10_000)
    """Most passes over the training windows."""
    patience: int = Field(3, ge=1, le=1000)
    """Epochs without a better validation NDCG@10 before training stops."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the exponential average of the weights that is kept; 0: none."""
    seed: Seed = 0
    """Seed of initial weights, batches, negatives and dropout."""

    @property
    def name(self) -> str:
        """The architecture as its paper writes it."""
        return {"sasrec": "SASRec", "gru4rec": "GRU4Rec"}[self.architecture]

    def independent(self) -> "OracleConfig":
        """The other architecture from another seed, fitted alike: a judge that gave no reward."""
        other = "gru4rec" if self.architecture == "sasrec" else "sasrec"
        return self.model_copy(update={"architecture": other, "seed": self.seed + 1})

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> "OracleConfig":
        if self.hidden % self.heads:
            raise ValueError("heads must divide hidden")
        return self
