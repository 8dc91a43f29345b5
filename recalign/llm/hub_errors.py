"""Errors of loading a model, each told in one sentence that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError

from recalign.errors import UserError
from recalign.model_files import refusal


@contextmanager
def explained(source: str, revision: str | None) -> Iterator[None]:
    """Turn errors of loading `source` into UserErrors without a chain; a folder has no revision."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{source}: {_sentence(error, revision)}") from None


def _sentence(error: BaseException, revision: str | None) -> str:
    if refused := refusal(error):
        return refused
    causes = list(_chain(error))
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return (
            "this model is gated; accept its licence on its hub page and log in with "
            "`hf auth login`, or give a local folder"
        )
    if any(isinstance(cause, RevisionNotFoundError) for cause in causes):
        return f"the hub has no revision '{revision}' of this model; check policy.revision"
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return (
            "the hub has no such model, or it is private; check the name, log in with "
            "`hf auth login`, or give a local folder"
        )
    if any(isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled) for cause in causes):
        return (
            "the model is not on this machine and the hub cannot be reached; connect to the "
            "internet, or give a local folder"
        )
    if any(isinstance(cause, HFValidationError) for cause in causes):
        return "neither a folder nor a hub id (name/model)"
    if any(isinstance(cause, SafetensorError) for cause in causes):
        return f"the weights cannot be read ({causes[0]}); copy or download the model again"
    lines = str(error).strip().splitlines()
    return f"no causal LM could be loaded: {lines[0] if lines else type(error).__name__}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
