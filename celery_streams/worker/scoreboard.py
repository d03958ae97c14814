"""What each process of a pool does, in memory that it shares with the worker's main process.

The word is Apache's: https://httpd.apache.org/docs/current/mod/mod_status.html
"""

import json
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ctypes import Structure, c_bool, c_double, c_int, c_longlong, sizeof
from multiprocessing import get_context
from time import monotonic
from typing import Any, NamedTuple

#: Processes of a pool at most.
MAX_PROCESSES = 1000
#: Bytes of a slot; pages that nobody writes to take no memory.
SLOT_BYTES = 256 * 1024
#: Those of them for the events of jobs.
EVENTS_BYTES = 128 * 1024
#: The position while no job runs.
IDLE = -1
#: Seconds that the main process waits for a slot's lock: its holder may have died, or be stopped.
LOCK_TIMEOUT = 0.2


class _Fields(Structure):
    """The fields at the beginning of a slot; the process writes them unless it says otherwise."""

    #: The position of the running job in the fetch, or IDLE.
    position: int
    #: The number of jobs of the fetch that were begun, and of those that may be run; the main
    #: process may lower the latter.
    begun: int
    end: int
    #: The bytes of the fetch's tags, which follow the fields.
    tags: int
    #: Whether the process waits for messages on behalf of all.
    leads: bool
    #: Whether the process is to stop after its job; the main process writes it.
    stops: bool
    #: When the running job began, by the monotonic clock, and its limits in seconds; 0 for none.
    started: float
    soft: float
    hard: float
    #: When the process last asked for messages, by the monotonic clock.
    fetched: float
    #: The bytes of the running job's message, if the process keeps it.
    kept: int
    #: The bytes of the collected events.
    events: int
    _fields_ = (
        ("position", c_int),
        ("begun", c_int),
        ("end", c_int),
        ("tags", c_int),
        ("leads", c_bool),
        ("stops", c_bool),
        ("started", c_double),
        ("soft", c_double),
        ("hard", c_double),
        ("fetched", c_double),
        ("kept", c_longlong),
        ("events", c_int),
    )


_TAGS_AT = sizeof(_Fields)


#: The slot of this process, if a pool has forked it.
current: "Slot | None" = None


class Signalled(SystemExit):
    """A signal ends the process; the code is its number."""


class Running(NamedTuple):
    """A job that runs, and its limits in seconds; 0 for none."""

    tag: str
    #: By the monotonic clock.
    started: float
    soft: float
    hard: float


class Slot:
    """The part of the memory that one process writes to."""

    def __init__(self, memory: mmap.mmap, index: int, tasks: Sequence[str]) -> None:
        self._memory = memory
        self.index = index
        self._at = index * SLOT_BYTES
        counts = c_longlong * len(tasks)
        self._room = SLOT_BYTES - sizeof(counts) - EVENTS_BYTES - _TAGS_AT
        self._events_at = self._at + _TAGS_AT + self._room
        self._counts: Any = counts.from_buffer(memory, self._at + SLOT_BYTES - sizeof(counts))
        self._index = {name: index for index, name in enumerate(tasks)}
        self._counts[:] = [0] * len(tasks)
        memory[self._at : self._at + _TAGS_AT] = bytes(_Fields(position=IDLE))
        self.fields: Any = _Fields.from_buffer(memory, self._at)
        self._lock = get_context("fork").Lock()
        self._message = _shared_file()
        self._inode = os.fstat(self._message).st_ino
        #: The process' id, and the number of the signal that ends it; the process sets them.
        self.pid = self.signalled = 0

    # By the process --------------------------------------------------------------------

    def fetched(self, tags: Sequence[str]) -> None:
        """Note the messages of a fetch; all earlier ones are acked or released.

        No others than those that the slot has room for can be claimed.
        """
        while len(text := "\n".join(tags).encode()) > self._room:
            tags = tags[: len(tags) // 2]
        begin = self._at + _TAGS_AT
        with self._lock:
            self._memory[begin : begin + len(text)] = text
            self.fields.tags, self.fields.end, self.fields.position = len(text), len(tags), IDLE
            self.fields.begun = 0

    def claim(self, position: int) -> bool:
        """Begin with a job of the fetch; False if the main process has released it."""
        fields = self.fields
        with self._lock:
            if position >= fields.end:
                return False
            fields.started, fields.soft, fields.hard = monotonic(), 0, 0
            fields.position, fields.begun = position, position + 1
        return True

    def begin_call(self, soft: float, hard: float) -> None:
        """Begin with a call of a bundle; its limits are in seconds, 0 for none."""
        self.fields.started = monotonic()
        self.set_limits(soft, hard)

    def set_limits(self, soft: float, hard: float) -> None:
        """Set the running job's limits, in seconds; 0 for none."""
        self.fields.soft, self.fields.hard = soft, hard

    def keep(self, message: bytes) -> None:
        """Keep the running job's message, which may be acked before the job ends."""
        if not self.has_files:
            raise SystemExit(1)  # the job runs in another process
        try:
            self.fields.kept = os.pwrite(self._message, message, 0)
        except OSError:  # a task has set a limit to the size of files
            raise SystemExit(1) from None

    @property
    def has_files(self) -> bool:
        """Whether the slot's file is open: a task may have closed all that it found."""
        try:
            return os.fstat(self._message).st_ino == self._inode
        except OSError:
            return False

    def ended(self) -> None:
        """Note that the job has ended."""
        self.fields.position = IDLE
        if self.fields.kept:
            self.fields.kept = 0
            os.ftruncate(self._message, 0)

    def end_by(self, number: int, _: Any) -> None:
        """End the process; the handler of a signal."""
        self.signalled = number
        raise Signalled(number)

    def check(self) -> None:
        """End the process if its job was told to, and has caught it, or if it is the job's copy."""
        if self.signalled:
            raise Signalled(self.signalled)
        if os.getpid() != self.pid:  # the job has forked
            os._exit(0)

    def add_event(self, text: bytes) -> bool:
        """Add a job's event, as JSON, to those to send; return False if there is no room."""
        size, begin = len(text) + 1, self.fields.events
        if begin + size > EVENTS_BYTES:
            return False
        self._memory[self._events_at + begin : self._events_at + begin + size] = text + b","
        self.fields.events = begin + size
        return True

    def lead(self) -> None:
        """Note that the process waits for messages on behalf of all."""
        self.fields.leads = True

    def count(self, totals: Mapping[str, int]) -> None:
        """Note how many jobs of each task the process has run."""
        for name, total in totals.items():
            if name in self._index:
                self._counts[self._index[name]] = total

    # By either -------------------------------------------------------------------------

    @property
    def events(self) -> bytes:
        """The events to send, as a JSON list, or no bytes at all."""
        size = self.fields.events
        return b"[%b]" % self._memory[self._events_at : self._events_at + size - 1] if size else b""

    def drop_events(self) -> None:
        """Forget the events: they are sent."""
        self.fields.events = 0

    def stop_leading(self) -> bool:
        """Note that the process does not lead any more; return False if it did not."""
        with self._locked():
            leads, self.fields.leads = self.fields.leads, False
        return bool(leads)

    # By the main process ---------------------------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        is_locked = self._lock.acquire(timeout=LOCK_TIMEOUT)
        try:
            yield is_locked
        finally:
            if is_locked:
                self._lock.release()

    @property
    def kept(self) -> bytes:
        """The running job's message, if the process keeps it."""
        return os.pread(self._message, self.fields.kept, 0)

    @property
    def totals(self) -> dict[str, int]:
        """How many jobs of each task the process has run."""
        return {name: self._counts[index] for name, index in self._index.items()}

    @property
    def tags(self) -> list[str]:
        """The tags of the fetch."""
        begin = self._at + _TAGS_AT
        text = bytes(self._memory[begin : begin + self.fields.tags])
        return text.decode().split("\n") if text else []

    @property
    def running(self) -> Running | None:
        """The job that runs."""
        fields = self.fields
        if fields.position == IDLE:
            return None
        with self._locked():
            if fields.position == IDLE:
                return None
            tag = self.tags[fields.position]
            return Running(tag, fields.started, fields.soft, fields.hard)

    @property
    def begun(self) -> list[str]:
        """The tags of the jobs of the fetch that were begun."""
        return self.tags[: self.fields.begun]

    def take_rest(self, seconds: float) -> list[str]:
        """Return the tags after a job that runs for longer than `seconds`, and take them away."""
        fields = self.fields
        if fields.position == IDLE or monotonic() - fields.started < seconds:
            return []
        with self._locked() as is_locked:
            is_last = fields.position == IDLE or fields.position + 1 >= fields.end
            if is_last or not is_locked:
                return []
            rest = self.tags[fields.position + 1 : fields.end]
            fields.end = fields.position + 1
        return rest

    def free(self) -> None:
        """Free what the slot takes besides its memory."""
        os.close(self._message)


def _shared_file() -> int:
    """Return the descriptor of a file that processes forked later share."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("celery")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class _Facts(Structure):
    """What the main process tells all processes, in the first slot."""

    #: How often jobs were revoked, and the bytes of the commands to repeat.
    revocations: int
    commands: int
    #: How many consumers the queue with the most has, of all workers.
    consumers: int
    #: Seconds by which the server's clock is ahead of this machine's.
    clock_ahead: float
    #: Whether the main process holds as many rate-limited jobs as it may.
    is_full: bool
    #: The logical clock of the worker's events.
    clock: int
    _fields_ = (
        ("revocations", c_longlong),
        ("commands", c_longlong),
        ("consumers", c_longlong),
        ("clock_ahead", c_double),
        ("is_full", c_bool),
        ("clock", c_longlong),
    )


class Scoreboard:
    """The slots of a pool, and the news for its processes."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self._tasks = tasks
        self._memory = mmap.mmap(-1, (1 + MAX_PROCESSES) * SLOT_BYTES)
        self._free = [*range(MAX_PROCESSES, 0, -1)]
        self.facts: Any = _Facts.from_buffer(self._memory, 0)
        self._commands = _shared_file()

    @property
    def news(self) -> tuple[int, int]:
        """What changes with the news."""
        return self.facts.revocations, self.facts.commands

    @property
    def room(self) -> int:
        """How many slots are free."""
        return len(self._free)

    def note_revoked(self) -> None:
        """Have the processes read which jobs are revoked."""
        self.facts.revocations += 1

    def repeat(self, method: str, arguments: Any) -> None:
        """Have the processes repeat a remote control command."""
        line = json.dumps([method, arguments]).encode() + b"\n"
        self.facts.commands += os.pwrite(self._commands, line, self.facts.commands)

    def commands(self, since: int) -> list[Any]:
        """Return the commands, each as its method and arguments, from a position."""
        text = os.pread(self._commands, self.facts.commands - since, since)
        return [*map(json.loads, text.splitlines())]

    def add(self) -> Slot:
        """Return a free slot, for a process that is about to be forked."""
        return Slot(self._memory, self._free.pop(), self._tasks)

    def remove(self, slot: Slot) -> None:
        """Free the slot of a process that has ended."""
        slot.free()
        self._free.append(slot.index)
