# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the fault tests."""

from misbehaving import bare_tcp, remote, scripted

__all__ = ["bare_tcp", "remote", "scripted"]
