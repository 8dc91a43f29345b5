"""Prefect's server behind our own checks: `python -m flows.service.server PORT [SOCKET]`.

Prefect 3.9.1 answers whatever Host and Origin a request names. Here foreign ones get nothing, so no
other web page reaches the API, under a rebinding name neither; pages contact no other server; and
an address that `recalign up` or `open` printed logs a browser in, once.
"""

import json
import os
import socket
import sys
from pathlib import Path
from urllib.parse import parse_qs

import uvicorn
from prefect.server.api.server import create_app
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.service.access import LOGIN, Access
from flows.service.patience import Patient, wait_in_turns
from flows.service.reports import PATH, ROOT, Reports

LOCAL = ("127.0.0.1", "localhost")
HOSTS = "RECALIGN_HOSTS"  # names, by comma, under which a proxy shows the UI
STORED_AS = "prefect-password"  # where both of Prefect's UIs keep what they send


class Checked:
    """An application that only its own pages and programs can use."""

    def __init__(self, app: ASGIApp, reports: Reports):
        self.app, self.reports, port = app, reports, reports.port
        self.own = {f"{name}:{port}" for name in LOCAL}
        places = " ".join(f"http://{one} ws://{one}" for one in sorted(self.own))
        self.policy = (
            "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
            f"connect-src 'self' {places}; form-action 'self'; base-uri 'self'; "
            "frame-ancestors 'none'"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", self.policy)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "same-origin"
            await send(message)

        app: ASGIApp = self.app
        if not self._is_own(Headers(scope=scope)):
            app = PlainTextResponse("foreign origin", 403)
        elif scope["type"] == "http" and (scope["method"], scope["path"]) == ("GET", LOGIN):
            app = self._login(scope)
        elif scope["type"] == "http" and scope["path"].startswith(f"{PATH}/"):
            app = await self.reports.answer(scope["method"], scope["path"], Headers(scope=scope))
        await app(scope, receive, send_guarded)

    def _is_own(self, headers: Headers) -> bool:
        """Programs name no Origin; pages name theirs."""
        origin = headers.get("origin")
        return origin is None or origin.partition("://")[2] in self.own | {headers.get("host")}

    def _login(self, scope: Scope) -> Response:
        """A page that leaves the secret where the UI looks for it, for a ticket that is good."""
        ticket = parse_qs(scope["query_string"].decode("latin-1")).get("ticket", [""])[0]
        access = self.reports.access
        if not access.redeem(ticket):
            told = (
                "This address was used already, or is more than ten minutes old: `recalign open` "
                "prints another"
            )
            return PlainTextResponse(told, 403)
        stored = json.dumps(access.authorization.removeprefix("Basic "))
        script = f"localStorage.setItem({STORED_AS!r}, {stored}); location.replace('/');"
        page = f"<!doctype html><title>recalign</title><script>{script}</script>"
        login = HTMLResponse(page, headers={"Cache-Control": "no-store"})
        self.reports.remember(login)
        return login


def served(port: int) -> ASGIApp:
    """Prefect's application with our checks around it."""
    wait_in_turns()
    further = [name.strip() for name in os.environ.get(HOSTS, "").split(",") if name.strip()]
    given = os.environ.get("PREFECT_SERVER_API_AUTH_STRING", "")  # as Prefect's server reads it
    access = Access(Path(os.environ["PREFECT_HOME"]), given)
    patient = Patient(create_app(final=True))
    checked = Checked(patient, Reports(os.environ[ROOT], access, port))
    return TrustedHostMiddleware(checked, [*LOCAL, *further], www_redirect=False)


if __name__ == "__main__":
    PORT, HANDED_DOWN = int(sys.argv[1]), [int(number) for number in sys.argv[2:]]
    BIND = os.environ.get("RECALIGN_BIND", LOCAL[0])  # another one only inside a container
    CONFIG = uvicorn.Config(served(PORT), host=BIND, port=PORT, log_level="warning")
    SOCKETS = [socket.socket(fileno=number) for number in HANDED_DOWN]  # of `recalign up`
    uvicorn.Server(CONFIG).run(SOCKETS or None)
