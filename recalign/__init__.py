"""recalign: LLM recommenders aligned with what users really do (DPO4Rec, RosePO)."""

__version__ = "0.1.0"
