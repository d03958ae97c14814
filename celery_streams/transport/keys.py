"""The names of what a queue is made of in Redis.

    <queue>:stream:<step>     a stream for each priority step; 0 is the most urgent
    <queue>:returned:<step>   a stream of released and reclaimed messages of the step
    <queue>:delayed           a sorted set of messages whose time lies ahead, by that time
    <queue>:dead              a stream of dead letters
    celery-beat:<entry>       the last job that beat submitted by an entry of its schedule

Beside them is kombu's own list, `<queue>`, which programs without this transport write to.

A delivery tag says where an entry is: `<stream>/<id>`.
"""

from collections import defaultdict
from collections.abc import Iterable

#: The consumer group of each stream: its consumers share the messages among them.
GROUP = "workers"


def stream(queue: str, step: int) -> str:
    """Return the stream of a queue's messages of one priority step."""
    return f"{queue}:stream:{step}"


def returned(queue: str, step: int) -> str:
    """Return the stream of a queue's messages of one step that were delivered before."""
    return f"{queue}:returned:{step}"


def returned_from(stream: str) -> str:
    """Return the stream for messages that are released from a stream: of the same step."""
    queue, _, step = stream.rsplit(":", 2)
    return f"{queue}:returned:{step}"


def former_returned(queue: str) -> str:
    """Return the stream in which earlier versions kept released messages of all steps."""
    return f"{queue}:returned"


def delayed(queue: str) -> str:
    """Return the sorted set of a queue's messages that are for later."""
    return f"{queue}:delayed"


def dead(queue: str) -> str:
    """Return the stream of a queue's dead letters."""
    return f"{queue}:dead"


def beat(entry: str) -> str:
    """Return the key of the last job that was submitted by an entry of beat's schedule."""
    return f"celery-beat:{entry}"


def queue_of(key: str) -> str:
    """Return the queue that a stream of messages belongs to."""
    queue, _, _ = key.rsplit(":", 2)
    return queue


def tag(stream: str, entry_id: str) -> str:
    """Return the delivery tag of an entry."""
    return f"{stream}/{entry_id}"


def is_tag(tag: str) -> bool:
    """Tell whether a delivery tag is one of an entry, and not one that kombu made."""
    return "/" in tag


def place(tag: str) -> tuple[str, str]:
    """Return the stream and the id of the entry that a delivery tag stands for."""
    stream, _, entry_id = tag.rpartition("/")
    return stream, entry_id


def by_stream(tags: Iterable[str]) -> dict[str, list[str]]:
    """Return the ids that delivery tags stand for, for each stream."""
    ids = defaultdict(list)
    for each in tags:
        stream, entry_id = place(each)
        ids[stream].append(entry_id)
    return ids
