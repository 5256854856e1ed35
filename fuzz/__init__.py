# SPDX-License-Identifier: Apache-2.0
"""Bytes that nobody sane sends, for everything that reads a stranger's bytes. See docs/topics/hostile.md."""
