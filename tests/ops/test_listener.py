# SPDX-License-Identifier: Apache-2.0
"""What is left for the operations thread, and what is not kept."""

from __future__ import annotations

from told import answered, opened, refused

from pi05_websocket.ops import listener
from pi05_websocket.ops.listener import RecordQueue
from pi05_websocket.server.records import Closed

SEEN = {"image": object()}


def test_only_the_newest_of_each_robot_is_held() -> None:
    """Records wait without what was seen: memory does not grow with them."""
    queue = RecordQueue()
    queue(opened())
    for number in (1, 2):
        queue(answered(number=number, observation=SEEN, actions=[number]))
    queue(refused("busy"))
    records = queue.take()
    assert records == [opened(), answered(), answered(number=2), refused("busy")]
    assert queue.newest == {1: answered(number=2, observation=SEEN, actions=[2])}
    assert queue.take() == []
    queue(Closed(connection=1, why="lost: no goodbye"))
    assert queue.newest == {}


def test_nothing_is_held_where_nothing_is_to_be_shown() -> None:
    """`--no-ops-images`: what robots see is nobody's business."""
    queue = RecordQueue(with_content=False)
    queue(answered(observation=SEEN, actions=[1]))
    assert queue.newest == {}


def test_there_is_an_end_to_what_waits() -> None:
    """If nobody takes them requests are only counted; who comes and goes is kept."""
    queue = RecordQueue()
    record = answered()
    for _ in range(listener._MOST + 3):
        queue(record)
    queue(Closed(connection=1, why="lost: no goodbye"))
    assert queue.unseen == 3
    assert repr(queue) == f"<RecordQueue waiting={listener._MOST + 1}>"
    assert queue.take()[-1] == Closed(connection=1, why="lost: no goodbye")
