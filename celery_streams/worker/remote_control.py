"""Celery's remote control: each command does what it says, or refuses in one sentence.

Celery's own take any argument, and run in the loop that serves the jobs: a million ids, or a
number of processes with a misprint, would hold up the worker. What is here checks first.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import wraps
from signal import Signals
from threading import Thread
from typing import Any

from celery.app.routes import MapRoute
from celery.platforms import signals as platform_signals
from celery.worker import control, state
from redis.exceptions import RedisError

from celery_streams.dead_letters import Letter
from celery_streams.transport import revocation
from celery_streams.transport.channel import Channel
from celery_streams.transport.validation import MAX_SECONDS, Malformed, check, is_name
from celery_streams.worker.pool import unkept_limits

logger = logging.getLogger(__name__)

#: Jobs of a queue that are told; there may be a million.
MOST = 1000
#: Bytes of a message whose arguments are shown as values; of a larger one, as text.
MAX_SHOWN = 64 * 1024
#: That of the timers by which Celery's workers wait for a job's time.
TIMER_PRIORITY = 6
#: Characters of a refusal that names keys.
MAX_REFUSAL = 280
#: Processes or threads of a pool.
MAX_POOL = 1000
#: Starts of a task in a second, by its rate limit.
MAX_RATE = 1_000_000

_celery: Any = control  # its type stubs leave most of it out
_panel: dict[str, Callable[..., Any]] = _celery.Panel.data
_state: Any = state
_signals: Any = platform_signals
_MapRoute: Any = MapRoute
_RATE = re.compile(r"\d{1,9}(\.\d{1,9})?(/[smh])?")
# Revoked ids are kept for as long as their jobs may come: Celery's own limit is 50,000.
_state.revoked.maxlen, _state.revoked.expires = revocation.MAX_KEPT, revocation.SECONDS


class Refused(Exception):
    """A command that is not carried out, and why, in one sentence."""


#: Checks a command's arguments, and returns those that are to be others.
_Check = Callable[..., dict[str, Any] | None]


def _checked(name: str) -> Callable[[_Check], _Check]:
    """Have a command of Celery's checked before it runs."""
    command = _panel[name]

    def decorator(check: _Check) -> _Check:
        @wraps(command)
        def checked(state: Any, **arguments: Any) -> Any:
            try:
                changed = check(state, **arguments)
            except Refused as error:
                return _celery.nok(str(error))
            return command(state, **{**arguments, **(changed or {})})

        for key in [key for key, each in _panel.items() if each is command]:
            _panel[key] = checked
        return check

    return decorator


# Revoke ------------------------------------------------------------------------------


def revoke(
    state: Any, task_id: Any = (), terminate: Any = None, signal: Any = None, **_: Any
) -> Any:
    """Revoke jobs by their ids, here and in every worker that starts later."""
    ids = [task_id] if isinstance(task_id, str) else task_id
    try:
        _check_names("ids", ids, revocation.MAX_IDS)
        number = _signal(signal)
    except Refused as error:
        return _celery.nok(str(error))
    _state.revoked.update(ids)
    active = {request.id for request in state.tset(_state.active_requests)}
    _record(state, ids, [job_id for job_id in ids if job_id not in active])
    if not terminate:
        logger.info("revoked %d jobs, %s first", len(ids), ids[0] if ids else "none")
        shown = f"{ids[:10]} and {len(ids) - 10} more" if len(ids) > 10 else f"{ids}"  # noqa: PLR2004
        return _celery.ok(f"tasks {shown} flagged as revoked")
    return _terminate(state, ids, number)


def _terminate(state: Any, ids: list[str], number: int) -> Any:
    running = [request for job_id in ids if (request := _state.requests.get(job_id))]
    try:
        for request in running:
            logger.info("terminating %s (%s)", request.id, number)
            request.terminate(state.consumer.pool, signal=number)
    except NotImplementedError:
        kind = type(state.consumer.pool).__module__.rpartition(".")[2]
        return _celery.nok(f"a {kind} pool cannot end a job that runs; it is flagged as revoked")
    if not running:
        return _celery.ok("terminate: tasks unknown")
    return _celery.ok(f"terminate: {', '.join(request.id for request in running[:10])}")


def _record(state: Any, ids: list[str], not_begun: list[str]) -> None:
    """Keep ids in Redis, and store that their jobs are revoked, outside of the event loop."""
    channel = state.consumer.task_consumer.channel
    backend = state.app.backend

    def write() -> None:
        try:
            added = ids
            if isinstance(channel, Channel):
                added = channel.record_revoked(ids)
            revocation.store(backend, sorted(set(added) & set(not_begun)))
        except (OSError, RedisError) as error:
            logger.error("revoked here, but not kept for other workers: %s", error)  # noqa: TRY400

    Thread(target=write, name="revoke", daemon=True).start()


def _signal(signal: Any) -> int:
    try:
        return int(Signals(_signals.signum(signal or "TERM")))
    except (AttributeError, TypeError, ValueError):
        raise Refused(f"there is no signal {_brief(signal)}") from None


_celery.control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")(revoke)


def terminate(state: Any, signal: Any = None, task_id: Any = (), **_: Any) -> Any:
    """Revoke jobs by their ids, and end those that run."""
    return revoke(state, task_id, terminate=True, signal=signal)


_celery.control_command(
    variadic="task_id", args=[("signal", str)], signature="<signal> [id1 [id2 [... [idN]]]]"
)(terminate)


@_checked("revoke_by_stamped_headers")
def _check_stamps(
    state: Any, headers: Any, terminate: Any = None, signal: Any = None, **_: Any
) -> dict[str, Any]:
    _signal(signal)
    if isinstance(headers, list):  # as the command line has them
        _check_names("headers", headers, MOST)
        if not all("=" in header for header in headers):
            raise Refused("headers must be written as name=value")
        named: dict[str, Any] = {}
        for name, _, value in (header.partition("=") for header in headers):
            named.setdefault(name, []).append(value)
        headers = named
    if not isinstance(headers, Mapping):
        raise Refused("headers must be a mapping of names to stamps")
    stamps = [each for value in headers.values() for each in _as_list(value)]
    _check_names("headers", [*headers, *stamps], MOST)
    kept = sum(map(len, map(_as_list, _state.revoked_stamps.values())))
    if kept + len(stamps) > revocation.MAX_IDS:
        raise Refused(f"this worker keeps {kept} stamps, and takes {revocation.MAX_IDS}")
    return {"headers": headers}


# Limits ------------------------------------------------------------------------------


@_checked("rate_limit")
def _check_rate_limit(
    state: Any, task_name: Any, rate_limit: Any, **_: Any
) -> dict[str, Any] | None:
    _check_task(state, task_name)
    if isinstance(rate_limit, str):
        is_rate = not rate_limit or (
            _RATE.fullmatch(rate_limit) and float(rate_limit.partition("/")[0]) <= MAX_RATE
        )
    else:
        is_rate = rate_limit is None or _is_number(rate_limit, MAX_RATE, least=0)
    if not is_rate:
        raise Refused(f"a rate limit is written as 10/s, 5/m or 100/h, not {_brief(rate_limit)}")
    if isinstance(rate_limit, str) and rate_limit and not float(rate_limit.partition("/")[0]):
        return {"rate_limit": None}  # Celery's, too, knows no such limit, but says it is set
    return None


@_checked("time_limit")
def _check_time_limit(
    state: Any, task_name: Any = None, hard: Any = None, soft: Any = None, **_: Any
) -> None:
    _check_task(state, task_name)
    for limit in (hard, soft):
        if limit is not None and not _is_number(limit, MAX_SECONDS):
            raise Refused(f"a time limit is a number of seconds, not {_brief(limit)}")
    if not state.consumer.is_inline(task_name):
        for limit, kind in ((hard, "hard"), (soft, "soft")):
            if limit is not None and kind in unkept_limits(state.consumer.pool):
                raise Refused(f"this worker's pool keeps no {kind} time limits; prefork does")
    # Celery notes a task's limits when it connects, and does not look again.
    state.consumer.call_soon(state.consumer.refresh_limits)


# The pool ----------------------------------------------------------------------------


@_checked("pool_grow")
def _check_pool_grow(state: Any, n: Any = 1, **_: Any) -> None:
    now = _size(state.consumer.pool)
    if not _is_number(n, MAX_POOL, kinds=(int,)) or now + n > MAX_POOL:
        raise Refused(f"a pool of {now} cannot grow by {_brief(n)}: it takes up to {MAX_POOL}")


@_checked("pool_shrink")
def _check_pool_shrink(state: Any, n: Any = 1, **_: Any) -> None:
    now = _size(state.consumer.pool)
    if not _is_number(n, MAX_POOL, kinds=(int,)) or n >= now:
        raise Refused(f"a pool of {now} cannot shrink by {_brief(n)}: one has to be left")


def _size(pool: Any) -> int:
    """Return how many processes a pool has; raises Refused for one that never has another."""
    if not hasattr(pool, "grow"):
        raise Refused("this worker's pool cannot grow or shrink; prefork can")
    return int(pool.num_processes)


@_checked("autoscale")
def _check_autoscale(state: Any, max: Any = None, min: Any = None, **_: Any) -> None:  # noqa: A002 - Celery's
    scaler = state.consumer.controller.autoscaler
    if not scaler:
        raise Refused("this worker does not scale its pool: it was started without --autoscale")
    for number, least in ((max, 1), (min, 0)):
        if number is not None and not _is_number(number, MAX_POOL, least=least, kinds=(int,)):
            raise Refused(f"a pool has from {least} to {MAX_POOL} processes, not {_brief(number)}")
    most = scaler.max_concurrency if max is None else max
    least = scaler.min_concurrency if min is None else min
    if least > most:
        raise Refused(f"the least, {least}, is more than the most, {most}")


@_checked("pool_restart")
def _check_pool_restart(state: Any, modules: Any = None, **_: Any) -> None:
    if not state.app.conf.worker_pool_restarts:
        raise Refused("pools are not restarted here: worker_pool_restarts is off")
    _check_names("modules", modules or [], MOST)


# Queues ------------------------------------------------------------------------------


@_checked("add_consumer")
def _check_add_consumer(
    state: Any,
    queue: Any,
    exchange: Any = None,
    exchange_type: Any = None,
    routing_key: Any = None,
    **options: Any,
) -> None:
    """Refuse a queue whose jobs this worker cannot do: they would become dead letters."""
    _check_names("queue", [queue], 1)
    _check_names("exchange", [each for each in (exchange, routing_key) if each is not None], 2)
    if exchange_type not in {None, "direct", "topic", "fanout"} or options:
        raise Refused("a queue is given by its name, exchange, type and routing key alone")
    amqp = state.app.amqp
    is_known = queue in amqp.queues or queue in _configured(state.app)
    if not is_known and not state.app.conf.task_create_missing_queues:
        raise Refused(f"there is no queue {_brief(queue)}")
    if not may_consume(amqp.router.routes, queue, state.app.tasks):
        raise Refused(f"this worker has no task of the queue {_brief(queue)}")
    channel = state.consumer.task_consumer.channel
    if isinstance(channel, Channel) and (found := channel.queues.foreign_keys(queue)):
        raise Refused(f"{_brief(queue)} cannot be a queue: {', '.join(found)}"[:MAX_REFUSAL])


def may_consume(routes: Any, queue: str, tasks: Iterable[str]) -> bool:
    """Return True if a queue is that of one of the tasks, or no route leads to it."""
    maps = [route for route in routes or () if isinstance(route, _MapRoute)]
    targets = [each for route in maps for each in (*route.map.values(), *route.patterns.values())]
    if queue not in map(_target, targets):
        return True
    return any(_target(route(name)) == queue for route in maps for name in tasks)


def _target(target: Any) -> str:
    """Return the queue that a route leads to; it may be given by its name alone."""
    return _name_of(target.get("queue") if isinstance(target, Mapping) else target)


def _configured(app: Any) -> set[str]:
    return {_name_of(queue) for queue in app.conf.task_queues or ()}


def _name_of(queue: Any) -> str:
    return str(getattr(queue, "name", queue))


@_checked("cancel_consumer")
def _check_cancel_consumer(state: Any, queue: Any, **_: Any) -> None:
    _check_names("queue", [queue], 1)
    if not state.consumer.task_consumer.consuming_from(queue):
        raise Refused(f"this worker does not consume from {_brief(queue)}")


# What is asked -----------------------------------------------------------------------


@_checked("query_task")
def _check_query_task(state: Any, ids: Any, **_: Any) -> None:
    _check_names("ids", [ids] if isinstance(ids, str) else ids, revocation.MAX_IDS)


@_checked("registered")
def _check_registered(state: Any, taskinfoitems: Any = None, **_: Any) -> None:
    _check_names("taskinfoitems", taskinfoitems or [], MOST)


@_checked("hello")
def _check_hello(state: Any, from_node: Any, revoked: Any = None, **_: Any) -> None:
    _check_names("from_node", [from_node], 1)
    _check_names("revoked", list(revoked or ()), _state.revoked.maxlen)


@_checked("election")
def _check_election(state: Any, id: Any, topic: Any, action: Any = None, **_: Any) -> None:  # noqa: A002 - Celery's
    _check_names("id and topic", [id, topic], 2)
    if not hasattr(state.consumer.gossip, "dispatcher"):
        raise Refused("this worker holds no elections: it runs without gossip")
    if action is not None and not isinstance(action, Mapping):
        raise Refused("the action must be a task's signature")


def revoked_ids(state: Any, **_: Any) -> list[str]:
    """List revoked task-ids: the latest, for there may be more than one answer takes."""
    return list(_state.revoked)[-revocation.MAX_IDS :]


_celery.inspect_command(name="revoked", alias="dump_revoked")(revoked_ids)


# It draws a graph of all objects, in the loop that serves the jobs.
_panel.pop("objgraph", None)
_celery.Panel.meta.pop("objgraph", None)


_scheduled_here = _panel["scheduled"]


def scheduled(state: Any, **options: Any) -> list[dict[str, Any]]:
    """List ETA and countdown tasks: those this worker holds, and its queues' in Redis."""
    channel = getattr(state.consumer.task_consumer, "channel", None)
    delayed: list[tuple[float, bytes]] = []
    if isinstance(channel, Channel):
        for queue in channel.durable_queues():
            delayed += channel.queues.delayed(queue, MOST)
    told = (_scheduled(due, message, state.hostname) for due, message in delayed)
    return [*_scheduled_here(state, **options), *filter(None, told)]


def _scheduled(due: float, message: bytes, hostname: str) -> dict[str, Any] | None:
    """Return what Celery tells of a scheduled request; None for a message that is not a task."""
    letter = Letter("", "", message, "", "", "")
    headers, properties = letter.envelope.get("headers"), letter.envelope.get("properties")
    try:
        check(message)
        if not isinstance(headers, dict) or not isinstance(properties, dict):
            return None
        body = letter.body if len(message) <= MAX_SHOWN else None
        shown = headers.get("argsrepr"), headers.get("kwargsrepr")
        args, kwargs = body[:2] if isinstance(body, list) and len(body) > 1 else shown
    except Malformed:  # a dead letter when its time has come
        return None
    delivery_info = properties["delivery_info"]
    return {
        "eta": _time(due),
        "priority": TIMER_PRIORITY,
        "request": {
            "id": letter.job_id,
            "name": letter.task,
            "args": args,
            "kwargs": kwargs,
            "type": letter.task,
            "hostname": hostname,
            "time_start": None,
            "acknowledged": False,
            "delivery_info": {
                "exchange": delivery_info.get("exchange"),
                "routing_key": delivery_info.get("routing_key"),
                "priority": properties.get("priority"),
                "redelivered": False,
            },
            "worker_pid": None,
        },
    }


def _time(due: float) -> str | None:
    """Return a time by ISO 8601; None for one that no calendar has."""
    try:
        return datetime.fromtimestamp(due, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return None


_celery.inspect_command(alias="dump_schedule")(scheduled)


def _check_task(state: Any, name: Any) -> None:
    _check_names("task_name", [name], 1)
    if name not in state.app.tasks:
        raise Refused("unknown task")


# Checks ------------------------------------------------------------------------------


def _check_names(what: str, names: Any, most: int) -> None:
    if not isinstance(names, list | tuple):
        raise Refused(f"{what} must be a list of texts")
    if len(names) > most:
        raise Refused(f"{what}: a command takes up to {most}, not {len(names)}")
    if not all(name and is_name(name) for name in names):
        raise Refused(f"{what} must be texts of bounded length")


def _is_number(
    value: Any, most: float, *, least: float = 1e-9, kinds: tuple[type, ...] = (int, float)
) -> bool:
    return type(value) in kinds and least <= value <= most


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | set) else [value]


def _brief(value: Any) -> str:
    return ascii(value)[:80]
