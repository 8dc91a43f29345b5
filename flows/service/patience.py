"""Requests that found SQLite locked are made again, so that no form has to be sent twice.

Prefect 3.9.1 reads, checks a form against its schema, and then writes, in one transaction that
begins as a reader's. SQLite refuses the write at once, however long it would wait for a lock, where
another one came between; on a busy machine one mostly does. Prefect then answers 503, and has kept
nothing.
"""

import asyncio

from sqlalchemy import Connection, Engine, event
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ATTEMPTS = 12
LOCK_SECONDS = 5  # that one statement waits for SQLite's lock
PAUSE_SECONDS = 0.3
LOCKED = 503


def wait_in_turns() -> None:
    """Let no statement of this process wait for SQLite's lock for longer than LOCK_SECONDS.

    Prefect waits for 60. Where a worker offers several queued runs at once, all connections
    can come to wait for one another: then nobody is answered until the first of them gives up.
    """

    @event.listens_for(Engine, "begin")
    def give_up_sooner(connection: Connection) -> None:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {1000 * LOCK_SECONDS}")


class Patient:
    """An application whose writing requests are made again while it answers that it is locked."""

    def __init__(self, app: ASGIApp, pause: float = PAUSE_SECONDS):
        self.app, self.pause = app, pause

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        asked: list[Message] = []
        for attempt in range(1, ATTEMPTS + 1):
            if await self._answers(scope, asked, receive, send, attempt == ATTEMPTS):
                return
            await asyncio.sleep(self.pause)

    async def _answers(
        self, scope: Scope, asked: list[Message], receive: Receive, send: Send, last: bool
    ) -> bool:
        """Make the request; whether its answer was passed on: one of 503 is so the last time.

        `asked` keeps what the application has read of it; one that refuses a stranger reads none.
        """
        again, locked = iter(tuple(asked)), False

        async def receive_again() -> Message:
            if message := next(again, None):
                return message
            message = await receive()
            if message["type"] == "http.request":
                asked.append(message)
            return message

        async def send_unless_locked(message: Message) -> None:
            nonlocal locked
            if message["type"] == "http.response.start":
                locked = message["status"] == LOCKED and not last
            if not locked:
                await send(message)

        try:
            await self.app(dict(scope), receive_again, send_unless_locked)
        except Exception:  # Starlette raises after it has answered for an error
            if not locked:
                raise
        return not locked
