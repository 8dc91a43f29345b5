"""A run that is to be cancelled ends itself where nobody else ends it.

Prefect's worker stops asking which runs are to be cancelled when its server was away for half a
minute. The run would then go on for hours, on a machine that its operator believes to be free. So
would a run of the command line: no worker has started it.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, State

ENDED = ("CANCELLING", "CANCELLED")
PAUSE_SECONDS = 20.0
PATIENCE_SECONDS = 60.0  # for the worker, which gives a run half a minute to end

_watched: set[UUID] = set()  # runs of the command line


@cache
def watch(flow_run: UUID) -> threading.Thread:
    """Ask now and then, beside the run, whether it was to be cancelled PATIENCE_SECONDS ago.

    Then it is marked Cancelled and this process ends at once; what it has saved stays, as after
    any kill.
    """
    told = f"No worker ended the run within {PATIENCE_SECONDS:.0f} s: it ended itself."
    # A failure would make the worker, if there is one, call it Crashed.
    ask = partial(_watch, flow_run, PATIENCE_SECONDS, told, lambda state: os._exit(0))
    return _beside(ask)


def watch_own(run: FlowRun) -> None:
    """The same for a run of the command line, which then ends soon, as at Ctrl-C."""

    def end(state: State) -> None:
        run.state = state  # Prefect would call it Crashed, but leaves a final state alone
        os.kill(os.getpid(), signal.SIGTERM)

    if run.id not in _watched:
        _watched.add(run.id)
        _beside(partial(_watch, run.id, 0.0, "The run ended itself.", end, until_final=True))


def _beside(watching: Callable[[], None]) -> threading.Thread:
    given = {one: one.value() for one in (PREFECT_API_URL, PREFECT_API_AUTH_STRING) if one.value()}

    def ask() -> None:
        with temporary_settings(given):  # a thread knows only those of the environment
            watching()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread


def _watch(
    flow_run: UUID,
    patience: float,
    told: str,
    end: Callable[[State], object],
    until_final: bool = False,
) -> None:
    """`until_final`: leave a run that has ended alone; a worker's may be called so by mistake."""
    since: float | None = None
    while True:
        time.sleep(PAUSE_SECONDS)
        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(flow_run).state
                if state is None or state.type.value not in ENDED:
                    since = None
                    if until_final and state and state.is_final():
                        return
                    continue
                since = since or time.monotonic()
                if time.monotonic() - since < patience:
                    continue
                cancelled: State = Cancelled(message=told)
                client.set_flow_run_state(flow_run, cancelled, force=True)
        except httpx.HTTPError:  # the server is away: it is asked again
            continue
        except ObjectNotFound:  # deleted: nobody will cancel it
            return
        end(cancelled)
        return
