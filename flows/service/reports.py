"""Reports over HTTP on the service's own address: /reports/STAGE/FINGERPRINT, to be read only."""

import hmac
import os
import re
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import FileResponse, PlainTextResponse, Response

from flows.service.access import Access
from recalign.artifacts.roots import open_root
from recalign.report import PAGE

PATH = "/reports"
ROOT = "RECALIGN_REPORTS"  # the root whose reports the server at PREFECT_API_URL shows
NAMED = re.compile(PATH + "/([a-z_]{1,40})/([0-9a-f]{32})")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
SECONDS = 365 * 24 * 3600  # that a login is remembered, as the UI remembers it


def link_to(root: str, stage: str, fingerprint: str) -> str:
    """Where this process's server shows a report of this root; empty where it does not."""
    return f"{PATH}/{stage}/{fingerprint}" if os.environ.get(ROOT) == root else ""


@dataclass(frozen=True)
class Reports:
    """The reports of one root, for browsers that are logged in and programs with the secret."""

    root: str
    access: Access
    port: int

    @property
    def cookie(self) -> str:
        """Cookies know no ports: each service has one of its own."""
        return f"recalign-reports-{self.port}"

    def remember(self, login: Response) -> None:
        """Let the browser read reports from now on; the cookie opens nothing else."""
        login.set_cookie(
            self.cookie, self.access.pass_for(PATH), SECONDS, path=PATH, httponly=True,
            samesite="strict",
        )  # fmt: skip

    async def answer(self, method: str, path: str, headers: Headers) -> Response:
        """The report, or why not: nothing of an artifact but its page can be read."""
        if not self._knows(headers):
            told = "log in at the address that `recalign open` prints"
            return PlainTextResponse(told, 401, {"WWW-Authenticate": 'Basic realm="recalign"'})
        named = NAMED.fullmatch(path)
        if method not in ("GET", "HEAD") or named is None:
            return PlainTextResponse("no report", 404)
        artifact = await run_in_threadpool(open_root(self.root).find, *named.groups())
        if artifact is None or PAGE not in artifact.manifest.outputs:
            return PlainTextResponse("no report: it was deleted or is damaged", 404)
        kept = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
        return FileResponse(artifact.path(PAGE), headers=kept, media_type="text/html")

    def _knows(self, headers: Headers) -> bool:
        shown = cookie_parser(headers.get("cookie", "")).get(self.cookie, "")
        sent = headers.get("authorization", "")
        return _same(shown, self.access.pass_for(PATH)) or _same(sent, self.access.authorization)


def _same(shown: str, secret: str) -> bool:
    """In constant time; what is shown may be any text."""
    return hmac.compare_digest(shown.encode(), secret.encode())
