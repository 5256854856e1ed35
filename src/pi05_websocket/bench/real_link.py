# SPDX-License-Identifier: Apache-2.0
"""A robot and its server on one machine with a network between them: real TCP at both ends.

In: a link. Out: two processes that are joined by it, and one that is the cable. What the link does to packets
is `delay_line`'s; what they mean is the kernel's. Where namespaces are not permitted, a proxy delays whole
messages as `links.Path` says: that is modelled loss, and results say so.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict
from types import TracebackType
from typing import Any, Literal

from pi05_websocket.bench import namespaces
from pi05_websocket.bench.links import Link
from pi05_websocket.bench.modelled_link import ModelledLink
from pi05_websocket.errors import ConnectFailed

__all__ = ["PAUSE_S", "Kind", "RealLink", "kind_here"]

Kind = Literal["tun", "proxy"]
"""`tun`: segments of the kernel's TCP, lost one by one. `proxy`: whole messages, delayed as the model says."""

PAUSE_S = 0.4
"""From a reply to the next observation when round trips are measured: about as long as an arm moves."""
_STOP_S = 5.0
"""How long a process may take to end; one that is in the middle of an episode has nothing to lose."""
_PATIENCE_S = 600.0
"""How long one job may take: a hundred observations of a link that stalls."""
_ROBOT, _SERVER = 1, 2
_ONE_THREAD = ("LP_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def kind_here() -> tuple[Kind, str]:
    """Return which kind of link this machine permits, and why not the better one."""
    reason = namespaces.why_not()
    return ("tun", "") if reason is None else ("proxy", reason)


class _Process:
    """A process that is asked in lines and answers in lines."""

    def __init__(self, module: str, *words: str, fds: tuple[int, ...] = ()) -> None:
        self._module = module
        # Kept open: its last words explain a failure.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"pi05_websocket.bench.{module}", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            pass_fds=fds,
            start_new_session=True,  # Ctrl-C is for who started it
            # As the virtual clock's processes: no screen, and no threads that wait for each other.
            env={"MUJOCO_GL": "egl", **os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
        )

    def read(self) -> dict[str, Any]:
        """Return the next answer.

        Raises:
            ConnectFailed: The process has ended; with its last words. Or it has said nothing for ten minutes.
        """
        assert self._process.stdout is not None
        watch = threading.Timer(_PATIENCE_S, self._process.kill)
        watch.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watch.cancel()
        if not line:
            raise ConnectFailed(f"bench.{self._module} has ended: {self._last_words()}")
        return dict(json.loads(line))

    def ask(self, **job: Any) -> dict[str, Any]:
        """Give a job; return the answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then reading says why
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        return self.read()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self) -> str:
        """Let it end; return what it still had to say. Safe to call twice."""
        if self._log.closed:
            return ""
        try:
            said, _ = self._process.communicate(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            said = ""
        finally:
            self._process.kill()
            self._process.communicate()
            self._log.close()
        return said

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
        self._log.seek(0)
        words = self._log.read().decode(errors="replace").strip().splitlines()
        return words[-1] if words else f"exit code {self._process.returncode}"


class RealLink:
    """Starts everything on entering, ends it on leaving. A context manager.

    Args:
        link: The network. One without a round trip to speak of and without loss is the loopback interface.
        kind: How it is made.
        seed: Of the link's randomness.
        congestion: Congestion control of both ends; "": the system's.
        policy: What is served: `expert`; for round trips alone `still`, or `instant`, which takes no time.
    """

    def __init__(
        self,
        link: Link,
        *,
        kind: Kind = "tun",
        seed: int = 0,
        congestion: str = "",
        policy: Literal["expert", "still", "instant"] = "expert",
    ) -> None:
        self.link = link
        self.congestion = congestion
        self.carried: dict[str, Any] = {}
        """What the cable has carried, lost and dropped each way, once the link is closed."""
        self._is_loopback = link.rtt_ms < 0.5 and not link.loss and not link.jitter_ms
        self._kind: Kind = kind
        self._seed, self._policy = seed, policy
        self._open = contextlib.ExitStack()
        self._robot: _Process | None = None
        self._cable: _Process | None = None

    def __repr__(self) -> str:
        return f"<RealLink {self.link.name}: {self.name}>"

    @property
    def name(self) -> str:
        """What results call it."""
        if self._is_loopback:
            return f"kernel TCP over the loopback interface, {self.congestion}"
        if self._kind == "tun":
            return f"kernel TCP over TUN, {self.congestion}"
        return "modelled loss"

    def __enter__(self) -> RealLink:
        try:
            self._start()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._robot is not None:
            self._robot.stop()  # it says goodbye over the cable
        self._open.close()

    def ask(self, **job: Any) -> dict[str, Any]:
        """Give the robot's end a job; return its answer. See `real_end`."""
        if self._robot is None:
            raise ConnectFailed("the link is not open")
        return self._robot.ask(**job)

    def cut_or_mend(self) -> None:
        """Have the cable lose every packet from now on; or none but by chance, where it did so before."""
        if self._cable is None:
            raise ConnectFailed("only a link over TUN can be cut")
        self._cable.signal(signal.SIGUSR1)

    def measure(self, count: int, *, pixels: int = 480) -> list[float]:
        """Return the milliseconds that observations took, one after the other, from the first on.

        Args:
            count: How many.
            pixels: Rows of their larger image.
        """
        asked = {"do": "round trips", "count": count, "pause_s": PAUSE_S, "pixels": pixels}
        return [float(trip) for trip in self.ask(**asked)["round_trips_ms"]]

    def _start(self) -> None:
        over_tun = self._kind == "tun" and not self._is_loopback
        devices = []
        server, device = self._end(_SERVER, "server", over_tun)
        devices.append(device)
        # Bound to an address that is there; nobody needs the cable for that.
        url = server.read()["url"]
        if not over_tun and not self._is_loopback:
            port = int(url.rpartition(":")[2])
            proxy = self._open.enter_context(ModelledLink(port, self.link, seed=self._seed))
            url = f"ws://127.0.0.1:{proxy.port}"
        self._robot, device = self._end(_ROBOT, "robot", over_tun, url=url)
        devices.append(device)
        if over_tun:
            self._join(devices[1], devices[0])
        self.congestion = self._robot.read()["congestion"] or self.congestion

    def _end(self, number: int, role: str, over_tun: bool, **more: Any) -> tuple[_Process, int]:
        """Start one end; return it and its TUN device, -1 without one."""
        facts = {"role": role, "end": number, "policy": self._policy, "handover": None, **more}
        facts["congestion"] = self.congestion
        if not over_tun:
            return self._kept(_Process("real_end", json.dumps(facts))), -1
        ours, theirs = socket.socketpair()
        with ours, theirs:
            facts["handover"] = theirs.fileno()
            end = _Process("real_end", json.dumps(facts), fds=(theirs.fileno(),))
            self._kept(end)
            theirs.close()
            ours.settimeout(_PATIENCE_S)
            _, devices, _, _ = socket.recv_fds(ours, 8, 1)
        if not devices:
            end.read()  # raises, with the reason
        return end, devices[0]

    def _kept(self, process: _Process) -> _Process:
        self._open.callback(process.stop)
        return process

    def _join(self, near: int, far: int) -> None:
        words = (str(near), str(far), str(self._seed), json.dumps(asdict(self.link)))
        cable = self._cable = _Process("forwarder", *words, fds=(near, far))
        for device in (near, far):
            os.close(device)

        def stop() -> None:
            self.carried = json.loads(cable.stop() or "{}")

        self._open.callback(stop)
