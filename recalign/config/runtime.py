"""Where and how a run computes: never part of any fingerprint."""

import os
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from recalign.config.base import Config
from recalign.errors import UserError

KEYS = "keys come from the environment (docs/scale-out.md)"


def _without_secret(url: str, instead: str) -> str:
    """The URL; ValueError where it holds a password: runs show their settings to all who look."""
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise ValueError(f"a URL must hold no password; {instead}")
    return url


def checked_root(root: str) -> str:
    """A root that the user has named, or the environment; UserError where it holds a password.

    A shell leaves the ~ in `--root=~/artifacts` as it is, and an environment file does, too.
    """
    try:
        return os.path.expanduser(_without_secret(root, KEYS))
    except ValueError as error:
        raise UserError(f"the root of all artifacts: {error}") from error


class ChatServerConfig(Config):
    """The server behind the writer openai; its key comes from RECALIGN_SERVER_KEY alone."""

    url: str = Field("", pattern=r"^(https?://.+)?$")
    """Base URL of its API, such as http://127.0.0.1:8000/v1."""
    requests: int = Field(16, ge=1, le=1024)
    """Requests under way at once."""
    timeout: float = Field(600.0, gt=0, le=86_400)
    """Seconds to wait for the next bytes of an answer."""
    retries: int = Field(8, ge=0, le=1000)
    """Further tries of a request after no connection, 408, 409, 429 or 5xx; waits grow to 8 s, or
    last as long as Retry-After asks (two minutes at most)."""

    @field_validator("url")
    @classmethod
    def _is_whole_and_holds_no_password(cls, url: str) -> str:
        _ = urlsplit(url).port  # ValueError for a port, or an address, that is none
        return _without_secret(url, "put the key into RECALIGN_SERVER_KEY")


class Runtime(Config):
    """Place, device and sizes: they make no other artifact.

    On a processor they change no bit of it (an LLM's texts in float32). On a GPU sums are rounded
    otherwise in batches of another size, so a few texts of an LLM may differ.
    """

    heading = "Where and how to compute"

    root: str = Field(
        default_factory=lambda: checked_root(os.environ.get("RECALIGN_ROOT") or "artifacts")
    )
    """Folder or URL (s3://bucket/prefix) of all artifacts; if not given, RECALIGN_ROOT."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run; auto takes a GPU when there is one."""
    devices: int = Field(1, ge=1, le=64)
    """Devices of this machine that share the work; alignment trains in one process per device."""
    exclusive: Literal["auto", "always", "never"] = "auto"
    """Whether a stage waits while another run here uses its device; auto: only for a GPU."""
    task_runner: Literal["threads", "dask", "ray"] = "threads"
    """What computes the shards of reasonings, encoding and rewards: threads, Dask or Ray."""
    cluster: str = ""
    """Address of a Dask scheduler or Ray head; empty: workers on this machine, one per device."""
    server: ChatServerConfig = ChatServerConfig()
    """The server that writes, if reasonings.writer is openai."""
    generation_rows: int = Field(2048, ge=1, le=1_000_000)
    """Most samples decoded at once."""
    generation_gb: float = Field(2.0, gt=0, le=10_000)
    """Most memory for the caches and logits of the samples decoded at once, in GB; raise it on a
    GPU."""
    shard_users: int = Field(256, ge=1, le=1_000_000)
    """Users per shard of generation; a killed run loses at most one shard."""
    shard_tokens: int = Field(25_000, ge=1, le=1_000_000_000)
    """Tokens per shard where a loaded LLM writes on a processor, which takes a minute or two with
    one of 135 M weights; of one with more, fewer in proportion."""
    report_to: Literal["none", "tensorboard", "mlflow", "wandb"] = "none"
    """Tracker of trainings beside the log; tensorboard and mlflow are told of every stage."""
    threads: int = Field(0, ge=0, le=1024)
    """Threads per process for torch; 0: as many as cores."""

    @field_validator("root", "cluster")
    @classmethod
    def _hold_no_password(cls, url: str) -> str:
        return _without_secret(url, KEYS)

    @field_validator("root")
    @classmethod
    def _at_home(cls, root: str) -> str:
        return os.path.expanduser(root)
