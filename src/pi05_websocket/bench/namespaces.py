# SPDX-License-Identifier: Apache-2.0
"""A network of one's own: a namespace for this process, and a TUN device in it.

Linux only. Root takes a network namespace; anybody else a user namespace around it, where the system allows
that. Imports nothing that starts a thread: a process with two of them may not enter a user namespace.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

__all__ = [
    "MTU",
    "PREFIX",
    "enter",
    "open_tun",
    "tcp_counters",
    "use_congestion_control",
    "why_not",
]

MTU = 1500
PREFIX = "10.77.0."
"""Of the two addresses; nobody outside of the two namespaces sees them."""

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_SET_FLAGS, _SET_ADDRESS, _SET_NETMASK = 0x8914, 0x8916, 0x891C
_SET_MTU = 0x8922
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_QUEUE_PACKETS = 20_000
"""The device's own queue drops nothing: the delay line has the queue of the link."""


def enter() -> None:
    """Leave the machine's network: from now on this process has one without any device.

    Raises:
        OSError: The system does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    unshare = getattr(os, "unshare", None)  # Linux, from Python 3.12 on
    if unshare is None:
        raise OSError("needs Linux and Python 3.12")
    if user == 0:
        try:
            unshare(os.CLONE_NEWNET)
            return
        except PermissionError:
            pass  # root of a container
    unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def open_tun(number: int) -> int:
    """Create the TUN device of end 1 or 2, with its address; return its file descriptor.

    Without offloads, which TUN has only where asked for: what is read from it are segments as on a cable.

    Raises:
        OSError: There is no `/dev/net/tun`, it may not be opened, or iproute2 is missing.
    """
    import fcntl  # not on every system, where `why_not` is still to say so

    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    name = f"link{number}".encode()
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH14x", name, _IFF_TUN | _IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:

        def ask(request: int, device: bytes, value: bytes) -> None:
            fcntl.ioctl(control, request, struct.pack("16s24s", device, value))

        def address(text: str) -> bytes:
            return struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))

        up = struct.pack("H", _IFF_UP | _IFF_RUNNING)
        ask(_SET_FLAGS, b"lo", up)
        ask(_SET_ADDRESS, name, address(f"{PREFIX}{number}"))
        ask(_SET_NETMASK, name, address("255.255.255.252"))
        ask(_SET_MTU, name, struct.pack("i", MTU))
        ask(_SET_FLAGS, name, up)
    # By netlink: the ioctl wants to be root of the machine.
    _ip("link", "set", "dev", f"link{number}", "txqueuelen", str(_QUEUE_PACKETS))
    return fd


def use_congestion_control(number: int, name: str) -> None:
    """Let connections over the device use this congestion control, by its route.

    Not by the system's setting: a namespace may not choose every algorithm there, on its own routes it may.

    Raises:
        OSError: `ip` (iproute2) is missing, or the kernel knows no such algorithm.
    """
    _ip("route", "replace", f"{PREFIX}0/30", "dev", f"link{number}", "congctl", name)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def tcp_counters() -> dict[str, int]:
    """Return the namespace's counters of TCP, `OutSegs` and `RetransSegs` among them."""
    lines = Path("/proc/self/net/snmp").read_text().splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith("Tcp:"))
    return {name: int(value) for name, value in zip(names, values, strict=True)}


def why_not() -> str | None:
    """Try it in another process; say why it is not possible here, or None."""
    if not sys.platform.startswith("linux"):
        return f"network namespaces are Linux's, this is {sys.platform}"
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    words = done.stderr.strip().splitlines()
    return None if done.returncode == 0 else words[-1] if words else f"exit code {done.returncode}"


if __name__ == "__main__":
    enter()
    os.close(open_tun(1))
