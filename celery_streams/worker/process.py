"""A process of the pool: it fetches jobs, runs them, and acks them as it fetches the next ones.

Of a worker's idle processes one waits for messages, the leader; it hands this on to another one
when it has got some that may take long, or as many as it takes (D. Schmidt et al., "Leader/
Followers", in: Pattern Languages of Program Design 4, 2000).
"""

import logging
import os
import select
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty
from random import random
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

from billiard.common import REMAP_SIGTERM, TERM_SIGNAL
from billiard.compat import mem_rss
from celery import bootsteps
from celery.concurrency.prefork import process_destructor, process_initializer
from celery.exceptions import SoftTimeLimitExceeded
from celery.platforms import EX_OK
from celery.worker import control, state
from kombu.asynchronous import set_event_loop
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import RedisError

from celery_streams.transport import entries, keys
from celery_streams.transport.channel import Channel
from celery_streams.transport.entries import Ack, Entry
from celery_streams.worker import bundle, events, scoreboard
from celery_streams.worker.in_process import Blueprint, InProcessPool, Timer
from celery_streams.worker.runner import MAX_FETCH, Runner
from celery_streams.worker.scoreboard import IDLE, Slot
from celery_streams.worker.turns import MAX_POLLS

#: Seconds that a waiting fetch takes at most.
WAIT_SECONDS = 1.0
#: Seconds that a process waits for its turn before it looks whether the main process lives.
TURN_SECONDS = 5.0
#: Seconds that the reply to a fetch may take, besides.
REPLY_SECONDS = 5.0
#: Workers that wait for messages of a queue at the same time; the others take turns with them.
MAX_WAITING = 50
#: Signals that end a process; the `finally` blocks of its job run, as in Celery's prefork.
_ENDING = (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM)
#: Loggers of what the main process logs for all: connections and remote control.
_MAIN_PROCESS_LOGS = ("celery.worker.consumer.connection", "celery.worker.control")
_RUN: Any = bootsteps.RUN  # type: ignore[attr-defined]  # not in the stubs
_state: Any = state
_panel: dict[str, Any] = control.Panel.data


def _ending() -> list[int]:
    """Return the signals that end a process, unless one of its hooks ignores them."""
    if REMAP_SIGTERM:  # as in billiard
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(TERM_SIGNAL, signal.SIG_DFL)
    return [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]


class Woken(Exception):
    """The main process has woken a process that waits: there is something to look at."""


class Process:
    """What one process has in common with the main one.

    `pool` is the `worker.pool.TaskPool` as it was when the process was forked.
    """

    def __init__(self, pool: Any, slot: Slot) -> None:
        self._pool = pool
        self._slot = slot
        self._leadership = pool.turns.leadership
        self._news = pool.scoreboard.news
        #: Whether a signal may interrupt the process.
        self._waits = False
        self._channel: Any = None
        self._consumer: Any = None
        self._handlers: dict[int, Any] = {}
        self._mask: set[int] = set()
        #: What a lost connection has left: acks that are not confirmed, messages that have not run.
        self._acks: list[Ack] = []
        self._fetched: Sequence[Entry] = ()

    def main(self) -> None:
        """Run until the main process says stop; the process' entry point."""
        parent, stamps = self._pool.consumer, dict(state.revoked_stamps)
        scoreboard.current = self._slot
        process_initializer(parent.app, parent.hostname)
        state.revoked_stamps.update(stamps)
        set_event_loop(None)
        for name in _MAIN_PROCESS_LOGS:
            logging.getLogger(name).setLevel(logging.WARNING)
        self._slot.pid = os.getpid()
        self._handlers = dict.fromkeys(_ending(), self._slot.end_by)
        self._handlers[signal.SIGUSR1] = self.on_signal
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ()) - {signal.SIGUSR1}
        self._keep_handlers()
        status = 0
        try:
            while not self._wait(partial(self._pool.turns.pass_gate, TURN_SECONDS)):
                if self._stops:
                    return
            status = 1
            self._new_consumer(parent).start()
        except scoreboard.Signalled:
            status = 1
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
            raise SystemExit(status) from None
        finally:
            process_destructor(os.getpid(), status)
            if ended_by := self._slot.signalled:  # so that the main process sees which it was
                signal.signal(ended_by, signal.SIG_DFL)
                os.kill(os.getpid(), ended_by)

    def _new_consumer(self, parent: Any) -> Any:
        app, controller = parent.app, parent.controller
        app.steps["consumer"] = set()
        controller.pool = here = InProcessPool(self._slot, limit=1, app=app, **self._pool.options)
        controller.semaphore = None
        limits = dict.fromkeys(("_limit_task", "_limit_post_eta"), self._limit)
        kind = type("Consumer", (type(parent),), {"Blueprint": Blueprint, **limits})
        self._consumer = kind(
            controller._process_task,  # noqa: SLF001 - Celery's
            hostname=parent.hostname,
            pool=here,
            app=app,
            timer=Timer(),
            controller=controller,
            disable_rate_limits=parent.disable_rate_limits,
            initial_prefetch_count=0,
            task_events=self._pool.sends_events,
            without_mingle=True,  # a step that Celery's consumer of tasks requires
        )
        self._consumer.loop = self._loop
        return self._consumer

    @property
    def _stops(self) -> bool:
        """Whether the process is to stop after its job: it is told so, or the main one is dead."""
        return bool(self._slot.fields.stops) or os.getppid() != self._pool.main_pid

    def _limit(self, request: Any, bucket: Any, tokens: int) -> None:
        """Run a job of a rate-limited task if it may; else leave it to the main process."""
        message = request.message
        is_from_list = not keys.is_tag(message.delivery_tag)
        while is_from_list and not bucket.can_consume(tokens):  # only this process has it
            sleep(bucket.expected_time(tokens))
        if is_from_list:
            self._consumer._limit_move_to_pool(request)  # noqa: SLF001 - Celery's
            return
        self._send_events(is_idle=True)  # before those of the process that will run it
        message.channel.deliveries.forget(message.delivery_tag)
        self._pool.parked.park(message.delivery_tag)

    # Signals ---------------------------------------------------------------------------

    def on_signal(self, *_: Any) -> None:
        """Look at what the main process has written to the slot."""
        if self._slot.signalled:  # it ends
            return
        if self._waits:
            raise Woken
        fields = self._slot.fields
        if fields.position == IDLE:
            if fields.stops:  # Celery asks for it while it tries to connect
                _state.should_stop = EX_OK
            return
        if fields.soft and monotonic() - fields.started > fields.soft:
            fields.soft = 0  # once
            raise SoftTimeLimitExceeded
        with suppress(OSError, RedisError):  # with the next fetch
            if self._channel:
                self._channel.deliveries.flush()
        bundle.hand_over()
        if dispatcher := self._consumer.event_dispatcher:
            dispatcher.send_collected()

    def _keep_handlers(self) -> None:
        """Have signals arrive here, whatever the jobs have done."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    # The loop --------------------------------------------------------------------------

    def _loop(
        self, consumer: Any, connection: Any, task_consumer: Any, blueprint: Any, *_: Any, **__: Any
    ) -> None:
        """Fetch and run jobs until the process is to stop; raises a lost connection's errors."""
        self._slot.ended()
        self._channel = channel = task_consumer.channel
        task_consumer.on_message = consumer.create_task_handler()
        channel.deliveries.hand_over(self._pool.name)
        if consumer.event_dispatcher:
            consumer.event_dispatcher.collect_jobs(self._slot, self._pool.scoreboard.facts)
        task_consumer.consume()
        self._make_good(channel)
        limits = self._pool.options["soft_timeout"], self._pool.options["timeout"]
        runner = channel.dispatch.runner = Runner(consumer, channel, self._slot, limits)
        try:
            while blueprint.state == _RUN and not self._stops:
                self._fetched = self._fetch(channel, min(runner.limit, self._jobs_left()))
                self._read_news(consumer, channel)
                if self._fetched:
                    channel.dispatch.run_all(self._fetched, runner)
                    self._fetched = ()
                    self._after_jobs()
                self._send_events(is_idle=channel.fetch.waits)
            self._send_events(is_idle=True)
            self._stop(channel)
        except BaseException:  # a lost connection, or the job ends its process
            self._hand_on()
            channel.fetch.restore_acks()
            with suppress(OSError, RedisError):
                channel.deliveries.flush()
            self._acks = [*channel.deliveries.pending_acks]
            raise
        raise SystemExit(0)

    def _make_good(self, channel: Channel) -> None:
        """Ack what a lost connection has left, and release the rest."""
        acked = {ack.tag for ack in self._acks}
        channel.deliveries.restore_acks(self._acks)
        channel.deliveries.flush()
        channel.deliveries.release(entry.tag for entry in self._fetched if entry.tag not in acked)
        self._acks, self._fetched = [], ()

    def _jobs_left(self) -> int:
        """Return how many jobs the process may run; each process runs one at least."""
        most = self._pool.options.get("maxtasksperchild")
        return max(int(most) - state.all_total_count[0], 1) if most else MAX_FETCH

    def _send_events(self, *, is_idle: bool) -> None:
        """Send the events of jobs, unless more of them will come soon."""
        dispatcher = self._consumer.event_dispatcher
        if dispatcher and (is_idle or monotonic() - dispatcher.sent_at > events.COLLECT_SECONDS):
            dispatcher.send_collected()

    def _after_jobs(self) -> None:
        self._keep_handlers()
        state.requests.clear()  # of a job with an ETA, Celery's strategy keeps it
        names = ("maxtasksperchild", "max_memory_per_child")
        most_jobs, most_memory = map(self._pool.options.get, names)
        has_run_most = most_jobs and state.all_total_count[0] >= most_jobs
        is_too_large = most_memory and mem_rss() > most_memory
        if has_run_most or is_too_large or not self._slot.has_files:
            self._slot.fields.stops = True

    def _read_news(self, consumer: Any, channel: Channel) -> None:
        """Read which jobs are revoked, and repeat the main process' commands."""
        scoreboard = self._pool.scoreboard
        channel.maintenance.clock.ahead = scoreboard.facts.clock_ahead
        if self._news == scoreboard.news:
            return
        (_, before), self._news = self._news, scoreboard.news
        channel.maintenance.read_revoked()
        node = SimpleNamespace(app=consumer.app, hostname=consumer.hostname, consumer=consumer)
        for method, arguments in scoreboard.commands(before):
            _panel[method](node, **arguments)
            consumer.perform_pending_operations()
        if channel.dispatch.runner:
            channel.dispatch.runner.refresh()
        consumed = set(channel.durable_queues())
        fetched, of = self._fetched, channel.queues.queue_of
        if cancelled := [entry for entry in fetched if of(entry.tag) not in consumed]:
            self._fetched = [entry for entry in fetched if of(entry.tag) in consumed]
            channel.deliveries.release(entry.tag for entry in cancelled)

    # Fetching --------------------------------------------------------------------------

    def _fetch(self, channel: Channel, limit: int) -> list[Entry]:
        """Return messages; none if there is something else to do."""
        fetch = channel.fetch
        link = channel.client.connection = channel.client.connection or (
            channel.client.connection_pool.get_connection()
        )
        if fetch.connection is None and not self._start_fetch(channel, limit):
            return []
        if not self._wait(partial(_is_readable, link)):
            return []
        try:
            reply, _ = fetch.read(link)
        except Empty:  # refused, or only the acks are done
            return []
        if not fetch.is_from_streams:
            self._run_listed(channel, reply)
            return []
        fetched = entries.fetched(reply)
        fetch.waits = len(fetched) < fetch.limit
        if not fetch.waits or not fetched:
            self._hand_on()
        if monotonic() - self._slot.fields.fetched > WAIT_SECONDS + channel.lease / 2:
            # The process was stopped meanwhile: others may have reclaimed them.
            channel.deliveries.release(entry.tag for entry in fetched)
            return []
        return fetched

    def _start_fetch(self, channel: Channel, limit: int) -> bool:
        """Send a fetch; return False if there is something else to do."""
        fetch, fields = channel.fetch, self._slot.fields
        has_acks = bool(channel.deliveries.pending_acks)  # callers wait for these results
        if fetch.waits and not fields.leads:
            if not has_acks:
                if not self._wait(self._turn_comes):
                    return False
            elif self._leadership.acquire(block=False):
                self._slot.lead()
            else:
                fetch.waits = False
        facts = self._pool.scoreboard.facts
        consumers = facts.consumers
        if fetch.waits and not turn_of(consumers):
            fetch.waits = False
            if not has_acks:
                self._wait(partial(_pause, max(WAIT_SECONDS, consumers / MAX_POLLS)))
        fields.fetched = monotonic()
        channel.fetches_new = not facts.is_full
        channel.start_fetch(limit, WAIT_SECONDS)
        if fetch.connection is None:  # no queue is consumed from, or the server refuses
            self._wait(partial(_pause, WAIT_SECONDS))
        return fetch.connection is not None

    def _wait(self, until: Callable[[], bool]) -> bool:
        """Return what a function that waits returns; False if the main process interrupts it."""
        self._waits = True
        try:
            return not self._stops and until()
        except Woken:
            return False
        finally:
            self._waits = False

    def _turn_comes(self) -> bool:
        if is_leader := self._leadership.acquire(timeout=TURN_SECONDS):
            self._slot.lead()
        return bool(is_leader)

    def _run_listed(self, channel: Channel, reply: Any) -> None:
        """Run the job of a message from one of kombu's lists."""
        self._hand_on()
        if not (listed := channel.read_listed(reply)):
            return
        message, queue = listed
        self._slot.fetched([message["properties"]["delivery_tag"]])
        self._slot.claim(0)
        self._slot.keep(reply[1])
        channel.deliver(message, queue)
        self._slot.ended()

    def _hand_on(self) -> None:
        """Let another process wait for messages."""
        if self._slot.stop_leading():
            self._leadership.release()

    def _stop(self, channel: Channel) -> None:
        """Release what is fetched, and store what has ended."""
        fetched = channel.fetch.end(channel.plain_client)
        self._hand_on()
        channel.deliveries.flush()
        channel.deliveries.release(entry.tag for entry in fetched)


def turn_of(consumers: int) -> bool:
    """Return True if this worker may block on its next fetch; random, for one of `consumers`.

    A new message wakes every blocked client, and the server serves them one after another.
    """
    return consumers <= MAX_WAITING or random() < MAX_WAITING / consumers  # noqa: S311


def _is_readable(link: Any) -> bool:
    """Wait for a reply; raises Unreachable if none comes."""
    poll = select.poll()
    poll.register(link._sock, select.POLLIN)  # noqa: SLF001 - redis-py has no other name
    if not poll.poll(1000 * (WAIT_SECONDS + REPLY_SECONDS)):
        link.disconnect()
        raise Unreachable("the server does not answer")
    return True


def _pause(seconds: float) -> bool:
    sleep(seconds)
    return True
