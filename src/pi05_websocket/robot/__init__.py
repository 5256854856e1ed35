# SPDX-License-Identifier: Apache-2.0
"""The control side: ticks, and the player that has one action for each of them."""
