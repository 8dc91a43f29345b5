"""A service of SQLite makes a request that found the database locked again."""

import httpx
import pytest
from prefect.server.database.configurations import AioSqliteConfiguration
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from flows.service.patience import ATTEMPTS, LOCK_SECONDS, Patient, wait_in_turns


class Locked(Exception):
    pass


def served(n_locked):
    """An application that is locked as Prefect's is, for so many requests, then echoes; its log."""
    seen = []

    async def echo(request: Request):
        seen.append(await request.json() if request.method == "POST" else None)
        if len(seen) <= n_locked:
            raise Locked
        return JSONResponse(seen[-1], 201)

    async def told(request, error):
        return JSONResponse("Service Unavailable", 503)

    routes = [Route("/", echo, methods=["GET", "POST"])]
    app = Starlette(routes=routes, exception_handlers={Exception: told})
    transport = httpx.ASGITransport(Patient(app, pause=0.0), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://here"), seen


FORM = {"config": "x" * 200_000}


@pytest.mark.anyio
async def test_a_form_that_found_it_locked_is_taken_whole_and_answered_once():
    client, seen = served(n_locked=3)
    answer = await client.post("/", json=FORM)
    assert (answer.status_code, answer.json()) == (201, FORM)
    assert seen == [FORM] * 4


@pytest.mark.anyio
async def test_what_comes_in_pieces_is_whole_again_at_the_next_attempt():
    client, seen = served(n_locked=2)

    async def pieces():
        for piece in (b'{"config"', b': "a', b'b"}'):
            yield piece

    answer = await client.post("/", content=pieces())
    assert (answer.status_code, seen) == (201, [{"config": "ab"}] * 3)


@pytest.mark.anyio
async def test_nothing_is_read_of_a_request_that_is_refused():
    read = 0

    async def pieces():
        nonlocal read
        for _ in range(100):
            read += 1
            yield b"x" * 1000

    refusing = Patient(PlainTextResponse("who are you?", 401))
    transport = httpx.ASGITransport(refusing)
    client = httpx.AsyncClient(transport=transport, base_url="http://here")
    assert (await client.post("/", content=pieces())).status_code == 401
    assert read == 0


@pytest.mark.anyio
async def test_one_that_stays_locked_is_told_and_reading_is_not_repeated():
    client, seen = served(n_locked=99)
    assert (await client.post("/", json=FORM)).status_code == 503
    assert len(seen) == ATTEMPTS
    assert (await client.get("/")).status_code == 503
    assert len(seen) == ATTEMPTS + 1


@pytest.mark.anyio
async def test_prefects_own_connections_wait_in_turns_instead_of_a_minute(tmp_path):
    wait_in_turns()
    database = AioSqliteConfiguration(f"sqlite+aiosqlite:///{tmp_path}/prefect.db")
    engine = await database.engine()
    async with engine.begin() as connection:
        told = await connection.exec_driver_sql("PRAGMA busy_timeout")
        assert told.scalar() == 1000 * LOCK_SECONDS < 60_000
    await engine.dispose()


@pytest.fixture
def anyio_backend():
    return "asyncio"
