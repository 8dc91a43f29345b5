"""Environment variables for Prefect and its neighbours, set before Prefect is imported."""

import os

QUIET = {  # for every process of ours
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "recalign,tasks,flows",  # library lines reach the UI
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "60",  # seconds; see automations.py
}

SERVICE = {  # for the server and worker of `recalign up`
    # Seconds: a queued run starts within ten of a free slot. Prefect's own are 30, 10 and 10.
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
    "PREFECT_WORKER_QUERY_SECONDS": "3",
    "PREFECT_WORKER_PREFETCH_SECONDS": "30",
    # In memory, the server's restart would free slots that runs hold, and crash those runs.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PYTHONUNBUFFERED": "1",  # log files tell what happens when it happens
}


def settle_environment() -> None:
    """Set QUIET where nothing else is set, and keep proxies out of what stays on this machine.

    A proxy would be sent the secret of a server that listens here, and answer in its place.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    spared = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    os.environ["no_proxy"] = ",".join([*filter(None, [spared]), "localhost", "127.0.0.1", "::1"])
