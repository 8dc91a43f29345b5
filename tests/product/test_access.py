"""Who reaches a service of `recalign up`, and what they can make it do: all of it for real."""

import errno
import json
import os
import re
import shutil
import socket
import stat
import sys
import threading
import time

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from flows.service import processes
from flows.service.access import Access, narrow, write_private
from flows.service.record import without_password
from flows.service.service import _listening, up
from recalign.artifacts.identity import Identity
from recalign.artifacts.store import Store
from recalign.errors import UserError
from recalign.report import PAGE
from tests.product.running_service import free_port

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium")
expect.set_options(timeout=60_000)  # a page of the UI takes its time on a busy machine


def request(service, path="/api/flows/", method="POST", **headers):
    url = f"http://127.0.0.1:{service.port}{path}"
    json = {"name": "evil"} if method == "POST" else None
    return httpx.request(method, url, json=json, headers=headers, timeout=30)


def logged_in(service):
    return {name: value for name, value in service.client.headers.items() if "csrf" in name} | {
        "Authorization": httpx.BasicAuth(*secret(service).split(":"))._auth_header
    }


def secret(service):
    return (service.home / "secret").read_text()


def flows(service):
    return {flow["name"] for flow in service.api("POST", "/flows/filter", limit=100)}


def test_without_the_secret_nothing_is_told_or_made(service):
    csrf = {name: value for name, value in logged_in(service).items() if "csrf" in name}
    assert request(service, **csrf).status_code == 401
    assert request(service, "/api/deployments/filter", **csrf).status_code == 401
    assert "evil" not in flows(service)


def test_a_foreign_origin_or_host_gets_nothing_even_with_the_secret(service):
    known = logged_in(service)
    for origin in (
        "http://evil.example",
        "null",
        "http://[::1",
        f"http://127.0.0.1:{service.port + 1}",
    ):
        assert request(service, Origin=origin, **known).status_code == 403
    assert request(service, Host="evil.example", **known).status_code == 400
    assert request(service, "/", "GET", Host=f"evil.example:{service.port}").status_code == 400
    assert "evil" not in flows(service)
    assert request(service, Origin=f"http://localhost:{service.port}", **known).status_code == 201


def test_names_of_a_proxy_are_known_and_only_these(service):
    def asked(host, **origin):
        return request(service, "/api/health", "GET", Host=host, **origin).status_code

    assert asked(f"ui.example:{service.port}") == 200
    assert asked("other.example", Origin="https://other.example") == 200
    assert asked("ui.example", Origin="https://evil.example") == 403
    assert asked("sub.ui.example") == 400


def test_the_command_line_finds_the_secret_of_the_service_that_the_shell_names(
    service, monkeypatch
):
    address = f"http://127.0.0.1:{service.port}/api"
    monkeypatch.setitem(service.environment, "PREFECT_API_URL", address)
    done = service("run", "dpo4rec", "--preset", "tiny", "--stop-after", "interactions")
    assert done.returncode == 0, done.stderr
    names = [run["name"] for run in service.api("POST", "/flow_runs/filter", limit=100)]
    assert "dpo4rec tiny on synthetic, 2 rounds, until interactions" in names


@pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out"])
def test_a_socket_without_the_secret_or_of_another_site_gets_nothing(service, path):
    address = f"ws://127.0.0.1:{service.port}/api/{path}"
    with pytest.raises(InvalidStatus):  # of an old client, that would not say who it is
        connect(address)
    prefects = [Subprotocol("prefect")]
    with pytest.raises(InvalidStatus, match="403"):
        connect(address, origin=Origin("http://evil.example"), subprotocols=prefects)
    for token in (None, "", "recalign:", secret(service) + "x"):
        with connect(address, subprotocols=prefects) as socket_:
            socket_.send(json.dumps({"type": "auth", "token": token}))
            with pytest.raises(ConnectionClosed) as closed:
                socket_.recv(timeout=30)
            assert closed.value.rcvd
            assert closed.value.rcvd.code == 1008  # policy violation


def test_a_forged_request_without_prefects_token_makes_nothing(service):
    only = {"Authorization": logged_in(service)["Authorization"]}
    assert request(service, "/api/deployments/filter", **only).status_code == 403


def test_a_command_in_a_request_is_not_run(service, tmp_path):
    mark = tmp_path / "executed"
    (found,) = [d for d in service.api("POST", "/deployments/filter", limit=100)
                if d["name"] == "dpo4rec"]  # fmt: skip
    run = service.api(
        "POST", f"/deployments/{found['id']}/create_flow_run",
        parameters={"plan_only": True}, state={"type": "SCHEDULED"},
        job_variables={"command": f"touch {mark}", "env": {"RECALIGN_ROOT": "/nowhere"},
                       "working_dir": str(tmp_path)},
    )["id"]  # fmt: skip
    kind, message = service.wait_for_end(run)
    assert kind == "COMPLETED", message
    assert "Only planned" in message
    assert not mark.exists()
    template = service.api("GET", "/work_pools/recalign")["base_job_template"]
    assert set(template["job_configuration"]) == {"name", "labels"}


def test_files_with_secrets_are_their_owners_alone(service):
    assert stat.S_IMODE(service.home.stat().st_mode) == 0o700
    for name in ("secret", "ticket", "service.json"):
        assert stat.S_IMODE((service.home / name).stat().st_mode) == 0o600
    assert secret(service) not in service.told


@pytest.mark.parametrize(
    "names",
    [("service.json", "server.log"), ("prefect.db", "profiles.toml"), (".lock", "presets"), ()],
)
def test_wide_modes_of_an_earlier_home_are_narrowed(tmp_path, names):
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o755)
    for name in names:
        (home / name).touch()
    narrow(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_folder_with_other_content_becomes_no_home_and_stays_as_it_is(tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    foreign.chmod(0o755)
    (foreign / "letters.txt").touch()
    with pytest.raises(UserError, match=r"holds other files .* as --home .*/foreign/service"):
        up(str(tmp_path / "root"), foreign, None, "oracle://db")  # never gets as far as that
    assert stat.S_IMODE(foreign.stat().st_mode) == 0o755
    assert [path.name for path in foreign.iterdir()] == ["letters.txt"]


def test_what_a_full_disk_cut_short_opens_nothing_and_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "secret"
    path.touch()
    secret = Access(tmp_path).secret  # an empty one would lock everybody out, or let everybody in
    assert secret.startswith("recalign:")
    assert (Access(tmp_path).secret, stat.S_IMODE(path.stat().st_mode)) == (secret, 0o600)

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_private(path, "recalign:another")
    assert path.read_text() == secret
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_file_is_so_before_anything_is_in_it_and_whatever_it_was(tmp_path, monkeypatch):
    path, modes = tmp_path / "service.json", []
    path.touch(0o644)
    real = os.fsync

    def seen(handle):
        modes.append(stat.S_IMODE(os.fstat(handle).st_mode))
        real(handle)

    monkeypatch.setattr(os, "fsync", seen)
    write_private(path, "{}")
    assert (modes, stat.S_IMODE(path.stat().st_mode)) == ([0o600], 0o600)


def test_a_ticket_is_good_once_and_only_the_newest(tmp_path):
    access = Access(tmp_path)
    old, new = access.new_ticket(), access.new_ticket()
    assert [access.redeem(ticket) for ticket in ("", old, new, new)] == [False, False, True, False]


def test_a_ticket_that_lay_about_for_ten_minutes_opens_nothing(tmp_path):
    access = Access(tmp_path)
    for age, good in ((590, True), (610, False)):
        ticket, then = access.new_ticket(), time.time() - age
        os.utime(tmp_path / "ticket", (then, then))
        assert access.redeem(ticket) == good


def test_nobody_else_can_listen_at_the_port_before_the_server_does(tmp_path):
    port = free_port()
    code = (
        "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); s.accept()[0].send(b'me')"
    )
    with _listening(port) as listener:
        number = listener.fileno()
        command = [sys.executable, "-c", code, str(number)]
        child = processes.start(tmp_path, "server", command, dict(os.environ), tmp_path, [number])
    with pytest.raises(UserError, match=f"--port {port}: Address already in use"):
        _listening(port)
    with socket.create_connection(("127.0.0.1", port)) as asking:
        assert asking.recv(2) == b"me"
    child.wait(30)


def test_a_containers_secret_is_not_made_up_anew(tmp_path):
    assert Access(tmp_path, "recalign:given").secret == "recalign:given"
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_that_is_there_already_is_closed_to_others(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    with pytest.raises(UserError, match="database"):
        up(str(tmp_path / "root"), home, None, "oracle://db")  # refused after the folder is closed
    assert home.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann:se@cret@db:5432/x", "postgresql://ann:***@db:5432/x"),
        ("postgresql://db/x?user=ann&password=secret", "postgresql://db/x?user=***&password=***"),
        ("ann:secret@db/x", "ann:***@db/x"),
        ("postgresql:/ann:secret@db", "postgresql:***@db"),
        ("postgresql://ann@db/x", "postgresql://ann@db/x"),
        ("postgresql://ann:se?cret@db/x?a=b", "postgresql://ann:***@db/x?a=***"),
    ],
)
def test_no_password_of_a_database_is_shown(url, shown):
    assert without_password(url) == shown


@pytest.fixture(scope="module")
def report(service):
    """The path of a report that lies in the root, beside something that is not for reading."""
    store = Store(service.root)
    draft = store.draft(Identity("report", 1, {}, {}, {}), {})
    draft.path(PAGE).write_text("<!doctype html><title>who</title>told")
    draft.path("weights.txt").write_text("secret")
    made = store.commit(draft)
    return f"/reports/report/{made.reference.fingerprint}"


def test_a_report_is_read_by_who_is_logged_in_and_by_nobody_else(service, report):
    assert request(service, report, "GET").status_code == 401
    once = service.login()
    with httpx.Client(timeout=30) as browser:
        assert browser.get(once).status_code == 200
        page = browser.get(f"http://127.0.0.1:{service.port}{report}")
        assert page.text.endswith("told")
        assert "sandbox" in page.headers["Content-Security-Policy"]
        assert "script-src" not in page.headers["Content-Security-Policy"]
        assert browser.post(f"http://127.0.0.1:{service.port}{report}").status_code == 404
        (cookie,) = browser.cookies.jar
        assert (cookie.path, cookie.has_nonstandard_attr("HttpOnly")) == ("/reports", True)
        assert secret(service).partition(":")[2] not in (cookie.value or "")
        api = browser.post(f"http://127.0.0.1:{service.port}/api/flows/filter", json={})
        assert api.status_code in (401, 403)  # no secret, no CSRF token
    known = {"Authorization": logged_in(service)["Authorization"]}
    assert request(service, report, "GET", **known).status_code == 200
    assert request(service, report, "GET", Host="evil.example", **known).status_code == 400
    name = f"recalign-reports-{service.port}"
    for odd in ("recalign-reports-1=x", f"{name}=\xe9", f"x:y[=1; ;;={name}", f'{name}="'):
        latin = odd.encode("latin-1")
        assert request(service, report, "GET", Cookie=latin).status_code == 401
        assert request(service, report, "GET", Authorization=latin).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/reports/", "/reports/report/../../secret", "/reports/report/%2e%2e",
        "/reports//etc/passwd",
        "/reports/report/" + 32 * "0", "{report}/weights.txt", "{report}/manifest.json",
        "{report}%00", "/reports/..%2f.prefect/secret",
    ],
)  # fmt: skip
def test_nothing_but_a_report_can_be_read(service, report, path):
    known = {"Authorization": logged_in(service)["Authorization"]}
    answer = request(service, path.replace("{report}", report), "GET", **known)
    assert answer.status_code in (401, 404)  # beside the reports: Prefect's own login
    assert secret(service) not in answer.text


@pytest.fixture
def outside():
    """A port that counts who connects to it, and answers with a page."""
    seen = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                seen.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\nlook here")
                connection.close()

        threading.Thread(target=listen, daemon=True).start()
        yield listener.getsockname()[1], seen


@pytest.fixture
def browse(outside):
    """browse(rules): a page in a browser; every other name leads to the port that counts."""
    port, _ = outside
    with sync_playwright() as playwright:
        opened = []

        def open_page(rules=""):
            rules = ", ".join(filter(None, [rules, f"MAP * 127.0.0.1:{port}, EXCLUDE 127.0.0.1"]))
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM,
                args=["--no-sandbox", "--disable-gpu", "--disable-background-networking",
                      "--disable-component-update", "--disable-sync",
                      f"--host-resolver-rules={rules}"],
            )  # fmt: skip
            opened.append(browser)
            return browser.new_page(viewport={"width": 1280, "height": 800})

        yield open_page
        for browser in opened:
            browser.close()


@pytest.mark.skipif(not CHROMIUM, reason="needs the program chromium")
def test_the_printed_address_logs_in_once_and_the_ui_contacts_nobody_else(service, browse, outside):
    page = browse()
    page.set_default_timeout(60_000)
    page.goto(f"http://127.0.0.1:{service.port}/")
    expect(page.locator("input[type=password]")).to_be_visible()
    once = service.login()
    httpx.head(once)  # as a preview of the address asks: it logs nobody in
    page.goto(once)
    page.wait_for_url(re.compile("/(v2/)?(dashboard|runs)"))
    # A page that is left while the UI still checks the secret makes it forget that.
    expect(page.get_by_role("link", name="Deployments").first).to_be_visible()
    page.goto(f"http://127.0.0.1:{service.port}/v2/deployments")
    expect(page.get_by_text("dpo4rec-rounds").first).to_be_visible()
    page.goto(f"http://127.0.0.1:{service.port}/v2/runs")
    page.wait_for_timeout(5000)
    _, seen = outside
    own = (b"google", b"gvt1.com")  # the browser's updates of itself, as TLS greetings name them
    assert [greeting for greeting in seen if not any(name in greeting for name in own)] == []
    assert page.goto(once).status == 403


@pytest.mark.skipif(not CHROMIUM, reason="needs the program chromium")
@pytest.mark.parametrize("kind", ["text/plain", "application/json"])
def test_a_page_of_another_site_gets_nothing_in_a_browser(service, browse, kind):
    page = browse()
    page.goto("http://evil.example/")
    asked = f"""fetch('http://127.0.0.1:{service.port}/api/flows/', {{
        method: 'POST', headers: {{'Content-Type': '{kind}'}}, body: '{{"name": "of a page"}}',
    }}).then(answer => answer.status, () => 'blocked')"""
    assert page.evaluate(asked) == "blocked"
    assert "of a page" not in flows(service)


@pytest.mark.skipif(not CHROMIUM, reason="needs the program chromium")
def test_a_name_that_is_led_to_the_service_gets_nothing(service, browse):
    page = browse(f"MAP evil.example 127.0.0.1:{service.port}")
    answer = page.goto("http://evil.example/")
    assert answer.status == 400
    told = page.evaluate("fetch('/api/deployments/filter', {method: 'POST'}).then(a => a.status)")
    assert told == 400
