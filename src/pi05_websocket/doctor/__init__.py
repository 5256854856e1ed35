# SPDX-License-Identifier: Apache-2.0
"""Mistakes found before anything moves: pure checks, and the little that gathers what they judge."""
