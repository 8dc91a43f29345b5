"""recalign: LLM recommenders aligned with what users really do (DPO4Rec, RosePO)."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recalign.runs import Runs

__version__ = "0.1.0"


def open(root: "str | Path" = "artifacts") -> "Runs":
    """The finished runs at a folder or URL (see docs/python.md)."""
    from recalign.runs import open_runs  # polars and pydantic: not at import

    return open_runs(root)
