"""Plain jobs: by their task's template, in one command, past most of Celery and kombu.

A job is plain if nothing is asked of it but its arguments, which JSON can hold, its priority,
and a place in a group; and if nobody looks on while it is sent. Every other one, and the first of
each task, which shows what its messages are like, goes Celery's way; so does one whose
connection is lost, to be tried again by Celery's policy.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import NoneType
from typing import Any

from celery import _state, signals
from celery.app.routes import MapRoute
from celery.canvas import Signature
from celery.utils.saferepr import saferepr
from kombu.utils.json import dumps
from redis.exceptions import RedisError, ResponseError

from celery_streams import fastjson
from celery_streams.errors import QueueFull
from celery_streams.producer.sender import Sender
from celery_streams.producer.template import Job, Recorder, Template, new_id
from celery_streams.results.backend import RedisBackend
from celery_streams.scripts import PUBLISH
from celery_streams.transport.channel import Channel
from celery_streams.transport.queues import refusal
from celery_streams.transport.validation import MAX_NAME
from cluster import broker
from cluster import options as job_options
from cluster.codec import INLINE_JSON

__all__ = ["BATCH", "Submission", "Template", "new_id"]

#: Messages that one command publishes.
BATCH = 500

#: Options that a plain job may have; of others only None, which says nothing.
_PLAIN = frozenset(
    {
        *("task_id", "group_id", "group_index", "root_id", "parent_id", "reply_to"),
        *("priority", "ignore_result", "retry", "retry_policy", "add_to_parent", "task_type"),
        *("time_limit", "soft_time_limit", "result_cls", "route_name"),
    }
)
#: Those that a template is made for, and what they may be.
_KEY = ("priority", "ignore_result", "time_limit", "soft_time_limit")
_SIMPLE = frozenset({NoneType, bool, int, float, str})
#: Those that say which job it is, whose, and among which others, and what they may be.
_IDS = ("task_id", "root_id", "parent_id", "group_id", "reply_to")
_TEXT, _INDEX = frozenset({str, NoneType}), frozenset({int, NoneType})
#: Who looks on.
_SIGNALS = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)
_NUMBERS = frozenset({int, float, bool, NoneType})
_celery: Any = _state
#: Celery's tasks that call another one many times.
_CALLERS = frozenset({"celery.map", "celery.starmap"})
_MapRoute: Any = MapRoute  # the stubs leave its table out

#: Messages by the template that tells where they go.
Messages = dict[Template, list[bytes]]


class Submission:
    """What sends the plain jobs of an app; threads may share it."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._of_thread = threading.local()
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()  # which messages name
        self._settings = dict(self._app.conf.changes)
        #: By task, priority, and whether the result is ignored; None where it is not plain.
        self._templates: dict[tuple[Any, ...], Template | None] = {}
        self._sender: Sender | None = None
        self._max_levels = self._app.conf.task_repr_maxlevels

    def close(self) -> None:
        """Close the connections."""
        if self._sender and self._process == os.getpid():
            self._sender.close()

    # What may be sent so -----------------------------------------------------------------

    def learn(self, name: str, options: Mapping[str, Any], kwargs: Any = None) -> None:
        """Find out what the messages of a task are like, from a broker that answers."""
        options = self._with_its_own(name, options)
        known = _key(name, options, kwargs)
        if known and self._may_send(options) and known not in self._templates:
            with suppress(OSError, *broker.AWAY):  # away by now: the next time
                self._templates[known] = self._learned(name, options, kwargs)

    def _learned(self, name: str, options: Mapping[str, Any], kwargs: Any) -> Template | None:
        app, conf = self._app, self._app.conf
        routes: Any = app.amqp.router.routes
        route = (
            routes[0].map.get(_runs(name, kwargs))
            if routes and isinstance(routes[0], _MapRoute)
            else None
        )
        if not isinstance(route, Mapping) or route.keys() != {"queue"}:
            return None
        if conf.task_send_sent_event or conf.task_always_eager:
            return None
        if not isinstance(app.backend, RedisBackend):
            return None
        more = {each: options.get(each) for each in _KEY}
        more["priority"] = job_options.number(more["priority"], amqp=False)
        with app.producer_or_acquire(options.get("producer")) as producer:
            channel: Any = producer.channel
            if not isinstance(channel, Channel):
                return None
            queue = app.amqp.router.route({}, name, (), kwargs)["queue"]
            if self._sender is None:
                self._sender = Sender(channel.connection_parameters)
            return Template.of(app, channel, name, queue, **more)

    def rehearse(self) -> None:
        """Go the way of a job that Celery sends, up to its last step; from a broker that answers.

        A process that was forked shares what it has not used yet, and pays for it when it does.
        """
        with self._app.producer_or_acquire() as producer:
            if isinstance(producer.channel, Channel) and self._may_send({}):
                recorder = Recorder(producer.channel, auto_declare=False)
                job = self._app.signature("celery.accumulate")
                job.apply_async(producer=recorder, ignore_result=True, queue=self._app.main)

    def template(
        self, name: str, options: Mapping[str, Any], kwargs: Any = None
    ) -> Template | None:
        """Return the template of a task's plain jobs, None where none can be sent now."""
        options = self._with_its_own(name, options)
        known = _key(name, options, kwargs)
        return self._templates.get(known) if known and self._may_send(options) else None

    def _with_its_own(self, name: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return options with those that a task has here itself, as `send_task` adds them."""
        task = self._app._tasks.get(name)  # noqa: SLF001 - without having all tasks made
        if task is None or options.get("task_type"):
            return options
        own = {key: value for key, value in task._get_exec_options().items() if value is not None}  # noqa: SLF001
        return {**own, **options}

    def _may_send(self, options: Mapping[str, Any]) -> bool:
        if self._process != os.getpid() or self._settings != self._app.conf.changes:
            self._reset()
        if any(signal.receivers for signal in _SIGNALS) or _celery.get_current_worker_task():
            return False
        return _PLAIN.issuperset(options) or all(
            value is None or name in _PLAIN or self._says_nothing(name, value)
            for name, value in options.items()
        )

    def _says_nothing(self, name: str, value: Any) -> bool:
        if name == "producer":  # a group's, whose jobs go together
            return self._batch is not None
        return (name == "serializer" and value == "json") or (
            name in {"retries", "replaced_task_nesting"} and value == 0
        )

    # To send -----------------------------------------------------------------------------

    def send(self, name: str, args: Any, kwargs: Any, options: Mapping[str, Any]) -> bool:
        """Send a job of the id among its options; False if it must go Celery's way.

        Raises QueueFull.
        """
        template = self.template(name, options, kwargs)
        job = self.job(args, kwargs, options) if template else None
        if template is None or job is None:
            return False
        store = self._app.backend
        if not options.get("ignore_result"):
            store.on_task_call(None, options["task_id"])
        if self._batch is not None:
            self._batch.setdefault(template, []).append(template.message(job))
            return True
        try:
            return self.send_by(template, job)
        except QueueFull:
            store.result_consumer.cancel_for(options["task_id"])
            raise

    def send_by(self, template: Template, job: Job) -> bool:
        """Send a job by its task's template; False if it must go Celery's way. Raises QueueFull."""
        if self._sender is None:
            return False
        try:
            self._sender.publish(template.key, template.most, [template.message(job)])
        except (OSError, RedisError):
            return False
        return True

    def job(self, args: Any, kwargs: Any, options: Mapping[str, Any]) -> Job | None:
        """Return what a job's message says, None if its arguments are not plain."""
        if not isinstance(args, list | tuple | NoneType) or not isinstance(kwargs, dict | NoneType):
            return None
        args = tuple(args or ())
        text = fastjson.encode(args)
        named = fastjson.encode(_without_signature(kwargs)) if kwargs else b"{}"
        if text is None or named is None or len(text) + len(named) > INLINE_JSON:
            return None
        ids = [options.get(name) for name in _IDS]
        index = options.get("group_index")
        if not _TEXT.issuperset(map(type, ids)) or type(index) not in _INDEX:
            return None
        for each in ids:  # written out: it is on the way of each job
            if each is not None and not (0 < len(each) <= MAX_NAME and each.isascii()):
                return None  # looked at on Celery's way
        job_id, root_id, parent_id, group, reply_to = map(_text, ids)
        return Job(
            id=job_id,
            args=text,
            kwargs=named,
            args_repr=self._repr(args),
            kwargs_repr=self._repr(kwargs) if kwargs else b'"{}"',
            reply_to=reply_to if options.get("reply_to") else _text(self._app.thread_oid),
            root_id=root_id if options.get("root_id") else job_id,
            parent_id=parent_id,
            group=group,
            group_index=b"null" if index is None else b"%d" % index,
        )

    def _repr(self, values: Any) -> bytes:
        """Return the JSON of what Celery shows of arguments."""
        most = self._app.amqp.argsrepr_maxsize
        if type(values) is tuple and _NUMBERS.issuperset(map(type, values)):
            text = repr(values)
            if len(text) < most:
                return f'"{text}"'.encode()
        # It walks to the end of what it does not show.
        if isinstance(values, dict):
            values = {key: _beginning(each, most) for key, each in values.items()}
        else:
            values = tuple(_beginning(each, most) for each in values)
        return _text(saferepr(values, most, maxlevels=self._max_levels))

    # Many at once ------------------------------------------------------------------------

    @property
    def _batch(self) -> Messages | None:
        return getattr(self._of_thread, "batch", None)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Send the plain jobs of a block as it ends, and none where it fails."""
        batch: Messages = {}
        self._of_thread.batch = batch
        try:
            yield
        finally:
            self._of_thread.batch = None
        for template, messages in batch.items():
            self.publish(template, messages)

    def publish(self, template: Template, messages: Sequence[bytes], **policy: Any) -> None:
        """Publish messages; what a lost connection leaves is tried again, as Celery does it.

        Raises QueueFull, or kombu's OperationalError.
        """
        for start in range(0, len(messages), BATCH):
            some = messages[start : start + BATCH]
            try:
                if self._sender is None:
                    raise ConnectionError
                self._sender.publish(template.key, template.most, some)
            except QueueFull:
                raise
            except (OSError, RedisError):
                self._publish_patiently(template, some, policy)

    def _publish_patiently(
        self, template: Template, messages: Sequence[bytes], policy: Mapping[str, Any]
    ) -> None:
        with self._app.producer_or_acquire() as producer:

            def publish() -> None:
                client = producer.channel.plain_client
                PUBLISH(client, [template.key], template.most, *messages)

            policy = {**self._app.conf.task_publish_retry_policy, **policy}
            with producer.connection._reraise_as_library_errors():  # noqa: SLF001 - as Celery
                try:
                    producer.connection.ensure(producer, publish, **policy)()
                except ResponseError as error:
                    raise refusal(error) from None


def _runs(name: str, kwargs: Any) -> Any:
    """Return the task that decides where a job goes: the one that map and chunks call."""
    if name in _CALLERS and isinstance(kwargs, dict) and isinstance(kwargs.get("task"), Signature):
        return kwargs["task"]["task"]
    return name


def _without_signature(kwargs: dict[str, Any]) -> dict[str, Any]:
    task = kwargs.get("task")
    return {**kwargs, "task": dict(task)} if type(task) is Signature else kwargs


def _beginning(value: Any, most: int) -> Any:
    """Return of a list what is shown by so many characters, three of an item, and some more."""
    return value[: most // 3 + 2] if type(value) is list else value


def _key(name: str, options: Mapping[str, Any], kwargs: Any) -> tuple[Any, ...] | None:
    values = [options.get(each) for each in _KEY]
    # With their types: True, which is no priority, is equal to 1.
    runs = _runs(name, kwargs)
    if not _SIMPLE.issuperset(map(type, values)) or options.get("route_name") not in {None, runs}:
        return None
    return (name, runs, *values, *map(type, values))


def _text(value: Any) -> bytes:
    """Return the JSON of an id, or of other text; None is null."""
    if value is None:
        return b"null"
    return fastjson.encode(value) or dumps(value).encode()
