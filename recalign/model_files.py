"""What a model of somebody else's may not bring: code of its own, and pickles."""

from pathlib import Path

from recalign.errors import UserError

PICKLED = ("pytorch_model*.bin", "adapter_model.bin")


def refuse_pickles(folder: Path) -> None:
    """UserError for weights that are there as a pickle only: reading one can run any code."""
    for path in (path for name in PICKLED for path in sorted(folder.rglob(name))):
        if not any(path.parent.glob("*.safetensors")):
            raise UserError(
                f"{path}: pickled weights can run code and are not read; save the model again as "
                "safetensors"
            )


def refusal(error: BaseException) -> str:
    """What a model asks for and is never done, in one sentence; empty for any other error."""
    text = str(error)
    if "trust_remote_code" in text:
        return (
            "this model brings Python code of its own, which is never run; choose one that "
            "transformers knows itself"
        )
    if "use_safetensors" in text:
        return (
            "this model has no safetensors; pickled weights can run code and are not read: choose "
            "another, or convert it and give a local folder"
        )
    return ""
