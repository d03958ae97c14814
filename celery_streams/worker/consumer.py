"""Celery's consumer, for workers that outlive every message and leave no caller without an answer.

Celery drops a message that it cannot read; its caller waits for ever. Worse ones end the worker.
Here each becomes a dead letter, and its job fails.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import cached_property, partial
from typing import Any

from celery import signals
from celery.app.task import Context
from celery.exceptions import (
    InvalidTaskError,
    NotRegistered,
    WorkerShutdown,
    WorkerTerminate,
)
from celery.utils.log import get_logger
from celery.worker import consumer, state
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.transport import get_transport_cls
from kombu.utils.encoding import safe_repr
from redis.exceptions import NoPermissionError, ResponseError

from celery_streams import worker_state
from celery_streams.address import UnknownServer
from celery_streams.errors import DeadLetter, ServerTooOld
from celery_streams.printable import make_logs_safe
from celery_streams.retries import is_temporary
from celery_streams.transport import keys, validation
from celery_streams.transport.channel import Channel
from celery_streams.transport.transport import Connection, Transport
from celery_streams.transport.validation import Malformed
from celery_streams.worker import remote_control, request
from celery_streams.worker.inline import Inline
from celery_streams.worker.pidbox import Node, ignore_malformed
from celery_streams.worker.pool import contain_errors, unkept_limits
from celery_streams.worker.rate_limits import RateLimits
from celery_streams.worker.time_limits import TimeLimits

__all__ = ["Consumer", "remote_control"]  # the second for the commands that it brings

logger = get_logger(__name__)

#: Characters of a reason: an error may quote the whole message.
MAX_REASON = 1000
#: Seconds between two tries to connect: at first, and at most. Kombu's grow to 30.
_RECONNECT = {"interval_start": 1, "interval_step": 1, "interval_max": 5}
#: How the error of a right begins that a script lacks; the second is that of Redis 7.0.
_LACKS_A_RIGHT = ("ACL failure", "The user executing the script can't run")
#: The header that keeps the time of a job which is due.
_DUE_ETA = "streams.due_eta"
#: Time limits, as a message's header has them, and what they are called of a task.
_LIMITS = {"hard": "time_limit", "soft": "soft_time_limit"}
#: Errors that say what is wrong, without their names.
_TELLING = (ContentDisallowed, DecodeError, InvalidTaskError)


signals.after_setup_logger.connect(make_logs_safe, weak=False)
signals.after_setup_task_logger.connect(make_logs_safe, weak=False)


class Consumer(consumer.Consumer):
    """Gives Celery's worker the messages it can take; lays all others among the dead letters."""

    # What the type stubs leave out of Celery's class.
    app: Any
    connection_errors: tuple[type[BaseException], ...]
    channel_errors: tuple[type[BaseException], ...]
    conninfo: Any
    event_dispatcher: Any
    task_buckets: Any
    on_task_message: set[Callable[[Any], object]]
    qos: Any
    task_consumer: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        """Check where jobs come from, and where their results go; raises UnknownServer."""
        app = options["app"]
        worker_state.note_worker()
        app.control.mailbox.node_cls = Node
        chosen = app.conf.broker_transport
        transport: Any = get_transport_cls(chosen) if chosen else object
        if issubclass(transport, Transport):
            app.amqp.Connection = Connection
        super().__init__(*args, **options)
        found = self.conninfo.transport
        if not isinstance(found, transport):
            raise UnknownServer(
                f"the broker's URL names the transport {type(found).__module__}, "
                f"and broker_transport another, {chosen}"
            )
        app.backend  # noqa: B018 - what is wrong with its URL, it says here
        if gossip := getattr(self, "gossip", None):
            ignore_malformed(gossip)
        contain_errors(self.pool)

    def update_strategies(self) -> None:
        """Note how each task's jobs are run."""
        for task in self.app.tasks.values():
            if task.Request == request.CELERYS:
                task.Request = request.NAME
        super().update_strategies()

    @cached_property
    def _unkept(self) -> set[str]:
        """The time limits that the pool does not keep and that no warning has named yet."""
        return {*unkept_limits(self.pool)}

    @cached_property
    def time_limits(self) -> TimeLimits:
        """The limits of inline jobs: one for all connections, for it has a thread."""
        return TimeLimits()

    @cached_property
    def rate_limits(self) -> RateLimits:
        """The jobs that wait for their task's rate limit."""
        return RateLimits(self)

    def _limit_task(self, request: Any, bucket: Any, tokens: int) -> None:
        self.rate_limits.add(request, bucket, tokens)

    def _limit_post_eta(self, request: Any, bucket: Any, tokens: int) -> None:
        self.qos.decrement_eventually()
        self.rate_limits.add(request, bucket, tokens)

    def on_close(self) -> None:
        """Forget what the lost connection had delivered."""
        super().on_close()
        self.rate_limits.clear()

    def reset_rate_limits(self) -> None:
        """Take the rate limits of all tasks anew, for the jobs that wait for them, too."""
        former: dict[str, Any] = dict(self.task_buckets)
        super().reset_rate_limits()
        self.rate_limits.move(former, self.task_buckets)
        self.refresh_inline()

    def refresh_limits(self) -> None:
        """Take the time limits of all tasks anew."""
        self.update_strategies()
        self.refresh_inline()

    def refresh_inline(self) -> None:
        """Take the limits of inline tasks anew; a task with a rate limit is not run inline."""
        if inline := self._inline:
            inline.refresh()

    def start(self) -> None:
        """Run until the worker stops, or ends by an error."""
        self._warn_of_limits()
        try:
            super().start()
        except (WorkerShutdown, WorkerTerminate, KeyboardInterrupt):
            raise
        except BaseException as error:
            lasting = _lasting(error)
            if lasting:
                logger.critical("the worker ends: %s", lasting)
                raise SystemExit(1) from None
            worker_state.note_crash()
            raise

    def is_inline(self, task: str) -> bool:
        """Return True if jobs of a task run in this process, which keeps their limits itself."""
        inline = self._inline
        return inline is not None and inline.runs(task)

    @property
    def _inline(self) -> Inline | None:
        channel = getattr(getattr(self, "task_consumer", None), "channel", None)
        return channel.inline if isinstance(channel, Channel) else None

    def _warn_of_limits(self) -> None:
        """Say at the start that the pool keeps no time limits, where tasks have some."""
        tasks = self.app.tasks.values()
        for kind, name in _LIMITS.items():
            is_set = self.app.conf.get(f"task_{name}") or any(
                getattr(task, name, None) for task in tasks
            )
            if is_set and kind in self._unkept:
                self._warn_of_limit(kind)

    def _warn_of_limits_of(self, headers: dict[str, Any]) -> None:
        """Say so of a job's own limits."""
        for kind, limit in zip(_LIMITS, headers.get("timelimit") or (), strict=False):
            if limit and kind in self._unkept:
                self._warn_of_limit(kind)

    def _warn_of_limit(self, kind: str) -> None:
        self._unkept.discard(kind)  # once
        logger.warning(
            "this worker's pool keeps no %s time limits, neither of tasks nor of jobs: jobs run "
            "to their ends; prefork keeps them",
            kind,
        )

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, and try for as long as it takes; a broker that is back is found soon."""
        conn.ensure_connection = partial(conn.ensure_connection, **_RECONNECT)
        return super().ensure_connected(conn)

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        """Return what takes each message: Celery's handler, with a look at the message first.

        That has to come first: some of what Celery finds wrong, it finds when a pool process is
        free for the job, and then the error is the event loop's.
        """
        handle = super().create_task_handler(*args, **options)
        # A channel of ours finds some dead letters itself, and has no store to answer by.
        channel = self.task_consumer.channel
        channel.on_dead_letter = self.on_dead_letter
        if isinstance(channel, Channel):
            channel.inline = Inline(self, channel)
            channel.watch_revoked(state.revoked.update)
            self.on_task_message.add(_restore_eta)

        def on_message(message: Any) -> None:
            try:
                _check(message)
                message.headers.pop(_DUE_ETA, None)  # ours alone
                if self._unkept:
                    self._warn_of_limits_of(message.headers)
                task = self.app.tasks.get(_task(message).get("task"))
                message.acks_early = task is not None and not task.acks_late
                if message.headers.get("eta") and isinstance(channel, Channel):
                    self._set_aside_eta(message.headers, channel)
                handle(message)
            except MemoryError:
                raise
            except Exception as error:
                if self._is_the_brokers(error):
                    raise
                self._bury(message, _reason(error), error)

        return on_message

    def _set_aside_eta(self, headers: dict[str, Any], channel: Channel) -> None:
        """Have Celery handle a job whose time has come as one without a time.

        It takes a timer and one more place of the prefetch for each job with a time: thousands
        that are due at once would wait for each other.
        """
        # A request under a rate limit would not get it back.
        if not self.task_buckets.get(headers.get("task")) and channel.is_due(headers["eta"]):
            headers[_DUE_ETA], headers["eta"] = headers["eta"], None

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Bury a message that kombu could not read."""
        control_exchange = self.app.control.mailbox.exchange.name
        is_job = keys.is_tag(str(message.delivery_tag))
        if not is_job and message.delivery_info.get("exchange") == control_exchange:
            logger.warning("ignored a message of remote control: %s", _reason(exc))
            return
        self._bury(message, _reason(exc), exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Bury a task that Celery finds to be none."""
        self._bury(message, _reason(exc), exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Bury a message that is no task at all."""
        self._bury(message, "the message is no task")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Bury a task that this worker has none of; its caller gets Celery's NotRegistered."""
        task = _task(message)
        name, job_id = task.get("task"), task.get("id")
        error = NotRegistered(name)
        self._bury(message, f"the worker has no task {safe_repr(name)}", error, failure=error)
        if self.event_dispatcher:
            self.event_dispatcher.send("task-failed", uuid=job_id, exception=repr(error))
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=name, id=job_id)

    def on_dead_letter(self, dead: Any) -> Callable[[], None] | None:
        """Fail the job of a message that the channel dead-letters, from its headers alone.

        Its body may be what ended its workers. It names the chord, the chain and the errbacks of
        the job: what is returned tells them, when the message is out of the queue.
        """
        if not dead.job_id:
            return None
        request = Context(id=dead.job_id, delivery_info={})
        _, request.reply_to = validation.sender(dead.envelope)
        failure = _dead_letter(dead.reason, dead.queue)
        self.fail(request, failure)
        if not dead.envelope.get("body"):
            return None
        return partial(self._fail_successors, dead, failure)

    def _fail_successors(self, dead: Any, failure: Exception) -> None:
        """Tell the chord, the chain and the errbacks of a job that it failed."""
        channel = self.task_consumer.channel
        with suppress(Exception):  # what cannot be read has no successors
            message = channel.Message(dead.envelope, channel)
            message.accept = self.task_consumer.accept
            if not message.errors:
                self.fail(_request(message, dead.job_id), failure)

    def _is_the_brokers(self, error: Exception) -> bool:
        """Tell whether the broker is at fault, and not the message."""
        return self._is_a_lost_connection(error) or isinstance(error, self.channel_errors)

    def _is_a_lost_connection(self, error: Exception) -> bool:
        # Kombu counts KeyError among the connection's errors; here it is a message's.
        return isinstance(error, self.connection_errors) and not isinstance(error, KeyError)

    def _bury(
        self,
        message: Any,
        reason: str,
        error: Exception | None = None,
        failure: Exception | None = None,
    ) -> None:
        """Log why nobody can do a job, tell its caller, and lay its message among the dead letters.

        In this order: a worker that dies in between leaves the message for another.
        """
        job_id = _job_id(message, error)
        queue = _queue(message)
        logger.error("Job %s is a dead letter: %s", job_id or "unknown", reason)
        if job_id:
            self.fail(_request(message, job_id), failure or _dead_letter(reason, queue))
        if not message.acknowledged:
            _lay_down(message, reason)
        if failure is None:  # for an unknown task, Celery has a signal of its own
            signals.task_rejected.send(sender=self, message=message, exc=error)

    def fail(self, request: Context, failure: Exception) -> None:
        """Store a job's failure, and tell the chord, the chain and the errbacks that it is in."""
        try:
            self.app.backend.mark_as_failure(request.id, failure, request=request)
        except Exception as error:
            if self._is_a_lost_connection(error) or is_temporary(error):
                raise
            # What is wrong with the message may be wrong in there, too; or it may not be stored.
            logger.error("Job %s cannot be failed as a whole: %r", request.id, error)  # noqa: TRY400


def _lasting(error: BaseException | None) -> BaseException | None:
    """Return what will not pass, of an error and its causes: a server or a user that cannot do."""
    while error is not None:
        is_refused = isinstance(error, ResponseError) and str(error).startswith(_LACKS_A_RIGHT)
        if is_refused or isinstance(error, (ServerTooOld, UnknownServer, NoPermissionError)):
            return error
        error = error.__cause__ or error.__context__
    return None


def _restore_eta(request: Any) -> None:
    """Give a job that goes to the pool its time again: the task may ask for it."""
    headers = request.request_dict
    if eta := headers.pop(_DUE_ETA, None):
        headers["eta"] = eta
        request._eta = datetime.fromisoformat(eta)  # noqa: SLF001 - Celery reads it from the headers once


def _check(message: Any) -> None:
    """Raise what is wrong with a message; those of protocol 1 have their task in the body."""
    headers = message.headers
    if "task" in headers:
        validation.check_task(headers)
    payload = message.payload
    if "task" in headers or (isinstance(payload, dict) and "task" in payload):
        validation.check_call(payload, headers)
        if _may_be_deep(message) and validation.is_deep(payload):
            raise Malformed("the task's arguments are nested too deeply")


def _may_be_deep(message: Any) -> bool:
    """Tell, from the brackets alone where it is JSON, whether a body may be nested too deeply."""
    if message.content_type != "application/json":
        return True
    left = ("[", "{") if isinstance(message.body, str) else (b"[", b"{")
    brackets: int = sum(map(message.body.count, left))
    return brackets > validation.MAX_DEPTH


def _lay_down(message: Any, reason: str) -> None:
    """Put a message where dead letters are: a stream of ours, or where the broker has them."""
    if _queue(message) is None:
        message.reject()
        return
    message.channel.dead_letter(message.delivery_tag, reason)
    message._state = "REJECTED"  # noqa: SLF001 - so that nothing acknowledges it again


def _queue(message: Any) -> str | None:
    """Return the queue of a message if its dead letters are a stream of ours, or else None."""
    tag = str(message.delivery_tag)
    if not hasattr(message.channel, "dead_letter") or not keys.is_tag(tag):
        return None
    return keys.queue_of(keys.place(tag)[0])


def _dead_letter(reason: str, queue: str | None) -> DeadLetter:
    """Return the error that a caller gets: why, and where to look."""
    where = f"kept in {keys.dead(queue)}" if queue else "rejected at the broker"
    return DeadLetter(f"{reason}; its message is {where}")


def _task(message: Any) -> dict[str, Any]:
    """Return what a message says of its task, in its headers or, by protocol 1, in its body."""
    headers = message.headers if isinstance(message.headers, dict) else {}
    with suppress(Exception):  # it may be the body that cannot be read
        if "task" not in headers and isinstance(message.payload, dict):
            return {**message.payload, **headers}
    return headers


def _job_id(message: Any, error: Exception | None) -> str | None:
    if isinstance(error, Malformed) and error.job_id:
        return error.job_id
    job_id, _ = validation.sender({"headers": _task(message), "properties": message.properties})
    return job_id


def _request(message: Any, job_id: str) -> Context:
    """Return Celery's request, as far as the message can be read, for those who wait for it."""
    embed: Any = {}
    with suppress(Exception):
        validation.check_call(message.payload, message.headers)
        payload = message.payload
        embed = payload if isinstance(payload, dict) else payload[2]
    request = Context(_task(message), **(embed or {}))
    _, request.reply_to = validation.sender({"properties": message.properties})
    request.id, request.delivery_info = job_id, {}
    return request


def _reason(error: Exception) -> str:
    """Return an error in one line."""
    if isinstance(error, Malformed):
        return error.reason
    what = str(error) if isinstance(error, _TELLING) else f"{type(error).__name__}: {error}"
    return " ".join(f"the worker cannot read the message: {what}".split())[:MAX_REASON]
