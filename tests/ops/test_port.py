# SPDX-License-Identifier: Apache-2.0
"""The operations port over real HTTP, with a real server and real robots behind it."""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import re
import socket
import ssl
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pi05_websocket.errors import ConfigError, ConnectionLost, Pi05WebsocketError
from pi05_websocket.ops import OpsConfig, make_ops_port
from pi05_websocket.server import ServerConfig, WebsocketPolicyServer
from pi05_websocket.server.keys_file import revoke_key

OBSERVATION = {
    "observation/state": np.zeros(6, np.float32),
    "observation/images/top": np.full((480, 640, 3), 99, np.uint8),
    "prompt": "<b>pick</b>",
}

OpenSite = Callable[..., Any]


def test_the_servers_own_certificate_is_used_here_too(tmp_path: Path) -> None:
    """`--tls auto` is one certificate for both ports."""
    for package, extra in (("starlette", "ops"), ("uvicorn", "ops"), ("cryptography", "tls")):
        pytest.importorskip(package, reason=f"needs the extra {extra}")
    config = ServerConfig(tls="auto", tls_folder=str(tmp_path))
    with make_ops_port(OpsConfig(ops_port=0), config, policy="steps") as port:
        assert port.url.startswith("https://")
        trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        with urllib.request.urlopen(port.url + "healthz", context=trusted, timeout=10) as answer:
            assert answer.read() == b"OK\n"


# --------------------------------------------------------------------------------------------- health


def test_health_answers_whatever_the_policy_does(open_site: OpenSite) -> None:
    """While an inference hangs the process is alive and ready: robots are let in, and wait."""
    site = open_site()
    site.policy.go.clear()
    exchange = site.robot().submit(OBSERVATION)
    site.eventually(lambda said: said["robots"])
    assert (site.ask("/healthz").status, site.ask("/healthz").text) == (200, "OK\n")
    assert site.ask("/readyz").status == 200
    site.policy.go.set()
    assert "actions" in exchange.result(10).value


def test_clients_that_say_nothing_take_nobodys_place(open_site: OpenSite) -> None:
    """Sockets that stay silent, or stop in the middle of a request, or keep a connection they do not use."""
    site = open_site()
    address = ("127.0.0.1", site.ops.port)
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(address)) for _ in range(200)]
        for half in silent[::3]:
            half.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
        for used in silent[1::3]:
            with contextlib.suppress(ConnectionError):
                used.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        for _ in range(5):
            assert (site.ask("/healthz").status, site.ask("/readyz").status) == (200, 200)
        silent[0].settimeout(10)  # came first, so it went first
        with contextlib.suppress(ConnectionResetError):
            assert silent[0].recv(1) == b""


def test_readiness_follows_the_server(open_site: OpenSite) -> None:
    """Loading, serving, paused, drained, full, gone: each with its reason."""
    site = open_site(serving=False, max_connections=1)
    answer = site.ask("/readyz")
    assert (answer.status, answer.text) == (503, "not ready: the policy is being loaded\n")
    assert answer.headers["Retry-After"] == "2"
    server = WebsocketPolicyServer(
        site.policy,
        port=0,
        config=ServerConfig(max_connections=1),
        listeners=[site.ops.listener],
    )
    site.ops.watch(server)
    assert site.act("pause").status == 409
    with server:
        site.server = server
        assert (site.ask("/readyz").status, site.ask("/readyz").text) == (200, "ready\n")
        for action, back, why in (
            ("pause", "resume", "an operator has paused it"),
            ("drain", "undrain", "it is being drained: who is here stays, nobody else comes in"),
        ):
            assert site.act(action).status == 202
            assert site.ask("/readyz").text == f"not ready: {why}\n"
            assert site.act(back).status == 202
        site.robot()
        assert site.ask("/readyz").text == "not ready: as many robots are connected as it takes\n"
        site.stack.close()
    assert site.ask("/readyz").text == "not ready: it has stopped\n"


def test_a_server_whose_event_loop_hangs_is_not_ready(open_site: OpenSite) -> None:
    """It is asked, not guessed; and the port itself answers."""
    site = open_site()
    hangs = threading.Event()
    site.server.operate(lambda _: hangs.wait(20))
    answer = site.ask("/readyz")
    assert answer.status == 503
    assert re.fullmatch(r"not ready: its event loop has not answered for \d\.\d s\n", answer.text)
    assert site.ask("/healthz").status == 200
    hangs.set()
    assert site.ask("/readyz").status in (200, 503)


# ------------------------------------------------------------------------------------ what is to be seen


def test_a_robot_is_seen(open_site: OpenSite) -> None:
    """Who it is, what it asks, sees and is answered; gone when it goes."""
    site = open_site(keys=False)
    robot = site.robot()
    for _ in range(3):
        robot.infer(OBSERVATION)
    (seen,) = site.eventually(lambda said: [r for r in said["robots"] if r["answered"] == 3])
    assert (seen["who"], seen["level"], seen["verdict"]) == ("anonymous", "fine", "fine")
    assert (seen["prompt"], seen["images"], seen["newest"]) == (
        "<b>pick</b>",
        ["observation/images/top"],
        3,
    )
    path = f"/api/robots/{seen['connection']}"
    picture = site.ask(f"{path}/images/observation/images/top.jpg")
    assert picture.headers["Content-Type"] == "image/jpeg"
    assert Image.open(io.BytesIO(picture.body)).size == (320, 240)
    assert site.ask(f"{path}/plan").json == [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]
    for nothing in (f"{path}/images/side.jpg", "/api/robots/99999/plan", "/api/robots/x/plan"):
        assert site.ask(nothing).status == 404
    assert site.eventually(lambda said: said["model"])["action_names"] == ["pan", "lift"]
    server = site.ask("/api/state").json["server"]
    assert (server["state"], server["policy"], server["can_act"]) == (
        "ready",
        "module:steps",
        False,
    )
    robot.close()
    (gone,) = site.eventually(lambda said: not said["robots"] and said["departed"])
    assert gone["words"] == "1000 by the client"
    assert site.ask(f"{path}/plan").status == 404


def test_nothing_is_shown_of_cameras_where_it_is_not_wanted(open_site: OpenSite) -> None:
    """`--no-ops-images`: figures only."""
    site = open_site(ops={"ops_images": False})
    site.robot().infer(OBSERVATION)
    (seen,) = site.eventually(lambda said: [r for r in said["robots"] if r["answered"]])
    assert (seen["images"], seen["prompt"], seen["has_plan"]) == ([], None, False)


def test_who_fails_is_remembered_in_plain_words(open_site: OpenSite) -> None:
    """The robot is gone with its error; the page says what to mend."""
    site = open_site()
    with pytest.raises(Pi05WebsocketError):
        site.robot().infer({"prompt": "pick"})
    (gone,) = site.eventually(lambda said: [d for d in said["departed"] if d["failed"]])
    assert gone["words"].startswith("the policy looks for 'observation/state'")


def test_events_come_while_somebody_looks(open_site: OpenSite) -> None:
    """Each is the whole state; and nobody who looks keeps the port from closing."""
    site = open_site()
    connection = http.client.HTTPConnection("127.0.0.1", site.ops.port, timeout=10)
    connection.request("GET", "/api/events")
    response = connection.getresponse()
    assert response.headers["Content-Type"].startswith("text/event-stream")
    lines = [response.readline() for _ in range(4)]
    assert [line[:6] for line in lines] == [b"data: ", b"\n", b"data: ", b"\n"]
    site.ops.close()
    while response.readline():
        pass
    connection.close()


def test_too_many_who_look(open_site: OpenSite) -> None:
    """The seventeenth is told to ask now and then instead."""
    site = open_site()
    open_ones = []
    for _ in range(16):
        connection = http.client.HTTPConnection("127.0.0.1", site.ops.port, timeout=10)
        connection.request("GET", "/api/events")
        response = connection.getresponse()
        response.readline()
        open_ones.append((connection, response))
    assert site.ask("/api/events").status == 503
    for connection, response in open_ones:
        response.close()
        connection.close()


def test_metrics(open_site: OpenSite) -> None:
    """What Prometheus reads, after one request that was answered and one that failed."""
    site = open_site()
    site.robot().infer(OBSERVATION)
    with pytest.raises(Pi05WebsocketError):
        site.robot().infer({"prompt": "pick"})
    site.eventually(lambda said: said["departed"])
    site.ask("/readyz")
    answer = site.ask("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    lines = answer.text.splitlines()
    for line in (
        'pi05_server_requests_total{outcome="answered"} 1.0',
        'pi05_server_failures_total{error="KeyError"} 1.0',
        'pi05_server_key_requests_total{key="anonymous",outcome="answered"} 1.0',
        "pi05_server_robots 1.0",
        "pi05_server_ready 1.0",
        "pi05_server_queue_seconds_count 1.0",
        'pi05_server_total_seconds_bucket{le="+Inf"} 2.0',
        'pi05_server_connections_closed_total{reason="failed"} 1.0',
        'pi05_server_model_info{fingerprint="",model="steps",version=""} 1.0',
    ):
        assert line in lines
    assert "# TYPE pi05_server_queue_seconds histogram" in lines
    assert any(line.startswith("process_cpu_seconds_total") for line in lines)


# -------------------------------------------------------------------------------------------- levers


def test_pause_and_go_on(open_site: OpenSite, caplog: pytest.LogCaptureFixture) -> None:
    """No inference begins until somebody says so; the log says who did it."""
    caplog.set_level(logging.INFO)
    site = open_site()
    robot = site.robot()
    robot.infer(OBSERVATION)
    assert site.act("pause").status == 202
    exchange = robot.submit(OBSERVATION)
    assert site.eventually(
        lambda said: said["server"]["paused"] and [r for r in said["robots"] if r["waiting_s"]]
    )
    assert not exchange.done()
    assert site.act("resume").status == 202
    assert "actions" in exchange.result(10).value
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("operations: ")]
    assert re.fullmatch(r"operations: pause by=admin from='127\.0\.0\.1:\d+'", lines[0])
    assert len(lines) == 2


def test_drain_lets_nobody_in(open_site: OpenSite) -> None:
    """Who is here is answered as before."""
    site = open_site()
    robot = site.robot()
    site.act("drain")
    site.eventually(lambda said: said["server"]["state"] == "draining")
    asking = http.client.HTTPConnection("127.0.0.1", site.server.port, timeout=10)
    asking.request("GET", "/", headers={"Upgrade": "websocket"})
    assert asking.getresponse().status == 503
    asking.close()
    assert "actions" in robot.infer(OBSERVATION)


def test_disconnect(open_site: OpenSite, caplog: pytest.LogCaptureFixture) -> None:
    """One robot is told goodbye, and comes back by itself: it was not forbidden to."""
    site = open_site()
    robot = site.robot()
    robot.infer(OBSERVATION)
    (seen,) = site.eventually(lambda said: said["robots"])
    site.policy.go.clear()
    exchange = robot.submit(OBSERVATION)
    assert site.act(f"disconnect/{seen['connection']}").status == 202
    with pytest.raises(ConnectionLost, match="an operator has disconnected this robot"):
        exchange.result(10)
    site.policy.go.set()
    site.eventually(
        lambda said: [r for r in said["robots"] if r["connection"] != seen["connection"]]
    )
    assert f"disconnect connection={seen['connection']} by=admin" in caplog.text


@pytest.mark.parametrize(
    ("path", "key", "headers", "status"),
    [
        ("/api/actions/pause", "", {"X-Pi05-Ops": "1"}, 401),
        ("/api/actions/pause", "wrong", {"X-Pi05-Ops": "1"}, 401),
        ("/api/actions/pause", "viewer", {"X-Pi05-Ops": "1"}, 403),
        ("/api/actions/pause", "admin", {}, 403),
        ("/api/actions/explode", "admin", {"X-Pi05-Ops": "1"}, 404),
        ("/api/actions/disconnect", "admin", {"X-Pi05-Ops": "1"}, 404),
        ("/api/actions/pause/3", "admin", {"X-Pi05-Ops": "1"}, 404),
        ("/api/key", "viewer", {"X-Pi05-Ops": "1"}, 403),
        ("/api/key", "admin", {"X-Pi05-Ops": "1"}, 200),
    ],
)
def test_who_may_act(
    open_site: OpenSite,
    caplog: pytest.LogCaptureFixture,
    path: str,
    key: str,
    headers: dict[str, str],
    status: int,
) -> None:
    """Without a key that may, or our own header, nothing happens and the log knows of it."""
    site = open_site()
    assert site.ask(path, method="POST", key=key, headers=headers).status == status
    assert site.ask("/readyz").status == 200
    assert ("operations: refused" in caplog.text) == (status in (401, 403))
    assert not any(secret in caplog.text for secret in site.secrets.values())


def test_a_get_does_nothing(open_site: OpenSite) -> None:
    """A link in a mail, or an image on somebody's page, is a GET."""
    site = open_site()
    headers = {"X-Pi05-Ops": "1"}
    assert site.ask("/api/actions/pause", key="admin", headers=headers).status == 405


def test_without_keys_there_are_no_levers(open_site: OpenSite) -> None:
    """And the page knows, so that it shows none."""
    site = open_site(keys=False)
    answer = site.ask("/api/actions/pause", method="POST", headers={"X-Pi05-Ops": "1"})
    assert answer.status == 403
    assert "--ops-admin-key-file" in answer.text


def test_a_revoked_key_opens_nothing(open_site: OpenSite) -> None:
    """The file is read again, as that of the robots."""
    site = open_site()
    assert site.act("resume").status == 202
    revoke_key(Path(site.ops._config.ops_admin_key_file), "admin")
    for _ in range(500):
        if site.act("resume").status == 401:
            return
        threading.Event().wait(0.02)
    raise AssertionError("the key still opens")


# ------------------------------------------------------------------------------------- who may look


def test_on_this_machine_only_its_own_names_lead_here(open_site: OpenSite) -> None:
    """A page elsewhere whose name has been turned to 127.0.0.1 sees nothing (DNS rebinding)."""
    site = open_site()
    for path in ("/api/state", "/api/events", "/metrics", "/api/robots/1/plan"):
        assert site.ask(path, host="evil.example").status == 403
    assert site.ask("/api/state", host=f"localhost:{site.ops.port}").status == 200
    assert site.ask("/healthz", host="evil.example").status == 200


def test_beyond_this_machine_looking_needs_a_key(open_site: OpenSite) -> None:
    """The page itself and the probes have no secrets; figures, images and metrics do."""
    site = open_site(ops={"ops_host": "0.0.0.0"}, insecure=True)
    assert [site.ask(path).status for path in ("/", "/healthz", "/readyz")] == [200, 200, 200]
    expected = {"": 401, "viewer": 200, "prometheus": 403, "admin": 200}
    assert {key: site.ask("/api/state", key=key).status for key in expected} == expected
    expected = {"": 401, "viewer": 403, "prometheus": 200, "admin": 200}
    assert {key: site.ask("/metrics", key=key).status for key in expected} == expected


def test_the_page_stands_alone(open_site: OpenSite) -> None:
    """No other site is named in it, and browsers are told to run and load nothing else."""
    site = open_site()
    page = site.ask("/")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)[^\s\"']+", page.text) == []
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[\w+/=]{44}';", policy)
    assert "unsafe" not in policy
    assert not re.search(r"\son\w+=|innerHTML|insertAdjacentHTML|document\.write", page.text)
    for path in ("/healthz", "/api/state", "/nothing"):
        headers = site.ask(path).headers
        assert (headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == (
            "nosniff",
            "DENY",
        )
        assert headers["Access-Control-Allow-Origin"] is None


# ------------------------------------------------------------------------------------ beginning and end


def test_over_tls(open_site: OpenSite, tmp_path: Path) -> None:
    """With the server's own certificate."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "c")
    site = open_site(tls_cert=str(tmp_path / "c"), tls_key=str(tmp_path / "c"), serving=False)
    assert site.ops.url == f"https://127.0.0.1:{site.ops.port}/"
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with urllib.request.urlopen(f"{site.ops.url}healthz", context=context, timeout=10) as response:
        assert response.read() == b"OK\n"


def test_an_address_that_is_not_safe(tmp_path: Path) -> None:
    """Refused before anything is opened."""
    pytest.importorskip("starlette", reason="needs the extra ops")
    with pytest.raises(ConfigError, match=r"no keys .* and no TLS"):
        make_ops_port(OpsConfig(ops_port=0, ops_host="0.0.0.0"), ServerConfig(), policy="x")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library without extras says what to install."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for name in [name for name in sys.modules if name.startswith("pi05_websocket.ops.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"pip install .*\[ops\]'"):
        make_ops_port(OpsConfig(ops_port=0), ServerConfig(), policy="x")


def test_a_port_that_is_taken(open_site: OpenSite) -> None:
    """The system's error in words that help; nothing is left behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port} is in use"):
            open_site(serving=False, ops={"ops_port": port})


def test_closing_twice(open_site: OpenSite) -> None:
    """Safe, and it says how it is."""
    site = open_site(serving=False)
    assert repr(site.ops) == f"<OpsPort http://127.0.0.1:{site.ops.port}/ listening>"
    site.ops.close()
    site.ops.close()
    assert repr(site.ops).endswith("stopped>")
