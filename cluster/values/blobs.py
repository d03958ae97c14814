"""Large values in Redis, stored in chunks under keys of their own.

A message or result holds a reference instead of the value:
`{"key": "celery-blob-…", "size": total bytes, "chunk": bytes of each chunk but the last}`;
chunk `i` is the key `<key>.<i>`. Redis serves one command at a time, so chunks keep the wait of
other clients short. Two are in flight at any time: Redis works on one while the other is
transferred, and neither side buffers more than these besides the value itself.
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

#: Size of a chunk, in bytes.
CHUNK = 1024 * 1024
#: Chunks in flight at a time.
CHUNKS_IN_FLIGHT = 2
#: Bounds of a valid reference, in bytes and chunks: a forged one must not keep a worker busy.
MIN_CHUNK, MAX_CHUNK, MAX_CHUNKS = 2**16, 2**29, 100_000
#: Keys deleted by one command.
DELETE_BATCH_SIZE = 1000

PREFIX = "celery-blob-"
_KEY = re.compile(rf"{PREFIX}[\w.-]{{1,200}}")

#: Store a chunk in memory and on replicas, but not in the append-only file.
_VOLATILE_SET = """
redis.set_repl(redis.REPL_REPLICA)
return redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
"""

Reference = Mapping[str, Any]
#: Called with the bytes transferred so far and the total.
Progress = Callable[[int, int], object]


def check(reference: Reference) -> Reference:
    """Return `reference` if it is valid; raise Unreadable otherwise."""
    if is_reference(reference):
        return reference
    raise Unreadable("invalid reference to a large value")


def is_reference(reference: Reference) -> bool:
    """Return True if `reference` has the form of one and is within the bounds."""
    key, size, chunk = (reference.get(name) for name in ("key", "size", "chunk"))
    return (
        isinstance(key, str)
        and _KEY.fullmatch(key) is not None
        and type(size) is int
        and type(chunk) is int
        and MIN_CHUNK <= chunk <= MAX_CHUNK
        and 0 <= size <= chunk * MAX_CHUNKS
    )


class Blobs:
    """The large values of one Redis server."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def put(
        self, key: str, data: memoryview, seconds: int, *, on_disk: bool, progress: Progress
    ) -> Reference:
        """Store `data` for `seconds` under `key`, without the prefix, and return a reference.

        With `on_disk` it survives a crash of the server, as jobs do. Raise OutOfMemory, leaving
        nothing behind, if the server has no memory for it.
        """
        reference = {"key": PREFIX + key, "size": len(data), "chunk": CHUNK}
        parts = (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))
        sent = confirmed = 0
        try:
            with self._connection() as connection:
                for name, part in zip(_keys(reference), parts, strict=True):
                    _send(connection, *_set(name, part, seconds, on_disk=on_disk))
                    sent += 1
                    if sent - confirmed == CHUNKS_IN_FLIGHT:
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
        """Return a reference to the `size` bytes stored under `key`, or None if there are none."""
        reference = {"key": PREFIX + key, "size": size, "chunk": CHUNK}
        *_, last = _keys(reference)
        return reference if Redis(connection_pool=self._pool).exists(last) else None

    def get(self, reference: Reference, into: memoryview, *, progress: Progress) -> None:
        """Read the bytes of `reference` into the buffer `into`.

        Replies are read from the socket directly into the buffer: redis-py would copy every
        byte three times. Raise ValueGone if a chunk no longer exists, Unreadable if its size
        does not fit the buffer.
        """
        if len(into) != reference["size"]:
            raise Unreadable(f"a value of {len(into)} bytes refers to {reference['size']} bytes")
        keys = _keys(reference)
        with self._connection() as connection:
            for key in islice(keys, CHUNKS_IN_FLIGHT):
                _send(connection, "GET", key)
            for start in range(0, len(into), reference["chunk"]):
                part = into[start : start + reference["chunk"]]
                _read_reply(connection, part)
                for key in islice(keys, 1):
                    _send(connection, "GET", key)
                progress(start + len(part), len(into))

    def delete(self, references: Iterable[Reference], *others: str | bytes) -> None:
        """Delete the chunks of references, and other keys; missing keys are ignored.

        Invalid references are ignored, too.
        """
        known = {each["key"]: each for each in references if is_reference(each)}
        chunks = chain.from_iterable(map(_keys, known.values()))
        keys = chain(others, islice(chunks, MAX_CHUNKS))  # any more of them expire
        while batch := [*islice(keys, DELETE_BATCH_SIZE)]:
            Redis(connection_pool=self._pool).unlink(*batch)

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        connection: Any = self._pool.get_connection()
        try:
            connection.check_health()
            yield connection
        except BaseException:
            connection.disconnect()  # it may have unread replies
            raise
        finally:
            self._pool.release(connection)


def _keys(reference: Reference) -> Iterator[str]:
    for number in range(-(-reference["size"] // reference["chunk"])):
        yield f"{reference['key']}.{number}"


def _encoded(part: Any) -> Any:
    return part if isinstance(part, bytes | memoryview) else str(part).encode()


#: Packs commands without copying the chunk, which hiredis' packer does twice.
_packer: Any = PythonRespSerializer(MIN_CHUNK, _encoded)


def _send(connection: Any, *command: Any) -> None:
    # No health check: it would read the reply of a chunk in flight as its own.
    connection.send_packed_command(_packer.pack(*command), check_health=False)


def _set(key: str, part: memoryview, seconds: int, *, on_disk: bool) -> tuple[Any, ...]:
    if on_disk:
        return ("SET", key, part, "EX", seconds)
    return ("EVAL", _VOLATILE_SET, 1, key, part, seconds)


def _read_reply(connection: Any, part: memoryview) -> None:
    """Read the reply to GET into `part`: `$<length>`, the bytes, and a line end.

    https://redis.io/docs/latest/develop/reference/protocol-spec/
    """
    stream: socket.socket = connection._sock  # noqa: SLF001 - redis-py can't read into a buffer
    try:
        line = _read_line(stream)
        if line in {b"_", b"$-1"}:  # null in RESP3 and RESP2
            raise ValueGone
        if line.startswith(b"-WRONGTYPE"):
            raise Unreadable("a reference to a large value names a key that is not a chunk")
        if line[:1] != b"$":
            raise ResponseError(line[1:].decode(errors="replace"))
        if int(line[1:]) != len(part):
            raise Unreadable(f"a chunk has {int(line[1:])} bytes instead of {len(part)}")
        while part:
            part = part[_received(stream.recv_into(part)) :]
        _read_line(stream)
    except OSError as error:  # as redis-py would report it
        raise RedisConnectionError(f"reading a large value: {error}") from error


def _read_line(stream: socket.socket) -> bytes:
    # A byte at a time: the bytes after the line must go straight into the buffer.
    line = b""
    while not line.endswith(b"\r\n"):
        byte = stream.recv(1)
        _received(len(byte))
        line += byte
    return line[:-2]


def _received(count: int) -> int:
    """Return `count`, the bytes received; raise ConnectionResetError if it is zero."""
    if not count:
        raise ConnectionResetError("the server closed the connection")
    return count
