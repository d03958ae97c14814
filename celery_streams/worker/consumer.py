"""Celery's consumer, which no message can end and which leaves no caller waiting.

Celery drops a message that it cannot read, and its caller waits for ever; some messages end the
worker. Here each of them is dead-lettered, and its job fails.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import cached_property, partial
from typing import Any

from celery import signals
from celery.app.task import Context
from celery.exceptions import NotRegistered, WorkerShutdown, WorkerTerminate
from celery.utils.log import get_logger
from celery.worker import consumer, state
from kombu.transport import get_transport_cls
from kombu.utils.encoding import safe_repr
from redis.exceptions import NoPermissionError, ResponseError

from celery_streams import worker_state
from celery_streams.errors import ServerTooOld, UnknownServer
from celery_streams.install import install_worker
from celery_streams.retries import is_temporary
from celery_streams.transport import keys, validation
from celery_streams.transport.channel import Channel
from celery_streams.transport.deliveries import DeadMessage
from celery_streams.transport.dispatch import PERMITTED
from celery_streams.transport.revocation import Revoked
from celery_streams.transport.transport import Connection, Transport
from celery_streams.worker import messages, request
from celery_streams.worker.events import Dispatcher
from celery_streams.worker.other_pools import UnenforcedLimits, contain_errors
from celery_streams.worker.pidbox import Node, ignore_malformed
from celery_streams.worker.pool import TaskPool
from celery_streams.worker.rate_limits import RateLimits
from celery_streams.worker.running import RunningJobs
from celery_streams.worker.started import Started

logger = get_logger(__name__)

#: Seconds between two tries to connect; kombu's grow to 30.
_RECONNECT = {"interval_start": 1, "interval_step": 1, "interval_max": 5}
#: What the error begins with if a script lacks a permission; the second is Redis 7.0's.
_LACKS_PERMISSION = ("ACL failure", "The user executing the script can't run")
#: The header that keeps the ETA of a due job while Celery handles it as one without.
_DUE_ETA = "streams.due_eta"
#: Errors that no retry can fix.
_PERMANENT = (ServerTooOld, UnknownServer, NoPermissionError)
_celery: Any = consumer


class Blueprint(_celery.Consumer.Blueprint):  # type: ignore[misc]  # not in the stubs
    """Celery's steps of a consumer, and ours."""

    default_steps = (*_celery.Consumer.Blueprint.default_steps, Started)


class Consumer(consumer.Consumer):
    """Passes on the messages that Celery can process, and dead-letters all others."""

    # What the type stubs leave out of Celery's class.
    controller: Any
    disable_rate_limits: bool
    app: Any
    connection_errors: tuple[type[BaseException], ...]
    channel_errors: tuple[type[BaseException], ...]
    conninfo: Any
    event_dispatcher: Any
    task_buckets: Any
    on_task_message: set[Callable[[Any], object]]
    qos: Any
    task_consumer: Any
    timer: Any

    Blueprint = Blueprint

    def __init__(self, *args: Any, **options: Any) -> None:
        """Check the URLs of the broker and of the result store; raises UnknownServer."""
        app = options["app"]
        worker_state.note_worker()
        install_worker()
        app.control.mailbox.node_cls = Node
        chosen = app.conf.broker_transport
        transport: Any = get_transport_cls(chosen) if chosen else object
        if issubclass(transport, Transport):
            app.amqp.Connection = Connection
        app.events.dispatcher_cls = Dispatcher
        vars(app.events).pop("Dispatcher", None)  # it may have been made of the former class
        super().__init__(*args, **options)
        found = self.conninfo.transport
        if not isinstance(found, transport):
            raise UnknownServer(
                f"the broker's URL names the transport {type(found).__module__}, "
                f"and broker_transport another, {chosen}"
            )
        app.backend  # noqa: B018 - raises UnknownServer
        if gossip := getattr(self, "gossip", None):
            ignore_malformed(gossip)
        contain_errors(self.pool)
        if isinstance(self.pool, TaskPool) and self.pool.consumer is None:
            self.pool.consumer = self
            controller: Any = self.controller
            controller.wait_for_soft_shutdown = partial(
                self._wait_for_soft_shutdown, controller.wait_for_soft_shutdown
            )

    def update_strategies(self) -> None:
        """Prepare how each task's jobs are run."""
        for task in self.app.tasks.values():
            if task.Request == request.CELERYS:
                task.Request = request.NAME
        super().update_strategies()

    @cached_property
    def _unenforced(self) -> UnenforcedLimits:
        return UnenforcedLimits(self.pool)

    @cached_property
    def rate_limits(self) -> RateLimits:
        """The jobs that wait because of their task's rate limit."""
        return RateLimits(self)

    def _limit_task(self, request: Any, bucket: Any, tokens: int) -> None:
        self.rate_limits.add(request, bucket, tokens)

    def _limit_post_eta(self, request: Any, bucket: Any, tokens: int) -> None:
        self.qos.decrement_eventually()
        self.rate_limits.add(request, bucket, tokens)

    def on_close(self) -> None:
        """Drop the jobs that the lost connection had delivered."""
        super().on_close()
        self.rate_limits.clear()

    def reset_rate_limits(self) -> None:
        """Apply the rate limits of all tasks, also to the jobs that already wait."""
        former: dict[str, Any] = dict(self.task_buckets)
        super().reset_rate_limits()
        self.rate_limits.move(former, self.task_buckets)

    def refresh_limits(self) -> None:
        """Apply the time limits of all tasks to the next jobs."""
        self.update_strategies()

    def _limit_move_to_pool(self, request: Any) -> None:
        """Start a job that waited for its task's rate limit."""
        if isinstance(self.pool, TaskPool) and self.pool.jobs:
            self.pool.jobs.permit(request)
        else:
            super()._limit_move_to_pool(request)  # type: ignore[misc]  # not in the stubs

    def _wait_for_soft_shutdown(self, wait: Callable[[], object]) -> None:
        """Have Celery wait for the jobs that run; no others begin."""
        if isinstance(self.pool, TaskPool):
            self.pool.on_close()
        self.refresh_running()
        wait()

    def cancel_active_requests(self) -> None:
        """Cancel the jobs that run: the worker is to stop at once."""
        if isinstance(self.pool, TaskPool):
            self.pool.on_close()
            self.pool.is_cold = True
        self.refresh_running()
        super().cancel_active_requests()

    def refresh_running(self) -> None:
        """Have Celery's state list the jobs that the pool's processes run."""
        if isinstance(self.pool, TaskPool) and self.pool.jobs:
            self.pool.jobs.refresh()

    def on_ready(self) -> None:
        """Let the pool's processes fetch: remote control reaches the worker now."""
        super().on_ready()
        if isinstance(self.pool, TaskPool):
            self.pool.open()

    def start(self) -> None:
        """Run until the worker stops; an error that no retry can fix ends it."""
        self._unenforced.warn_of_tasks(self.app)
        try:
            super().start()
        except (WorkerShutdown, WorkerTerminate, KeyboardInterrupt):
            raise
        except BaseException as error:
            permanent = _permanent(error)
            if permanent:
                logger.critical("the worker ends: %s", permanent)
                raise SystemExit(1) from None
            worker_state.note_crash()
            raise

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, without a limit on the tries; a broker that is back is found within seconds."""
        conn.ensure_connection = partial(conn.ensure_connection, **_RECONNECT)
        return super().ensure_connected(conn)

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        """Return Celery's handler of messages, behind a check of each message.

        Celery finds some errors only when a pool process is free, in the event loop.
        """
        handle = super().create_task_handler(*args, **options)
        channel = self.task_consumer.channel
        if isinstance(channel, Channel):
            # The channel dead-letters some messages by itself, and knows no result store.
            channel.deliveries.on_dead_letter = self.on_dead_letter
            channel.maintenance.watch_revoked(Revoked(self._on_revoked, channel.global_keyprefix))
            if isinstance(self.pool, TaskPool):
                self.pool.connected(RunningJobs(self, channel))
            self.on_task_message.add(_restore_eta)

        def on_message(message: Any) -> None:
            try:
                messages.check_message(message)
                message.headers.pop(_DUE_ETA, None)  # a producer must not set it
                self._unenforced.warn_of_job(message.headers)
                task = self.app.tasks.get(messages.task_of(message).get("task"))
                message.acks_early = task is not None and not task.acks_late
                if message.headers.get("eta") and isinstance(channel, Channel):
                    self._set_aside_eta(message.headers, channel)
                if not self._runs_permitted(message):
                    handle(message)
            except MemoryError:
                raise
            except Exception as error:
                if self._is_the_brokers(error):
                    raise
                self._dead_letter(message, messages.reason_of(error), error)

        return on_message

    def _runs_permitted(self, message: Any) -> bool:
        """Run a job that waited for its task's rate limit; Celery has said that it is received."""
        permitted = message.headers.get(PERMITTED) and request.request_of(self, message)
        if permitted:
            self._limit_move_to_pool(permitted)
        return bool(permitted)

    def _on_revoked(self, ids: list[str]) -> None:
        state.revoked.update(ids)
        if isinstance(self.pool, TaskPool):
            self.pool.scoreboard.note_revoked()

    def _set_aside_eta(self, headers: dict[str, Any], channel: Channel) -> None:
        """Have Celery handle a due job as one without an ETA.

        Celery takes a timer and one more message of the prefetch for each job with an ETA:
        thousands that are due at once would wait for each other.
        """
        # `_restore_eta` is not called for a rate-limited job.
        if not self.task_buckets.get(headers.get("task")) and channel.maintenance.clock.has_reached(
            headers["eta"]
        ):
            headers[_DUE_ETA], headers["eta"] = headers["eta"], None

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Dead-letter a message that kombu could not decode."""
        control_exchange = self.app.control.mailbox.exchange.name
        is_job = keys.is_tag(str(message.delivery_tag))
        if not is_job and message.delivery_info.get("exchange") == control_exchange:
            logger.warning("ignored a message of remote control: %s", messages.reason_of(exc))
            return
        self._dead_letter(message, messages.reason_of(exc), exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Dead-letter a message whose task is invalid."""
        self._dead_letter(message, messages.reason_of(exc), exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Dead-letter a message without a task."""
        self._dead_letter(message, "the message is no task")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Dead-letter a message of an unknown task; its caller gets Celery's NotRegistered."""
        task = messages.task_of(message)
        name, job_id = task.get("task"), task.get("id")
        error = NotRegistered(name)
        reason = f"the worker has no task {safe_repr(name)}"
        self._dead_letter(message, reason, error, failure=error)
        if self.event_dispatcher:
            self.event_dispatcher.send("task-failed", uuid=job_id, exception=repr(error))
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=name, id=job_id)

    def on_dead_letter(self, dead: DeadMessage) -> Callable[[], None] | None:
        """Fail the job of a message that the channel dead-letters, by its headers alone.

        Its body may have ended its workers, and names the chord, chain and errbacks of the job.
        Returns a function that fails these, when the message is out of the queue.
        """
        if not dead.job_id:
            return None
        request = Context(id=dead.job_id, delivery_info={})
        _, request.reply_to = validation.sender(dead.envelope)
        failure = messages.failure(dead.reason, dead.queue)
        self.fail(request, failure)
        if not dead.envelope.get("body"):
            return None
        return partial(self._fail_successors, dead, failure)

    def _fail_successors(self, dead: DeadMessage, failure: Exception) -> None:
        """Fail the chord, chain and errbacks of a job."""
        channel = self.task_consumer.channel
        with suppress(Exception):  # a body that cannot be read names none
            message = channel.Message(dead.envelope, channel)
            message.accept = self.task_consumer.accept
            if not message.errors:
                self.fail(messages.request_of(message, str(dead.job_id)), failure)

    def _is_the_brokers(self, error: Exception) -> bool:
        """Return True if the broker is at fault, and not the message."""
        return self._is_a_lost_connection(error) or isinstance(error, self.channel_errors)

    def _is_a_lost_connection(self, error: Exception) -> bool:
        # Kombu lists KeyError among the connection's errors; here the message causes it.
        return isinstance(error, self.connection_errors) and not isinstance(error, KeyError)

    def _dead_letter(
        self,
        message: Any,
        reason: str,
        error: Exception | None = None,
        failure: Exception | None = None,
    ) -> None:
        """Log the reason, fail the job and dead-letter the message.

        In this order: a worker that dies in between leaves the message to another.
        """
        job_id = messages.job_id_of(message, error)
        queue = messages.queue_of(message)
        logger.error("Job %s is a dead letter: %s", job_id or "unknown", reason)
        if job_id:
            error_of_job = failure or messages.failure(reason, queue)
            self.fail(messages.request_of(message, job_id), error_of_job)
        if not message.acknowledged:
            messages.dead_letter(message, reason)
        if failure is None:  # an unknown task has another signal
            signals.task_rejected.send(sender=self, message=message, exc=error)

    def fail(self, request: Context, failure: Exception) -> None:
        """Store a job's failure, and fail its chord, chain and errbacks."""
        try:
            self.app.backend.mark_as_failure(request.id, failure, request=request)
        except Exception as error:
            if self._is_a_lost_connection(error) or is_temporary(error):
                raise
            # The message may be malformed there, too; or the failure cannot be stored.
            logger.error("Job %s cannot be failed as a whole: %r", request.id, error)  # noqa: TRY400


def _permanent(error: BaseException | None) -> BaseException | None:
    """Return the error, or its cause, if no retry can fix it; else None."""
    while error is not None:
        is_refused = isinstance(error, ResponseError) and str(error).startswith(_LACKS_PERMISSION)
        if is_refused or isinstance(error, _PERMANENT):
            return error
        error = error.__cause__ or error.__context__
    return None


def _restore_eta(request: Any) -> None:
    """Restore the ETA of a job that goes to the pool: its task may read it."""
    headers = request.request_dict
    if eta := headers.pop(_DUE_ETA, None):
        headers["eta"] = eta
        request._eta = datetime.fromisoformat(eta)  # noqa: SLF001 - Celery has read the headers
