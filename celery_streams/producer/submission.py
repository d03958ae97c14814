"""The fast way to send a job: by its task's template, past most of Celery and kombu.

It is taken by a plain job: JSON arguments, no options but a priority, limits and a place in a
group. All others are sent by Celery, and so is the first job of each task, from which the template
is made.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from celery import _state, signals
from celery.app.routes import MapRoute
from kombu.exceptions import BatchPublishError, OperationalError  # type: ignore[attr-defined]
from redis.exceptions import RedisError

from celery_streams import bundles
from celery_streams.errors import QueueFull
from celery_streams.producer.jobs import Jobs, new_id
from celery_streams.producer.observed import ObservedJob, is_observed
from celery_streams.producer.sender import Sender, publish_with_retries
from celery_streams.producer.template import OF_TEMPLATE, Recorder, Template, key_of, routed_by
from celery_streams.results.backend import RedisBackend
from celery_streams.transport.channel import Channel

logger = logging.getLogger(__name__)

#: Messages that one command publishes.
PUBLISH_BATCH = 500
#: Bytes of the arguments of a plain job.
MAX_JSON = 64 * 1024

#: Options that a plain job may have; any other has to be None.
_PLAIN = frozenset(
    {
        *("task_id", "group_id", "group_index", "root_id", "parent_id", "reply_to"),
        *("priority", "ignore_result", "retry", "retry_policy", "add_to_parent", "task_type"),
        *("time_limit", "soft_time_limit", "result_cls", "route_name", "headers"),
    }
)
#: Options of a task that hold for each call of a bundle, and not for the bundle.
_OF_CALLS = ("time_limit", "soft_time_limit", "ignore_result")
#: Errors of an unreachable broker.
_UNREACHABLE = (OSError, OperationalError, BatchPublishError, RedisError)

_celery: Any = _state


def _as_it_is(priority: Any) -> Any:
    return priority


class _Message(NamedTuple):
    """A plain job's message; its text is None if kombu has sent it."""

    text: bytes | None
    observed: ObservedJob | None = None


class _Group(NamedTuple):
    """A group that is being sent: its producer, and its plain jobs by their template."""

    producer: Any
    messages: dict[Template, list[_Message]]


class Submission:
    """Sends the plain jobs of an app; threads may share it.

    `priority_number` returns the broker's number for the option `priority`.
    """

    def __init__(
        self, app: Any, priority_number: Callable[[Any], Any] = _as_it_is, max_json: int = MAX_JSON
    ) -> None:
        self._app = app
        self._priority_number = priority_number
        self._max_json = max_json
        self._jobs: Jobs
        self._of_thread = threading.local()
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()  # messages name it
        self._settings = dict(self._app.conf.changes)
        self._router = self._app.amqp.router
        #: By task and the options that are part of it; None for a task that has none.
        self._templates: dict[tuple[Any, ...], Template | None] = {}
        self._sender: Sender | None = None
        self._jobs = Jobs(self._app, self._max_json)

    def close(self) -> None:
        """Close the connections."""
        if self._sender and self._process == os.getpid():
            self._sender.close()

    # Templates or Celery ---------------------------------------------------------------

    def send_task(
        self,
        by_celery: Callable[..., Any],
        name: str,
        args: Any = None,
        kwargs: Any = None,
        *positional: Any,
        **options: Any,
    ) -> Any:
        """Send a job and return its result, as Celery's `send_task`; `by_celery` sends all others.

        Raises QueueFull, or what `by_celery` raises.
        """
        has_time = positional and any(value is not None for value in positional)
        if not has_time:
            options["task_id"] = options.get("task_id") or new_id()
            if self.try_send(name, args, kwargs, options):
                result = (options.get("result_cls") or self._app.AsyncResult)(options["task_id"])
                result.ignored = options.get("ignore_result")
                return result
        result = by_celery(name, args, kwargs, *positional, **options)
        self.learn(name, options, kwargs)
        return result

    def try_send(self, name: str, args: Any, kwargs: Any, options: Mapping[str, Any]) -> bool:
        """Send a job by its template; return False if Celery has to send it. Raises QueueFull."""
        template = self._template(name, options, kwargs)
        message = self._message(template, args, kwargs, options) if template else None
        if template is None or message is None or self._sender is None:
            return False
        store = self._app.backend
        if not options.get("ignore_result"):
            store.on_task_call(None, options["task_id"])
        group = self._group
        if group is not None and options.get("producer") is group.producer:
            group.messages.setdefault(template, []).append(message)
            return True
        try:
            if message.text and not message.observed:
                self._sender.publish(template.key, template.max_length, [message.text])
            else:  # if Celery sent it, receivers would be told twice
                self._publish(template, [message], _policy(options))
        except QueueFull:
            store.result_consumer.cancel_for(options["task_id"])
            raise
        except (OSError, RedisError):  # Celery's policy decides on retries
            return False
        return True

    def send_batch(
        self,
        name: str,
        jobs: Mapping[str, Sequence[Any]],
        kwargs: Any = None,
        *,
        reply_to: str,
        **policy: Any,
    ) -> list[str] | None:
        """Send jobs, by their ids, in few commands; return the ids of those Celery has to send.

        None stands for all of them: there is no template. `policy` overrides Celery's retry
        policy. Raises QueueFull or kombu's OperationalError.
        """
        template = self._template(name, {}, kwargs)
        if template is None:
            return None
        messages, others = [], []
        for job_id, args in jobs.items():
            options = {"task_id": job_id, "reply_to": reply_to}
            if name == bundles.NAME:
                options["argsrepr"] = bundles.shown(*args)
            message = self._message(template, args, kwargs, options)
            if message is None:
                others.append(job_id)
            else:
                messages.append(message)
        self._publish(template, messages, policy)
        return others

    def send_at_once(self, name: str, jobs: Mapping[str, Sequence[Any]], *, reply_to: str) -> bool:
        """Send jobs from a worker, by their ids; a signal handler may call it.

        Return False, with some or none sent, if they are not plain or observed, the task's template
        is not known or the server does not answer.
        """
        template = self._template(name, {}, is_worker=True)
        if template is None or self._sender is None or is_observed({}):
            return False
        texts = []
        for job_id, args in jobs.items():
            options = {"task_id": job_id, "reply_to": reply_to}
            message = self._message(template, args, None, options)
            if message is None or message.text is None:
                return False
            texts.append(message.text)
        try:
            if texts:
                self._sender.publish(template.key, template.max_length, texts)
        except (OSError, RedisError, QueueFull):
            return False
        return True

    @property
    def _group(self) -> _Group | None:
        """The group that this thread is sending."""
        return getattr(self._of_thread, "group", None)

    @contextmanager
    def together(self, producer: Any) -> Iterator[None]:
        """Send the plain jobs of a block when it ends, and none of them if it raises.

        These are the jobs that are sent with `producer`; a task's `apply_async` may send others.
        """
        outer, group = self._group, _Group(producer, {})
        self._of_thread.group = group
        try:
            yield
        finally:
            self._of_thread.group = outer
        for template, messages in group.messages.items():
            self._publish(template, messages, {})

    # Templates -------------------------------------------------------------------------

    def learn(
        self, name: str, options: Mapping[str, Any], kwargs: Any = None, *, is_worker: bool = False
    ) -> None:
        """Make the template of a task, if its jobs are plain and the broker is reachable."""
        options = self._with_task_options(name, options, kwargs)
        key = key_of(name, options, kwargs)
        may_send = self._may_send(options, is_worker=is_worker)
        if key and may_send and key not in self._templates:
            with suppress(*_UNREACHABLE):  # made by a later job
                self._templates[key] = self._make_template(name, options, kwargs)

    def knows(self, name: str) -> bool:
        """Return True if `learn` was called for a task, so that its name needs no other check."""
        options = self._with_task_options(name, {})
        return key_of(name, options, None) in self._templates

    def _make_template(self, name: str, options: Mapping[str, Any], kwargs: Any) -> Template | None:
        app, conf = self._app, self._app.conf
        if conf.task_send_sent_event or conf.task_always_eager:
            return None
        if not self._has_fixed_route(routed_by(name, kwargs)):
            return None
        if not isinstance(app.backend, RedisBackend):
            return None
        more = {each: options.get(each) for each in OF_TEMPLATE}
        more["priority"] = self._priority_number(more["priority"])
        with app.producer_or_acquire(options.get("producer")) as producer:
            channel: Any = producer.channel
            if not isinstance(channel, Channel):
                return None
            routed = kwargs["task"] if name == bundles.NAME else name
            queue = app.amqp.router.route({}, routed, (), kwargs)["queue"]
            if self._sender is None:
                self._sender = Sender(channel.connection_parameters)
            return Template.of(app, channel, name, queue, **more)

    def _has_fixed_route(self, name: Any) -> bool:
        """Return True if all jobs of a task go to one queue, whatever their arguments."""
        for route in self._app.amqp.router.routes or ():
            if not isinstance(route, MapRoute):
                return False
            if found := route(name):
                return found.keys() == {"queue"}
        return True  # the default queue

    def _template(
        self, name: str, options: Mapping[str, Any], kwargs: Any = None, *, is_worker: bool = False
    ) -> Template | None:
        options = self._with_task_options(name, options, kwargs)
        key = key_of(name, options, kwargs)
        may_send = key and self._may_send(options, is_worker=is_worker)
        return self._templates.get(key) if key and may_send else None

    def _with_task_options(
        self, name: str, options: Mapping[str, Any], kwargs: Any = None
    ) -> Mapping[str, Any]:
        """Return options with those of the task itself, as Celery's `send_task` adds them."""
        is_bundle = name == bundles.NAME
        name = kwargs["task"] if is_bundle else name
        task = self._app._tasks.get(name)  # noqa: SLF001 - without finalizing the app
        if task is None or options.get("task_type"):
            return options
        own = {key: value for key, value in task._get_exec_options().items() if value is not None}  # noqa: SLF001
        for each in _OF_CALLS if is_bundle else ():
            own.pop(each, None)
        return {**own, **options}

    def _may_send(self, options: Mapping[str, Any], *, is_worker: bool = False) -> bool:
        app = self._app
        if (
            self._process != os.getpid()
            or self._settings != app.conf.changes
            or self._router is not app.amqp.router
        ):
            self._reset()
        if signals.task_sent.receivers:
            return False
        if not is_worker and _celery.get_current_worker_task():
            return False
        return _PLAIN.issuperset(options) or all(
            value is None or name in _PLAIN or self._is_default(name, value)
            for name, value in options.items()
        )

    def _is_default(self, name: str, value: Any) -> bool:
        if name == "producer":
            return self._group is not None and value is self._group.producer
        return (name == "serializer" and value == "json") or (
            name in {"retries", "replaced_task_nesting"} and value == 0
        )

    # Messages --------------------------------------------------------------------------

    def _message(
        self, template: Template, args: Any, kwargs: Any, options: Mapping[str, Any]
    ) -> _Message | None:
        """Return a job's message; None if it is not plain, or too large."""
        job = self._jobs.make(args, kwargs, options)
        text = template.message(job) if job else None
        if job is None or text is None or len(text) > template.max_bytes:
            return None
        if not is_observed(options):
            return _Message(text)
        observed = ObservedJob(template.parts, job, options)
        text = observed.message()
        if text is None or len(text) > template.max_bytes:
            with self._app.producer_or_acquire() as producer:
                observed.publish(producer)
            text = None
        return _Message(text, observed)

    def _publish(
        self, template: Template, messages: Sequence[_Message], policy: Mapping[str, Any]
    ) -> None:
        """Publish messages; after a lost connection, retry by Celery's policy."""
        texts = [message.text for message in messages if message.text]
        self._publish_texts(template, texts, policy)
        for message in messages:
            if message.observed:
                message.observed.sent()

    def _publish_texts(
        self, template: Template, texts: Sequence[bytes], policy: Mapping[str, Any]
    ) -> None:
        for start in range(0, len(texts), PUBLISH_BATCH):
            batch = texts[start : start + PUBLISH_BATCH]
            try:
                if self._sender:
                    self._sender.publish(template.key, template.max_length, batch)
                    continue
            except QueueFull:
                raise
            except (OSError, RedisError) as error:
                logger.debug("publishing by Celery's retry policy: %s", error)
            publish_with_retries(self._app, template.key, template.max_length, batch, policy)

    def warm_up(self, queue: str) -> None:
        """Take Celery's way up to its last step: a forked process pays for each first use."""
        with self._app.producer_or_acquire() as producer:
            is_ours = isinstance(producer.channel, Channel)
            if is_ours and self._may_send({}) and not is_observed({}):
                recorder = Recorder(producer.channel, auto_declare=False)
                job = self._app.signature("celery.accumulate")
                job.apply_async(producer=recorder, ignore_result=True, queue=queue)


def _policy(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a job's options change in Celery's retry policy."""
    none = {} if options.get("retry") is not False else {"max_retries": 0}
    return {**(options.get("retry_policy") or {}), **none}
