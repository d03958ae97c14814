"""The Redis keys of a queue, and the delivery tags of its entries.

    <queue>:stream:<step>     a stream for each priority step; 0 is the most urgent
    <queue>:returned:<step>   a stream of released and reclaimed messages, fetched before the former
    <queue>:delayed           a sorted set of delayed messages, by the time when they are due
    <queue>:dead              a stream of dead letters
    <queue>:reclaimed         a note that expired leases were just looked for
    <queue>:swept             a note that idle consumers were removed in the last minute
    celery-beat:<entry>       the last job that beat submitted for an entry of its schedule

Programs on kombu's own transport push to its lists: `<queue>`, and one more for each other step.

The delivery tag of an entry is `<stream>/<id>`.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: The consumer group of each stream.
GROUP = "workers"
#: The greatest priority that kombu's Redis transport knows.
MAX_PRIORITY = 9


def stream(queue: str, step: int) -> str:
    """Return the stream of a queue's messages of one priority step."""
    return f"{queue}:stream:{step}"


def returned(queue: str, step: int) -> str:
    """Return the stream of a queue's released and reclaimed messages of one priority step."""
    return f"{queue}:returned:{step}"


def returned_from(stream: str) -> str:
    """Return the stream that messages of `stream` are released into."""
    queue, _, step = stream.rsplit(":", 2)
    return f"{queue}:returned:{step}"


def former_returned(queue: str) -> str:
    """Return the stream in which earlier versions kept the released messages of all steps."""
    return f"{queue}:returned"


def delayed(queue: str) -> str:
    """Return the sorted set of a queue's delayed messages."""
    return f"{queue}:delayed"


def dead(queue: str) -> str:
    """Return the stream of a queue's dead letters."""
    return f"{queue}:dead"


def notes(queue: str) -> list[str]:
    """Return the keys of the notes on what one consumer has done for all."""
    return [f"{queue}:reclaimed", f"{queue}:swept"]


def beat(entry: str) -> str:
    """Return the key of the last job that was submitted for an entry of beat's schedule."""
    return f"celery-beat:{entry}"


def queue_of(key: str) -> str:
    """Return the queue of a stream of messages."""
    queue, _, _ = key.rsplit(":", 2)
    return queue


def tag(stream: str, entry_id: str) -> str:
    """Return the delivery tag of an entry."""
    return f"{stream}/{entry_id}"


def is_tag(tag: str) -> bool:
    """Return True for the delivery tag of an entry, False for one that kombu generated."""
    return "/" in tag


def place(tag: str) -> tuple[str, str]:
    """Return the stream and the entry's id of a delivery tag."""
    stream, _, entry_id = tag.rpartition("/")
    return stream, entry_id


def by_stream(tags: Iterable[str]) -> dict[str, list[str]]:
    """Return the entries' ids of delivery tags, by stream."""
    ids = defaultdict(list)
    for each in tags:
        stream, entry_id = place(each)
        ids[stream].append(entry_id)
    return ids


def priority_step(message: Mapping[str, Any], steps: Sequence[int]) -> int:
    """Return the priority step of a message, as kombu's channel determines it."""
    try:
        priority = max(min(int(message["properties"]["priority"]), MAX_PRIORITY), 0)
    except (TypeError, ValueError, KeyError, OverflowError):
        priority = 0
    return steps[max(bisect_right(steps, priority) - 1, 0)]
