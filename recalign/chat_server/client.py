"""The connection to a server, and its errors as one line that says what to do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from recalign.config import ChatServerConfig
from recalign.errors import UserError, install

if TYPE_CHECKING:  # a second to import
    from openai import OpenAI
    from openai._legacy_response import LegacyAPIResponse

KEY = "RECALIGN_SERVER_KEY"
"""Environment variable of the key; a name of our own, so that no other service's key is sent."""


def connect(server: ChatServerConfig) -> "OpenAI":
    """A client that tries again after no connection, 408, 409, 429 and 5xx.

    It waits as long as Retry-After says (up to two minutes), else from half a second, doubled each
    time up to 8 s, with jitter. Raises UserError without a URL, for a key that no header can hold,
    and without the package openai.
    """
    if not server.url:
        raise UserError("runtime.server.url: name the server that writes (http://host:8000/v1)")
    key = _key() or "none"  # servers of one's own take any
    try:
        from openai import Omit, OpenAI
    except ImportError:
        raise UserError(f"reasonings.writer = openai needs: {install('server')}") from None
    return OpenAI(
        base_url=server.url,
        api_key=key,
        timeout=server.timeout,
        max_retries=server.retries,
        default_headers=cast(
            "dict[str, str]",
            {
                name: f"Bearer {key}" if name.lower() == "authorization" else Omit()
                for name in _headers_of_others()
            },
        ),
    )


def _headers_of_others() -> list[str]:
    """What the client takes from the environment: it is meant for another service."""
    lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").splitlines()
    own = (line.partition(":")[0].strip() for line in lines)
    return ["OpenAI-Organization", "OpenAI-Project", *filter(None, own)]


def _key() -> str:
    """The key, if one is set. UserError, before the HTTP client shows a bad one in its own error.

    That error would hold the whole key, and end in the log.
    """
    key = os.environ.get(KEY, "")
    if any(char.isspace() or not char.isprintable() or not char.isascii() for char in key):
        raise UserError(
            f"{KEY}: the key holds white space, a line break or a character outside printable "
            "ASCII (a curly quote?); set it again, without what was copied along with it"
        )
    return key


@contextmanager
def told_in_one_line(server: ChatServerConfig, model: str) -> Iterator[None]:
    """Turn what the client raises into UserErrors, none of which holds the key."""
    from openai import APIConnectionError, APIStatusError, AuthenticationError, OpenAIError

    try:
        yield
    except AuthenticationError:
        raise UserError(f"{server.url}: the server refuses the key; set {KEY}") from None
    except APIConnectionError as error:
        cause = type(error.__cause__ or error).__name__
        raise UserError(
            f"{server.url}: no answer ({cause}, {server.retries} retries); is the server up, and "
            "runtime.server.url right?"
        ) from None
    except APIStatusError as error:
        raise UserError(
            f"{server.url}: the server answers {error.status_code} for model {model}: "
            f"{said(error.response.text)}"
        ) from None
    except OpenAIError as error:
        raise UserError(f"{server.url}: no chat completion in the answer ({error})") from None


@contextmanager
def reading(raw: "LegacyAPIResponse[Any]") -> Iterator[None]:
    """Turn what comes of reading an answer of another shape into a UserError.

    Some servers send an error with status 200, and a web page sends itself; the client takes both.
    """
    try:
        yield
    except (AttributeError, TypeError, ValueError, RecursionError):
        raise UserError(
            f"{raw.http_request.url}: the answer is none of OpenAI's API; is runtime.server.url "
            f"right? It starts: {said(raw.text)}"
        ) from None


def said(text: str) -> str:
    """The start of a server's answer in one line, without the key."""
    without = text.replace(os.environ.get(KEY) or "\0", "...")  # first: a cut key would stay
    return " ".join(without.split())[:300]
