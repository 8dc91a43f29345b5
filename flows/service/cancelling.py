"""A run that is to be cancelled ends itself where its worker does not end it.

Prefect's worker stops asking which runs are to be cancelled when its server was away for half a
minute. The run would then go on for hours, on a machine that its operator believes to be free.
"""

import os
import threading
import time
from functools import cache
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.states import Cancelled

ENDED = ("CANCELLING", "CANCELLED")
PAUSE_SECONDS = 20.0
PATIENCE_SECONDS = 60.0  # for the worker, which gives a run half a minute to end


@cache
def watch(flow_run: UUID) -> threading.Thread:
    """Ask now and then, beside the run, whether it was to be cancelled PATIENCE_SECONDS ago.

    Then it is marked Cancelled and this process ends at once; what it has saved stays, as after
    any kill.
    """
    thread = threading.Thread(target=_watch, args=(flow_run,), daemon=True)
    thread.start()
    return thread


def _watch(flow_run: UUID) -> None:
    since: float | None = None
    while True:
        time.sleep(PAUSE_SECONDS)
        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(flow_run).state
                if state is None or state.type.value not in ENDED:
                    since = None
                    continue
                since = since or time.monotonic()
                if time.monotonic() - since < PATIENCE_SECONDS:
                    continue
                told = f"No worker ended the run within {PATIENCE_SECONDS:.0f} s: it ended itself."
                client.set_flow_run_state(flow_run, Cancelled(message=told), force=True)
        except httpx.HTTPError:  # the server is away: it is asked again
            continue
        os._exit(0)  # a failure would make the worker, if there is one, call it Crashed
