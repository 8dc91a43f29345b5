"""Where and how a run computes: never part of any fingerprint."""

import os
from typing import Literal

from pydantic import Field

from recalign.config.base import Config


class Runtime(Config):
    """Place, device and sizes that do not change what is computed."""

    root: str = Field(default_factory=lambda: os.environ.get("RECALIGN_ROOT") or "artifacts")
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
    generation_rows: int = Field(2048, ge=1, le=1_000_000)
    """Samples decoded at once."""
    shard_users: int = Field(256, ge=1, le=1_000_000)
    """Users per shard of generation; a killed run loses at most one shard."""
    threads: int = Field(0, ge=0, le=1024)
    """Threads per process for torch; 0: as many as cores."""
