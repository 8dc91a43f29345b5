"""Errors of loading a model, each told in one sentence that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import errors as hub
from safetensors import SafetensorError

from recalign.errors import UserError
from recalign.model_files import refusal

_LOGIN = "log in with `hf auth login`, or give a local folder"
_SENTENCES: dict[Any, str] = {  # by kind of cause; the first that applies is told
    hub.GatedRepoError: f"this model is gated; accept its licence on its hub page and {_LOGIN}",
    hub.RevisionNotFoundError: "the hub has no revision '{revision}' of this model; "
    "check policy.revision",
    hub.RepositoryNotFoundError: "the hub has no such model, or it is private; check the name, "
    + _LOGIN,
    (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled): "the model is not on this machine "
    "and the hub cannot be reached; connect to the internet, or give a local folder",
    hub.HTTPError: "the hub could not be asked ({error}); run again, what was fetched is kept",
    hub.HFValidationError: "neither a folder nor a hub id (name/model)",
    SafetensorError: "the weights cannot be read ({error}); copy or download the model again",
}


@contextmanager
def explained(source: str, revision: str | None) -> Iterator[None]:
    """Turn errors of loading `source` into UserErrors without a chain; a folder has no revision."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, hub.HTTPError) as error:
        raise UserError(f"{source}: {_sentence(error, revision)}") from None


def _sentence(error: BaseException, revision: str | None) -> str:
    if refused := refusal(error):
        return refused
    causes = list(_chain(error))
    for kind, sentence in _SENTENCES.items():
        if any(isinstance(cause, kind) for cause in causes):
            return sentence.format(revision=revision, error=causes[0])
    lines = str(error).strip().splitlines()
    return f"no causal LM could be loaded: {lines[0] if lines else type(error).__name__}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
