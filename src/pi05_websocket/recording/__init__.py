# SPDX-License-Identifier: Apache-2.0
"""What an arm was asked, answered and commanded, in MCAP files: written while it runs, read afterwards.

Needs the extra `record`. Imported by name: `recorder` writes, `contents` reads.
"""
