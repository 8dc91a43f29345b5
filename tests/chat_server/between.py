"""A server between a writer and the LLM's own: it counts, and fails as servers in the field do."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

CHAT = "/v1/chat/completions"


@dataclass
class Between:
    """What was asked of it, and how it behaves; the LLM's answers are passed on unchanged."""

    upstream: str  # of the LLM's server, without /v1
    samples: int | None = 1  # the most choices of one answer; None: it refuses `n` above 1
    key: str = ""  # which a request must bear
    owner: str = ""  # `owned_by` of its models; empty: it is seen to be transformers' server
    troubles: list[str] = field(default_factory=list)  # of the next chat requests, in order
    load_adapter: Callable[[str], Path] | None = None  # from an adapter to a folder upstream reads
    no_load: str = ""  # why it refuses every adapter
    lost_loads: int = 0  # adapters that are loaded without an answer
    loads: list[str] = field(default_factory=list)  # folders of the adapters it was asked to load
    page: str = ""  # of a web UI, which is all that is to be had by GET
    delay: float = 0.0  # seconds that every answer takes longer
    asked: list[dict[str, Any]] = field(default_factory=list)  # bodies of all chat requests
    headers: list[dict[str, str]] = field(default_factory=list)  # of all these
    at: list[float] = field(default_factory=list)  # when they came
    models: dict[str, str] = field(default_factory=dict)  # name -> what it is upstream
    most_at_once: int = 0
    tokens_given: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> "Between":
        between = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # a writer that was ended
                    super().handle()

            def do_GET(self) -> None:
                between.get(self)

            def do_POST(self) -> None:
                between.post(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.client = httpx.Client(base_url=self.upstream, timeout=120)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.client.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"

    def get(self, request: BaseHTTPRequestHandler) -> None:
        if self._refused(request):
            return
        if self.page:
            _send(request, 200, self.page.encode(), {"Content-Type": "text/html"})
        elif request.path == "/v1/models":
            listed = [
                {"id": name, "owned_by": self.owner, "object": "model"} for name in self.models
            ]
            _reply(request, 200, {"object": "list", "data": listed})
        elif self.owner:
            _reply(request, 404, {})
        else:
            _reply(request, 200, self.client.get(request.path).json())

    def post(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        if self._refused(request):
            return
        if request.path == "/v1/load_lora_adapter" and self.load_adapter:
            self._load(request, body["lora_name"], body["lora_path"], self.load_adapter)
        elif request.path == CHAT:
            with self._lock:
                self._now += 1
                self.most_at_once = max(self.most_at_once, self._now)
                self.asked.append(body)
                self.headers.append(dict(request.headers))
                self.at.append(time.monotonic())
                trouble = self.troubles.pop(0) if self.troubles else ""
            try:
                self._chat(request, body, trouble)
            finally:
                with self._lock:
                    self._now -= 1
        else:
            _reply(request, 404, {"detail": "Not Found"})

    def _load(
        self, request: BaseHTTPRequestHandler, name: str, folder: str, load: Callable[[str], Path]
    ) -> None:
        """As vLLM does."""
        self.loads.append(folder)
        told = f"'{name}' has already been loaded." if name in self.models else self.no_load
        if told:
            _reply(request, 400, {"error": {"message": told, "code": 400}})
            return
        try:
            self.models[name] = str(load(folder))
        except FileNotFoundError:
            told = f"Loading lora {name} failed: No adapter found for {folder}"
            _reply(request, 404, {"error": {"message": told, "code": 404}})
            return
        if self.lost_loads:
            self.lost_loads -= 1
            _drop(request)
        else:
            _reply(request, 200, "Success")

    def _chat(self, request: BaseHTTPRequestHandler, body: dict[str, Any], trouble: str) -> None:
        match trouble.split():
            case ["dropped"]:
                _drop(request)
                return
            case ["slow", seconds]:
                time.sleep(float(seconds))
            case ["body", kind, *words]:
                _send(request, 200, " ".join(words).encode(), {"Content-Type": kind})
                return
            case [status, *wait]:
                headers = {"Retry-After": wait[0]} if wait else {}
                _reply(request, int(status), {"error": {"message": "busy"}}, headers)
                return
        n = body.pop("n", 1)
        if self.samples is None and n > 1:
            _reply(request, 422, {"error": {"message": "n must be 1"}})
            return
        time.sleep(self.delay)
        body["model"] = self.models.get(body["model"], body["model"])
        answers = [self._upstream(body, number) for number in range(min(n, self.samples or 1))]
        whole = answers[0]
        if whole.status_code == 200:
            merged = whole.json()
            merged["choices"] = [one.json()["choices"][0] for one in answers]
            merged["usage"]["completion_tokens"] = sum(
                one.json()["usage"]["completion_tokens"] for one in answers
            )
            self.tokens_given += merged["usage"]["completion_tokens"]
            _reply(request, 200, merged)
        else:
            _reply(request, whole.status_code, whole.json())

    def _upstream(self, body: dict[str, Any], number: int) -> httpx.Response:
        seeded = body | {"seed": body["seed"] + number}
        return self.client.post(CHAT, json=seeded)

    def _refused(self, request: BaseHTTPRequestHandler) -> bool:
        if self.key and request.headers["Authorization"] != f"Bearer {self.key}":
            _reply(
                request, 401, {"error": {"message": f"wrong: {request.headers['Authorization']}"}}
            )
            return True
        return False


def _drop(request: BaseHTTPRequestHandler) -> None:
    request.connection.shutdown(socket.SHUT_RDWR)
    request.close_connection = True


def _reply(
    request: BaseHTTPRequestHandler, status: int, body: Any, headers: dict[str, str] | None = None
) -> None:
    json_type = {"Content-Type": "application/json"}
    _send(request, status, json.dumps(body).encode(), json_type | (headers or {}))


def _send(
    request: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str]
) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)
