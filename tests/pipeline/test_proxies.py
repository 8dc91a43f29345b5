"""Proxies of the environment: what stays on this machine does not pass them."""

import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest.mock import patch

import pytest

from flows.cli.app import main
from flows.service import prefect_api


@pytest.fixture
def proxied(monkeypatch):
    """What the proxy of this environment was asked for; it says yes to everything."""
    asked: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server, patch.dict(os.environ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in ("HTTP_PROXY", "http_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        yield asked
        server.shutdown()


@pytest.mark.parametrize("spared", ["", "intranet.example"])
def test_no_proxy_stands_before_a_server_of_this_machine(proxied, monkeypatch, tmp_path, spared):
    monkeypatch.setenv("NO_PROXY", spared)
    monkeypatch.setattr(sys, "argv", ["recalign", "presets", "rosepo"])
    with pytest.raises(SystemExit):
        main()
    for host in ("127.0.0.1", "localhost", "[::1]"):
        assert not prefect_api.is_healthy(f"http://{host}:9/api")
    assert proxied == []
    assert prefect_api.is_healthy("http://elsewhere.example/api")
    assert prefect_api.is_healthy("http://intranet.example:9/api") is not bool(spared)
