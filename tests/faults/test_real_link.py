# SPDX-License-Identifier: Apache-2.0
"""The benchmark's real link: the kernel's TCP over TUN where that is permitted, else a proxy."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pi05_websocket.bench import namespaces
from pi05_websocket.bench.forwarder import forward
from pi05_websocket.bench.links import Link
from pi05_websocket.bench.real_link import RealLink, kind_here
from pi05_websocket.errors import ConnectFailed

COMPUTE_MS = 50.0
LOSSY = Link(name="lossy", rtt_ms=60, jitter_ms=5, loss=0.02, mbit=100)


@pytest.fixture(scope="module")
def permitted() -> None:
    """Skip where no namespace can be had."""
    kind, reason = kind_here()
    if kind != "tun":
        pytest.skip(f"no network namespace with a TUN device: {reason}")


@pytest.fixture
def devices() -> Iterator[list[socket.socket]]:
    """Stand in for two TUN devices: what is sent to one of a pair, the other reads packet by packet."""
    sockets = [s for _ in range(2) for s in socket.socketpair(type=socket.SOCK_DGRAM)]
    for made in sockets:
        made.setblocking(False)
    yield sockets
    for made in sockets:
        made.close()


@pytest.mark.usefixtures("permitted")
def test_segments_are_delayed_lost_and_sent_again():
    """Each observation takes a round trip at least; the kernel repairs what the cable lost."""
    with RealLink(LOSSY, policy="still", seed=1) as link:
        trips = link.measure(6, pixels=120)
        counters = link.ask(do="counters")

    assert len(trips) == 6
    assert min(trips) >= COMPUTE_MS + LOSSY.rtt_ms
    assert link.name == f"kernel TCP over TUN, {link.congestion}"
    assert link.congestion
    assert counters["OutSegs"] > 6 * 460_800 / 1448
    assert counters["RetransSegs"] > 0
    assert link.carried["up"]["lost"] > 0
    assert link.carried["up"]["carried"] > 6 * 460_800 / 1448
    assert link.carried["down"]["dropped"] == 0


@pytest.mark.usefixtures("permitted")
def test_congestion_control_is_chosen_by_name():
    """Reno is in every kernel; a name that is in none ends with the reason."""
    near = Link(name="near", rtt_ms=1)
    with RealLink(near, policy="still", congestion="reno") as link:
        assert link.congestion == "reno"

    unknown = RealLink(near, policy="still", congestion="nonsense")
    with pytest.raises(ConnectFailed, match="nonsense"):
        unknown.__enter__()


@pytest.mark.usefixtures("permitted")
@pytest.mark.parametrize(("congestion", "pongs"), [("reno", True), ("bbr", False)])
def test_a_resting_connection_is_kept_warm(tmp_path: Path, congestion: str, pongs: bool) -> None:
    """A far one, of a kernel that forgets; the server lets the pongs pass, and takes no harm."""
    image = np.zeros((24, 32, 3), np.uint8)
    np.savez(tmp_path / "images.npz", realsense=image, wrist2=image)
    asked = {"do": "paced", "images": str(tmp_path / "images.npz"), "count": 1, "every_s": 0.5}
    sent = {}
    try:
        with RealLink(Link(name="far", rtt_ms=20), policy="instant", congestion=congestion) as link:
            for way in ("ours, raw, cold", "ours, raw"):
                before = link.ask(do="counters")["OutSegs"]
                assert len(link.ask(**asked, way=way)["exchanges"]) == 1
                sent[way] = link.ask(do="counters")["OutSegs"] - before
    except ConnectFailed as exc:
        pytest.skip(f"no {congestion} in this kernel: {exc}")

    more = sent["ours, raw"] - sent["ours, raw, cold"]
    assert (more > 15) is pongs  # 30 of them fit into three pauses


def test_a_proxy_delays_messages_where_nothing_else_can_be_had():
    """The sockets are real, the losses the model's, and the name says so."""
    with RealLink(LOSSY, kind="proxy", policy="still") as link:
        trips = link.measure(3, pixels=60)

        assert "lossy: modelled loss" in repr(link)
    assert min(trips) >= COMPUTE_MS + LOSSY.rtt_ms
    assert link.carried == {}


def test_without_distance_the_loopback_interface_is_the_link():
    """No cable is better than one of ours."""
    with RealLink(Link(name="here", rtt_ms=0.1), policy="still") as link:
        trips = link.measure(3, pixels=60)

    assert link.name.startswith("kernel TCP over the loopback interface")
    assert min(trips) >= COMPUTE_MS


def test_a_link_that_is_not_open_cannot_be_asked():
    """And an end that dies says why."""
    link = RealLink(Link(name="here", rtt_ms=0.1), policy="still")
    with pytest.raises(ConnectFailed, match="not open"):
        link.measure(1)
    with link, pytest.raises(ConnectFailed, match="KeyError"):
        link.ask(do="round trips")


def test_only_a_cable_can_be_cut():
    """The loopback interface is none."""
    with (
        RealLink(Link(name="here", rtt_ms=0), policy="still") as link,
        pytest.raises(ConnectFailed, match="only a link over TUN"),
    ):
        link.cut_or_mend()


def test_why_not_names_the_reason():
    """None, or a sentence with the system's own words."""
    reason = namespaces.why_not()

    assert reason is None or reason


def test_the_cable_hands_packets_on_both_ways(devices: list[socket.socket]):
    """After half of the round trip, unchanged; then it says what it has carried."""
    near_end, near, far, far_end = devices
    stop, stopper = os.pipe()
    link = Link(name="x", rtt_ms=40)
    found: list[dict[str, object]] = []
    cable = threading.Thread(
        target=lambda: found.append(forward(near.fileno(), far.fileno(), link, 0, stop))
    )
    cable.start()
    for source, sink in ((near_end, far_end), (far_end, near_end)):
        sink.settimeout(10)
        began = time.monotonic()
        source.send(b"a packet")
        assert sink.recv(2048) == b"a packet"
        assert time.monotonic() - began >= 0.02
    os.close(stopper)
    cable.join(10)
    os.close(stop)

    nothing_else = dict.fromkeys(("lost", "dropped", "overtaken", "doubled"), 0)
    assert found[0]["up"] == {"carried": 1, **nothing_else}
    assert found[0]["down"] == {"carried": 1, **nothing_else}
