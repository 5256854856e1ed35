# SPDX-License-Identifier: Apache-2.0
"""What a server tells, left where the operations thread finds it.

In: records, on the robots' event loop, which is kept for two appends. Out: the same in their order, without
what was seen and planned, and of each robot the newest with it. Nothing is copied: holding an observation only
keeps its buffer from being used again, and there is one of each robot.
"""

from __future__ import annotations

from collections import deque

from msgspec.structs import replace

from pi05_websocket.server.records import Closed, Record, RequestRecord

__all__ = ["RecordQueue"]

_MOST = 50_000
"""Records that may wait, 10 MB: two seconds of the fastest server. More are counted, not kept."""


class RecordQueue:
    """A listener of the server. A deque's ends need no lock."""

    def __init__(self, *, with_content: bool = True) -> None:
        self._with_content = with_content
        self._records: deque[Record] = deque()
        self.newest: dict[int, RequestRecord] = {}
        """Of each connection the last request that was decoded, with what was seen and planned."""
        self.unseen = 0

    def __repr__(self) -> str:
        return f"<RecordQueue waiting={len(self._records)}>"

    def __call__(self, record: Record) -> None:
        """Take one, on the robots' event loop."""
        if isinstance(record, RequestRecord):
            if len(self._records) >= _MOST:
                self.unseen += 1
                return
            self._records.append(replace(record, observation=None, actions=None))
            if self._with_content and record.actions is not None:
                self.newest[record.connection] = record
        else:
            if isinstance(record, Closed):
                self.newest.pop(record.connection, None)
            self._records.append(record)

    def take(self) -> list[Record]:
        """Return what has come since the last time, on the operations thread."""
        records = self._records
        return [records.popleft() for _ in range(len(records))]
