"""Large values in Redis: bytes in chunks under keys of their own, and how they are moved.

A reference, which travels in a value's place, says where they are:
`{"key": "celery-blob-…", "size": bytes in all, "chunk": bytes of each but the last}`;
chunk `i` is the key `<key>.<i>`. Chunks keep other clients from waiting long: Redis serves
one command at a time. Two are on their way at any time, so that Redis works on the next
while one is sent, and neither side ever holds more of a value than these beside the value.
"""

import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain, islice
from typing import Any

from redis import ConnectionPool, Redis
from redis.connection import PythonRespSerializer
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from cluster.errors import OutOfMemory, Unreadable, ValueGone

#: Bytes of a chunk.
CHUNK = 1024 * 1024
#: Chunks on their way at a time.
WINDOW = 2
#: What a reference may say: nobody is to be kept busy by one that was made up.
LEAST_CHUNK, MOST_CHUNK, MOST_CHUNKS = 2**16, 2**29, 100_000
#: Keys removed by one command.
BATCH = 1000

PREFIX = "celery-blob-"
_KEY = re.compile(rf"{PREFIX}[\w.-]{{1,200}}")

#: Store a chunk in memory and on replicas, but not in the file that Redis recovers from.
_VOLATILE_SET = """
redis.set_repl(redis.REPL_REPLICA)
return redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
"""

Reference = Mapping[str, Any]
#: Called with the bytes moved so far, and in all.
Progress = Callable[[int, int], object]


def check(reference: Reference) -> Reference:
    """Return a reference if it is one; raises Unreadable if a sender made it up."""
    if is_reference(reference):
        return reference
    raise Unreadable("a reference to a large value is none of this cluster's")


def is_reference(reference: Reference) -> bool:
    """Tell whether a reference is one, and not made up by a sender."""
    key, size, chunk = (reference.get(name) for name in ("key", "size", "chunk"))
    return (
        isinstance(key, str)
        and _KEY.fullmatch(key) is not None
        and type(size) is int
        and type(chunk) is int
        and LEAST_CHUNK <= chunk <= MOST_CHUNK
        and 0 <= size <= chunk * MOST_CHUNKS
    )


class Blobs:
    """The large values of one Redis server."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def put(
        self, key: str, data: memoryview, seconds: int, *, on_disk: bool, progress: Progress
    ) -> Reference:
        """Store bytes for so many seconds under a name without the prefix; return a reference.

        `on_disk`: they survive the server's own death, as jobs do. Raises OutOfMemory if the
        server has no room for them, with nothing left behind.
        """
        reference = {"key": PREFIX + key, "size": len(data), "chunk": CHUNK}
        parts = (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))
        sent = confirmed = 0
        try:
            with self._connection() as connection:
                for name, part in zip(_keys(reference), parts, strict=True):
                    _send(connection, *_set(name, part, seconds, on_disk=on_disk))
                    sent += 1
                    if sent - confirmed == WINDOW:
                        connection.read_response()
                        confirmed += 1
                        progress(confirmed * CHUNK, len(data))
                while confirmed < sent:
                    connection.read_response()
                    confirmed += 1
                    progress(min(confirmed * CHUNK, len(data)), len(data))
        except BaseException as error:
            with suppress(RedisError, OSError):
                self.delete([reference])
            if isinstance(error, OutOfMemoryError):
                raise OutOfMemory(
                    f"the Redis server has no memory for a value of {len(data)} bytes: {error}"
                ) from None
            raise
        return reference

    def find(self, key: str, size: int) -> Reference | None:
        """Return a reference to so many bytes if they are stored under this name."""
        reference = {"key": PREFIX + key, "size": size, "chunk": CHUNK}
        *_, last = _keys(reference)
        return reference if Redis(connection_pool=self._pool).exists(last) else None

    def get(self, reference: Reference, into: memoryview, *, progress: Progress) -> None:
        """Fill a buffer with the bytes that a reference stands for.

        Redis' replies are read from the socket into the buffer itself: redis-py would copy
        every byte three times, and takes three to five times as long. Raises ValueGone if a
        chunk is not there any more, Unreadable if what is there does not fit the buffer.
        """
        if len(into) != reference["size"]:
            raise Unreadable(f"a value of {len(into)} bytes refers to {reference['size']} bytes")
        keys = _keys(reference)
        with self._connection() as connection:
            for key in islice(keys, WINDOW):
                _send(connection, "GET", key)
            for start in range(0, len(into), reference["chunk"]):
                part = into[start : start + reference["chunk"]]
                _read_reply(connection, part)
                for key in islice(keys, 1):
                    _send(connection, "GET", key)
                progress(start + len(part), len(into))

    def delete(self, references: Iterable[Reference], *others: str | bytes) -> None:
        """Remove what references stand for, and other keys; what is gone is no error.

        A reference that a sender made up stands for nothing.
        """
        known = {each["key"]: each for each in references if is_reference(each)}
        chunks = chain.from_iterable(map(_keys, known.values()))
        keys = chain(others, islice(chunks, MOST_CHUNKS))  # what is left of so many expires
        while batch := [*islice(keys, BATCH)]:
            Redis(connection_pool=self._pool).unlink(*batch)

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        connection: Any = self._pool.get_connection()
        try:
            connection.check_health()
            yield connection
        except BaseException:
            connection.disconnect()  # replies may be under way that nobody will read
            raise
        finally:
            self._pool.release(connection)


def _keys(reference: Reference) -> Iterator[str]:
    for number in range(-(-reference["size"] // reference["chunk"])):
        yield f"{reference['key']}.{number}"


def _encoded(part: Any) -> Any:
    return part if isinstance(part, bytes | memoryview) else str(part).encode()


#: Packs commands around a chunk. That of a connection, hiredis', copies the chunk, twice.
_packer: Any = PythonRespSerializer(LEAST_CHUNK, _encoded)


def _send(connection: Any, *command: Any) -> None:
    # No health check: it would take the reply under way for its own.
    connection.send_packed_command(_packer.pack(*command), check_health=False)


def _set(key: str, part: memoryview, seconds: int, *, on_disk: bool) -> tuple[Any, ...]:
    if on_disk:
        return ("SET", key, part, "EX", seconds)
    return ("EVAL", _VOLATILE_SET, 1, key, part, seconds)


def _read_reply(connection: Any, part: memoryview) -> None:
    """Read the reply to GET: `$<length>`, the bytes, and an end of line.

    https://redis.io/docs/latest/develop/reference/protocol-spec/
    """
    stream: socket.socket = connection._sock  # noqa: SLF001 - redis-py reads into no buffer of ours
    try:
        line = _read_line(stream)
        if line in {b"_", b"$-1"}:  # null, in the protocol's third version and in its second
            raise ValueGone
        if line.startswith(b"-WRONGTYPE"):
            raise Unreadable("what a value refers to is no chunk of one")
        if line[:1] != b"$":
            raise ResponseError(line[1:].decode(errors="replace"))
        if int(line[1:]) != len(part):
            raise Unreadable(f"a chunk of {len(part)} bytes holds {int(line[1:])}")
        while part:
            part = part[_some(stream.recv_into(part)) :]
        _read_line(stream)
    except OSError as error:  # redis-py's errors are its own
        raise RedisConnectionError(f"reading a large value: {error}") from error


def _read_line(stream: socket.socket) -> bytes:
    # A byte at a time: what follows the line belongs into the buffer.
    line = b""
    while not line.endswith(b"\r\n"):
        byte = stream.recv(1)
        _some(len(byte))
        line += byte
    return line[:-2]


def _some(count: int) -> int:
    """Return the number of bytes received; none is the end of the connection."""
    if not count:
        raise ConnectionResetError("the server closed the connection")
    return count
