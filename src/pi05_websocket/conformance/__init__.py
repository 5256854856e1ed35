# SPDX-License-Identifier: Apache-2.0
"""Does a server, or a client, speak the protocol of docs/reference/protocol.md? Checks for both, and vectors.

`examine_server` and `examine_client` have the tables and run them; `pytest_plugin` is for other people's tests.
It shares the codec with the rest of the library and no socket code.
"""
