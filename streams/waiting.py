"""Waiting for results: woken by notices, and never dependent on one.

A worker announces a result on the job's own channel, where stock callers listen, and on the
channel of the thread that sent the job. A process subscribes to the latter once, when it
first waits; to the former only for jobs that it did not send. Whatever becomes of notices
and connections, every waiter reads its results' keys itself once a second, and its
deadline is its own.
"""

import logging
import math
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

from celery.backends.asynchronous import BaseResultConsumer
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.states import READY_STATES
from redis.exceptions import AuthenticationError, ResponseError

from streams.link import Reader, Subscription

logger = logging.getLogger(__name__)

#: Seconds between two readings of a key that is waited for.
INTERVAL = 1.0
#: Seconds that one operation on a connection may take at first; doubled each time it is too
#: little, for a server that is slow and not dead.
PATIENCE, MOST_PATIENCE = 1.0, 16.0
#: The least of it, however near the deadline is: most servers answer within.
LEAST_PATIENCE = 0.1
#: Seconds before a failed connection is tried again: at first, and at most.
BACKOFF, MOST_BACKOFF = 0.05, 1.0
#: Seconds after a reading within which the deadline asks for no other.
FRESH = 0.05
#: Jobs sent from here of which is known that their notices come here.
MOST_SENT = 50_000
#: Results kept that came before they were asked for, and their bytes in all.
MOST_EARLY, MOST_EARLY_BYTES = 10_000, 64 * 1024 * 1024
#: Channels of senders that stay subscribed: each thread is one, and threads may be many.
MOST_SENDERS = 1000
#: Channels that nobody waits on any more, before the server is told in one command.
MOST_GONE = 100
#: Results that are read, beside those that somebody waits for, in one go.
MOST_OTHERS = 10_000


class Wait:
    """One thread's wait for one result, or for those of a group."""

    def __init__(self, results: Iterable[Any], on_message: Callable[[Any], Any] | None) -> None:
        self.results: dict[str, list[Any]] = {}
        for result in results:
            self.results.setdefault(result.id, []).append(result)
        self.on_message = on_message
        self.woken = threading.Event()
        #: Jobs of which no end is known, those that have ended, what `on_message` is to be told.
        self.open = dict.fromkeys(self.results)
        self.ended: deque[str] = deque()
        self.news: deque[Any] = deque()
        self._told: dict[str, Any] = {}
        #: When the keys are to be read next, and were read last, by the monotonic clock.
        self.read_at, self.was_read = 0.0, -math.inf
        #: Jobs whose keys alone are to be read at once.
        self.due: set[str] = set()
        self.deadline = math.inf
        self.patience, self.backoff = PATIENCE, BACKOFF
        self.error: Exception | None = None
        #: Whether it waits for the server to confirm a subscription.
        self.is_unsure = False

    def unended(self) -> list[str]:
        """Return the ids of jobs of which no end is known, in this process."""
        for job_id in list(self.open):
            # Its cache, and not its state: that would ask the server.
            if all(result._cache for result in self.results[job_id]):  # noqa: SLF001
                self._end(job_id)
        return list(self.open)

    def _end(self, job_id: str) -> None:
        self.open.pop(job_id, None)
        self.ended.append(job_id)

    def tell(self, job_id: str, meta: Any) -> None:
        """Note what became of a job, for the thread that waits."""
        if self.on_message and self._told.get(job_id) != meta:
            self._told[job_id] = meta
            self.news.append(meta)
        if meta["status"] in READY_STATES:
            self._end(job_id)
        self.woken.set()

    def read_now(self) -> None:
        """Have the keys read at once: a notice may have been missed."""
        self.read_at = 0.0
        self.woken.set()


class ResultConsumer(BaseResultConsumer):
    """Celery's part that waits for results; of the threads that wait, one listens for all."""

    backend: Any
    _pending_results: Any
    drainer: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._connection_errors = self.backend.connection_errors
        self._of_thread = threading.local()
        self._reset()

    def _reset(self) -> None:
        """Begin anew, with no connection: at first, and in a forked process."""
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._waits: set[Wait] = set()
        #: The thread that listens for all.
        self._leader: int | None = None
        self._reader: Reader | None = None
        self._subscription: Subscription | None = None
        #: Counts subscriptions: what was sent under one is announced on it.
        self._generation = 0
        self._wanted: dict[bytes, None] = {}
        self._new: set[bytes] = set()
        self._gone: set[bytes] = set()
        self._senders: OrderedDict[bytes, None] = OrderedDict()
        self._sent: OrderedDict[str, tuple[bytes, int]] = OrderedDict()
        self._early: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._early_bytes = 0
        self._others_from = 0
        self._reported = ""
        self._others_read_at = self._pinged_at = self._heard_at = -math.inf
        self._connect_at, self._backoff, self._patience = -math.inf, BACKOFF, PATIENCE

    # What Celery calls ---------------------------------------------------------------

    def on_after_fork(self) -> None:
        """Leave the connections to the parent."""
        self._reset()

    def stop(self) -> None:
        """Close the connections; the next wait opens them again."""
        with self._lock:
            self._drop_subscription()
            if self._reader:
                self._reader.close()

    def consume_from(self, task_id: str) -> None:
        """Note that a result is waited for; what that takes is done when somebody waits."""
        with self._lock:
            self._want(self._channel(task_id))
            if self._leader and self._subscription:
                self._subscribe_or_lose(self._subscription)

    def cancel_for(self, task_id: str) -> None:
        """Note that a result is not waited for any more.

        Takes no lock: the garbage collector may call it at any point in any thread.
        """
        channel = self.backend.get_key_for_task(task_id)
        if channel in self._wanted:
            self._wanted.pop(channel, None)
            self._gone.add(channel)

    def drain_events(self, timeout: float | None = None) -> None:
        """Wait for a notice of any job, for so many seconds at most."""
        self._look_after_fork()
        wait = Wait((), None)
        wait.read_at = math.inf
        seconds = INTERVAL if timeout is None else timeout
        wait.deadline = monotonic() + seconds
        with self._joined(wait):
            self._pause(wait, seconds)

    def _wait_for_pending(
        self,
        result: Any,
        timeout: float | None = None,
        on_interval: Callable[[], Any] | None = None,
        on_message: Callable[[Any], Any] | None = None,
        **options: Any,
    ) -> Iterator[None]:
        yield from self.rounds(Wait(jobs(result), on_message), timeout, on_interval)

    # What a waiting thread does --------------------------------------------------------

    def rounds(
        self, wait: Wait, timeout: float | None, on_interval: Callable[[], Any] | None = None
    ) -> Iterator[None]:
        """Wait until all jobs have ended, giving way whenever something happened.

        Raises Celery's TimeoutError at the deadline.
        """
        self._look_after_fork()
        began = monotonic()
        wait.deadline = deadline = math.inf if timeout is None else began + timeout
        interval_at = began + INTERVAL
        try:
            with self._joined(wait):
                while True:
                    wait.woken.clear()
                    self._read_if_due(wait, deadline)
                    while wait.on_message and wait.news:
                        wait.on_message(wait.news.popleft())
                    yield
                    if not wait.open:
                        return
                    now = monotonic()
                    if now >= deadline:
                        raise CeleryTimeout(_late(wait)) from wait.error
                    self._pause(wait, min(deadline, wait.read_at) - now)
                    if on_interval and wait.open and monotonic() >= interval_at:
                        interval_at = monotonic() + INTERVAL
                        with self._lenient(deadline):
                            on_interval()
        finally:
            self._abandon(wait)

    @contextmanager
    def _joined(self, wait: Wait) -> Iterator[None]:
        """Have notices for these jobs come to this wait."""
        self._join(wait)
        try:
            yield
        finally:
            with self._lock:
                self._waits.discard(wait)
                if self._leader is None:
                    self._hand_over(wait)

    def _join(self, wait: Wait) -> None:
        wait.unended()
        with self._lock:
            self._waits.add(wait)
            certain = bool(wait.open)
            for job_id in wait.open:
                channel, generation = self._sent.get(job_id, (None, -1))
                certain = certain and generation == self._generation
                self._want(channel or self.backend.get_key_for_task(job_id))
            if certain and self._subscription:
                # Announced on a connection that is there since they were sent.
                wait.read_at = monotonic() + INTERVAL
            elif self._new and wait.open:
                self._confirm_first(wait)
                if self._subscription:
                    self._subscribe_or_lose(self._subscription)

    def _confirm_first(self, wait: Wait) -> None:
        """Read when the server has subscribed: what came before is then in the key."""
        wait.is_unsure = True
        wait.read_at = min(wait.read_at or math.inf, monotonic() + BACKOFF)

    def _abandon(self, wait: Wait) -> None:
        """Let go of results that nobody will be told of, after a wait that came to nothing."""
        for job_id in wait.open:
            for result in wait.results[job_id]:
                if not any(result.on_ready.listeners):  # nor is anybody called back
                    self.backend.remove_pending_result(result)

    def _read_if_due(self, wait: Wait, deadline: float) -> None:
        if not wait.open:
            return
        now = monotonic()
        with self._lock:
            due, wait.due = wait.due, set()
        if now >= wait.read_at or (now >= deadline and now - wait.was_read > FRESH):
            if self._read(wait, wait.unended(), deadline - now):
                wait.was_read = monotonic()
                wait.read_at = wait.was_read + INTERVAL
        elif due:
            self._read(wait, list(due), deadline - now)

    def _read(self, wait: Wait, job_ids: list[str], left: float) -> bool:
        """Read keys that are waited for, within what is left of the time; tell whether it went."""
        patience = max(min(left, wait.patience), LEAST_PATIENCE)
        try:
            found = self._read_keys(job_ids, patience)
        except AuthenticationError:
            raise
        except self._connection_errors as error:
            if wait.error is None:
                logger.info("waiting for results goes on without the store: %s", error)
            wait.error = error
            wait.patience = min(2 * wait.patience, MOST_PATIENCE)
            wait.read_at = monotonic() + wait.backoff
            wait.backoff = min(2 * wait.backoff, MOST_BACKOFF)
            return False
        wait.error, wait.patience, wait.backoff = None, PATIENCE, BACKOFF
        for job_id, payload in found:
            self._take(job_id, self.backend.decode_result(payload), len(payload))
        return True

    def read(self, key: bytes) -> Any:
        """Return what a key holds, in a wait; None where that cannot be found out just now."""
        patience = max(min(self._of_thread.deadline - monotonic(), PATIENCE), LEAST_PATIENCE)
        try:
            (value,) = self._readers.read([key], patience)
        except AuthenticationError:
            raise
        except self._connection_errors:
            return None
        return value

    @property
    def is_in_a_wait(self) -> bool:
        """Whether this thread is in a wait, where a connection that fails is no error."""
        return getattr(self._of_thread, "deadline", None) is not None

    @contextmanager
    def _lenient(self, deadline: float) -> Iterator[None]:
        self._of_thread.deadline = deadline
        try:
            yield
        finally:
            self._of_thread.deadline = None

    @property
    def _readers(self) -> Reader:
        with self._lock:
            if self._reader is None:
                self._reader = Reader(self.backend.client.connection_pool)
            return self._reader

    def _read_keys(self, job_ids: list[str], seconds: float) -> list[tuple[str, Any]]:
        keys = [self.backend.get_key_for_task(job_id) for job_id in job_ids]
        values = self._readers.read(keys, seconds) if keys else []
        return [(job_id, value) for job_id, value in zip(job_ids, values, strict=True) if value]

    # What the one that listens does ------------------------------------------------------

    def _pause(self, wait: Wait, seconds: float) -> None:
        """Wait for a notice: listen for all, or be woken by the thread that does."""
        me = threading.get_ident()
        with self._lock:
            leader = self._leader
            # This very thread may listen already, and wait in a callback.
            leads = leader in {None, me}
            if leads:
                self._leader = me
        if not leads:
            wait.woken.wait(max(seconds, 0))
            return
        try:
            self._listen(wait, monotonic() + seconds)
        finally:
            with self._lock:
                self._leader = leader
                if leader is None:
                    self._hand_over(wait)

    def _hand_over(self, wait: Wait) -> None:
        for other in self._waits:
            if other is not wait:
                other.woken.set()
                return

    def _listen(self, wait: Wait, until: float) -> None:
        while not wait.woken.is_set() and (left := until - monotonic()) > 0:
            try:
                subscription = self._connected(wait.deadline)
                if subscription is None:
                    wait.woken.wait(min(left, max(self._connect_at - monotonic(), 0)))
                    continue
                self._read_others(wait.deadline)
                if not self._hear(subscription):
                    subscription.wait(min(left, INTERVAL))
                    self._hear(subscription)
            except ResponseError as error:  # no right to: reading the keys has to do
                self._lose(error, MOST_BACKOFF)
            except self._connection_errors as error:
                self._lose(error, self._backoff)

    def _connected(self, deadline: float) -> Subscription | None:
        """Return a connection that is subscribed to all that is wanted, if there is one."""
        with self._lock:
            subscription = self._subscription
            if subscription:
                self._subscribe(subscription)
                return subscription
            if monotonic() < self._connect_at:
                return None
        pool = self.backend.client.connection_pool
        patience = min(deadline - monotonic(), self._patience)
        subscription = Subscription(pool, max(patience, LEAST_PATIENCE))
        with self._lock:
            self._generation += 1
            self._patience = PATIENCE
            self._subscription, self._backoff = subscription, BACKOFF
            self._heard_at = self._pinged_at = monotonic()
            self._new, self._gone = {*self._wanted}, set()
            for wait in self._waits:
                if wait.results:
                    self._confirm_first(wait)
            self._subscribe(subscription)
        return subscription

    def _subscribe(self, subscription: Subscription) -> None:
        if not self._new and len(self._gone) < MOST_GONE:
            return
        new, self._new = self._new, set()
        gone, self._gone = self._gone, set()
        subscription.subscribe(channel for channel in new if channel in self._wanted)
        subscription.unsubscribe(gone.difference(self._wanted, new))

    def _subscribe_or_lose(self, subscription: Subscription) -> None:
        try:
            self._subscribe(subscription)
        except self._connection_errors as error:
            self._lose(error, self._backoff)

    def _lose(self, error: Exception, backoff: float) -> None:
        if self._reported != str(error):
            self._reported = str(error)
            logger.info("results are not announced just now: %s", error)
        with self._lock:
            self._drop_subscription()
            self._connect_at = monotonic() + backoff
            self._patience = min(2 * self._patience, MOST_PATIENCE)
            self._backoff = min(2 * self._backoff, MOST_BACKOFF)
            for wait in self._waits:
                if wait.results:
                    wait.read_at = min(wait.read_at, monotonic() + BACKOFF)

    def _drop_subscription(self) -> None:
        if self._subscription:
            self._generation += 1  # what is sent now may be announced to nobody
            with suppress(OSError):
                self._subscription.close()
            self._subscription = None

    def _hear(self, subscription: Subscription) -> bool:
        """Pass on what has come, and find out now and then whether anything can."""
        with self._lock:
            received = [*subscription.received()]
            now = monotonic()
            if received:
                self._heard_at = now
            elif self._pinged_at > self._heard_at and now - self._pinged_at > INTERVAL:
                raise ConnectionError("the connection went silent")
            if now - self._pinged_at > INTERVAL and now - self._heard_at > INTERVAL:
                subscription.send("PING")
                self._pinged_at = now
        confirmed = False
        for kind, _, payload in received:
            if kind == "message":
                self._reported = ""
                self._announced(payload)
            confirmed = confirmed or kind == "subscribe"
        if confirmed:
            self._read_the_unsure()
        return bool(received)

    def _read_the_unsure(self) -> None:
        with self._lock:
            for wait in self._waits:
                if wait.is_unsure:
                    wait.is_unsure = False
                    wait.read_now()

    def _announced(self, payload: Any) -> None:
        job_id = self.backend.job_of(payload)
        if job_id:  # too large for a notice
            with self._lock:
                for wait in self._waits:
                    if job_id in wait.open:
                        wait.due.add(job_id)
                        wait.woken.set()
            return
        try:
            meta = self.backend.decode_result(payload)
            job_id = meta["task_id"]
        except Exception:  # noqa: BLE001 - whoever waits for it reads what is stored, and raises
            with self._lock:
                for wait in self._waits:
                    if wait.results:
                        wait.read_now()
        else:
            self._take(job_id, meta, len(payload))

    def _read_others(self, deadline: float) -> None:
        """Read what callbacks wait for, once a second, for as long as anybody waits."""
        now = monotonic()
        if now - self._others_read_at < INTERVAL:
            return
        self._others_read_at = now
        waited_for = {job_id for wait in tuple(self._waits) for job_id in wait.results}
        others = [
            job_id
            for mapping in self._pending_results
            for job_id in list(mapping)
            if job_id not in waited_for
        ]
        start = self._others_from if self._others_from < len(others) else 0
        self._others_from = start + MOST_OTHERS
        others = others[start : self._others_from]
        found = self._read_keys(others, max(min(deadline - now, PATIENCE), LEAST_PATIENCE))
        for job_id, payload in found:
            try:
                meta = self.backend.decode_result(payload)
            except Exception:  # noqa: BLE001 - told to whoever asks for it
                logger.info("the result of %s cannot be read", job_id)
            else:
                self._take(job_id, meta, len(payload))

    # What is known ---------------------------------------------------------------------

    def sent(self, job_id: str, channel: bytes) -> None:
        """Note that a job is sent from here, and where its results will be announced."""
        self._look_after_fork()
        with self._lock:
            self._forget_early(job_id)
            subscribed = self._subscription and channel in self._wanted and channel not in self._new
            self._sent[job_id] = channel, self._generation if subscribed else -1
            if len(self._sent) > MOST_SENT:
                self._sent.popitem(last=False)
            own = self.backend.get_key_for_task(job_id)
            if own in self._wanted:  # its result was made before it was sent
                self.cancel_for(job_id)
                self._want(channel)

    def take_early(self, job_id: str) -> Any:
        """Return what came of a job before it was asked for, or None."""
        with self._lock:
            return self._forget_early(job_id)

    def _forget_early(self, job_id: str) -> Any:
        meta, size = self._early.pop(job_id, (None, 0))
        self._early_bytes -= size
        return meta

    def forget(self, job_id: str) -> None:
        """Forget what is known of a job."""
        with self._lock:
            self._sent.pop(job_id, None)
            self._forget_early(job_id)

    def on_state_change(self, meta: Any, message: Any) -> None:
        """Tell all who wait for a job what became of it."""
        self._take(meta["task_id"], meta, 0)

    def _take(self, job_id: str, meta: Any, size: int) -> None:
        ended = meta["status"] in READY_STATES
        with self._lock:
            waits = [wait for wait in self._waits if job_id in wait.results or not wait.results]
            fresh = []
            if ended:
                was_sent = self._sent.pop(job_id, None)
                results = [
                    result
                    for mapping in self._pending_results
                    for result in list(mapping.get(job_id, {}).values())
                ]
                results += [each for wait in waits for each in wait.results.get(job_id, ())]
                if results:
                    self._forget_early(job_id)
                elif was_sent:
                    self._keep(job_id, meta, size)
                for result in results:
                    # Claimed here: no other thread sets it, or calls its callbacks, too.
                    if result._cache is None:  # noqa: SLF001
                        result._cache = meta  # noqa: SLF001
                        fresh.append(result)
        try:
            for result in fresh:
                result._maybe_set_cache(meta)  # noqa: SLF001
        finally:
            for wait in waits:
                wait.tell(job_id, meta)

    def _keep(self, job_id: str, meta: Any, size: int) -> None:
        self._early[job_id] = meta, size
        self._early_bytes += size
        while len(self._early) > MOST_EARLY or self._early_bytes > MOST_EARLY_BYTES:
            _, (_, size) = self._early.popitem(last=False)
            self._early_bytes -= size

    def _channel(self, job_id: str) -> bytes:
        channel, _ = self._sent.get(job_id, (None, 0))
        own: bytes = self.backend.get_key_for_task(job_id)
        return channel or own

    def _want(self, channel: bytes) -> None:
        with self._lock:
            if channel not in self._wanted:
                self._wanted[channel] = None
                self._new.add(channel)
            if self.backend.is_of_sender(channel):
                self._senders[channel] = None
                self._senders.move_to_end(channel)
                if len(self._senders) > MOST_SENDERS:
                    oldest, _ = self._senders.popitem(last=False)
                    self._wanted.pop(oldest, None)
                    self._gone.add(oldest)

    def _look_after_fork(self) -> None:
        if self._process != os.getpid():
            self._reset()


def jobs(result: Any) -> Iterator[Any]:
    """Yield the jobs that a result, or a set of them, is made of."""
    if hasattr(result, "results"):
        for member in result.results:
            yield from jobs(member)
    else:
        yield result


def _late(wait: Wait) -> str:
    if wait.error:
        return f"The operation timed out: the result store does not answer ({wait.error})."
    return "The operation timed out."
