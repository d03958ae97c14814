"""Checks of the arguments of Celery's remote control commands.

Celery accepts any argument, and runs commands in the event loop that serves the jobs: a million
ids, or a mistyped number of processes, would block the worker.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

from celery.app.routes import MapRoute
from celery.worker import control, state

from celery_streams.transport import revocation
from celery_streams.transport.channel import Channel
from celery_streams.transport.validation import MAX_SECONDS
from celery_streams.worker.arguments import Refused, brief, check_names, is_number, signal_number
from celery_streams.worker.other_pools import unenforced_limits

#: Length limit of a refusal that names keys, in characters.
MAX_REFUSAL = 280
#: Limit on the processes or threads of a pool.
MAX_POOL = 1000
#: Limit on a task's rate, in starts per second, minute or hour.
MAX_RATE = 1_000_000

_celery: Any = control  # its type stubs leave most of it out
_state: Any = state
_MapRoute: Any = MapRoute
_RATE = re.compile(r"\d{1,9}(\.\d{1,9})?(/[smh])?")


#: Raises Refused for invalid arguments, and returns those to replace.
_Check = Callable[..., dict[str, Any] | None]


_checks: dict[str, _Check] = {}


def _checked(name: str) -> Callable[[_Check], _Check]:
    """Register a check of one of Celery's commands."""

    def decorator(check: _Check) -> _Check:
        _checks[name] = check
        return check

    return decorator


def install() -> None:
    """Make Celery's commands, under all of their names, run their checks first."""
    commands = _celery.Panel.data
    for name, check in _checks.items():
        command = commands[name]
        checked = _with_check(command, check)
        for key in [key for key, each in commands.items() if each is command]:
            commands[key] = checked


def _with_check(command: Callable[..., Any], check: _Check) -> Callable[..., Any]:
    @wraps(command)
    def checked(state: Any, **arguments: Any) -> Any:
        try:
            changed = check(state, **arguments)
        except Refused as error:
            return _celery.nok(str(error))
        return command(state, **{**arguments, **(changed or {})})

    return checked


@_checked("revoke_by_stamped_headers")
def _check_stamps(
    state: Any, headers: Any, terminate: Any = None, signal: Any = None, **_: Any
) -> dict[str, Any]:
    signal_number(signal)
    if isinstance(headers, list):  # from the command line
        check_names("headers", headers)
        if not all("=" in header for header in headers):
            raise Refused("headers must be written as name=value")
        named: dict[str, Any] = {}
        for name, _, value in (header.partition("=") for header in headers):
            named.setdefault(name, []).append(value)
        headers = named
    if not isinstance(headers, Mapping):
        raise Refused("headers must be a mapping of names to stamps")
    stamps = [each for value in headers.values() for each in _as_list(value)]
    check_names("headers", [*headers, *stamps])
    kept = sum(map(len, map(_as_list, _state.revoked_stamps.values())))
    if kept + len(stamps) > revocation.MAX_IDS:
        raise Refused(f"this worker has {kept} revoked stamps of {revocation.MAX_IDS} allowed")
    return {"headers": headers}


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | set) else [value]


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
        is_rate = rate_limit is None or is_number(rate_limit, MAX_RATE, minimum=0)
    if not is_rate:
        raise Refused(f"a rate limit is written as 10/s, 5/m or 100/h, not {brief(rate_limit)}")
    if isinstance(rate_limit, str) and rate_limit and not float(rate_limit.partition("/")[0]):
        # Celery's limiter takes "0/s" as no limit, but its reply would say that one is set.
        return {"rate_limit": None}
    return None


@_checked("time_limit")
def _check_time_limit(
    state: Any, task_name: Any = None, hard: Any = None, soft: Any = None, **_: Any
) -> None:
    _check_task(state, task_name)
    for limit in (hard, soft):
        if limit is not None and not is_number(limit, MAX_SECONDS):
            raise Refused(f"a time limit is a number of seconds, not {brief(limit)}")
    for limit, kind in ((hard, "hard"), (soft, "soft")):
        if limit is not None and kind in unenforced_limits(state.consumer.pool):
            raise Refused(f"this worker's pool ignores {kind} time limits; prefork does not")
    # Celery reads a task's limits only when it connects.
    state.consumer.call_soon(state.consumer.refresh_limits)


def _check_task(state: Any, name: Any) -> None:
    check_names("task_name", [name], 1)
    if name not in state.app.tasks:
        raise Refused("unknown task")


# The pool ----------------------------------------------------------------------------


@_checked("pool_grow")
def _check_pool_grow(state: Any, n: Any = 1, **_: Any) -> None:
    size = _pool_size(state.consumer.pool)
    if not is_number(n, MAX_POOL, kinds=(int,)) or size + n > MAX_POOL:
        raise Refused(f"a pool of {size} cannot grow by {brief(n)}: the limit is {MAX_POOL}")


@_checked("pool_shrink")
def _check_pool_shrink(state: Any, n: Any = 1, **_: Any) -> None:
    size = _pool_size(state.consumer.pool)
    if not is_number(n, MAX_POOL, kinds=(int,)) or n >= size:
        raise Refused(f"a pool of {size} cannot shrink by {brief(n)}: one process must remain")


def _pool_size(pool: Any) -> int:
    """Return the number of a pool's processes; raises Refused if it is fixed."""
    if not hasattr(pool, "grow"):
        raise Refused("this worker's pool cannot grow or shrink; prefork can")
    return int(pool.num_processes)


@_checked("autoscale")
def _check_autoscale(state: Any, max: Any = None, min: Any = None, **_: Any) -> None:  # noqa: A002 - Celery's
    scaler = state.consumer.controller.autoscaler
    if not scaler:
        raise Refused("this worker does not scale its pool: it was started without --autoscale")
    for number, lowest in ((max, 1), (min, 0)):
        if number is not None and not is_number(number, MAX_POOL, minimum=lowest, kinds=(int,)):
            raise Refused(f"a pool has {lowest} to {MAX_POOL} processes, not {brief(number)}")
    maximum = scaler.max_concurrency if max is None else max
    minimum = scaler.min_concurrency if min is None else min
    if minimum > maximum:
        raise Refused(f"the minimum, {minimum}, is greater than the maximum, {maximum}")


@_checked("pool_restart")
def _check_pool_restart(state: Any, modules: Any = None, **_: Any) -> None:
    if not state.app.conf.worker_pool_restarts:
        raise Refused("this worker does not restart its pool: worker_pool_restarts is off")
    check_names("modules", modules or [])


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
    """Refuse a queue of other workers' tasks: its jobs would be dead-lettered here."""
    check_names("queue", [queue], 1)
    check_names("exchange", [each for each in (exchange, routing_key) if each is not None], 2)
    if exchange_type not in {None, "direct", "topic", "fanout"} or options:
        raise Refused("a queue can have only an exchange, an exchange type and a routing key")
    amqp = state.app.amqp
    is_known = queue in amqp.queues or queue in _configured(state.app)
    if not is_known and not state.app.conf.task_create_missing_queues:
        raise Refused(f"there is no queue {brief(queue)}")
    if not may_consume(amqp.router.routes, queue, state.app.tasks):
        raise Refused(f"this worker has no task of the queue {brief(queue)}")
    channel = state.consumer.task_consumer.channel
    if isinstance(channel, Channel) and (found := channel.queues.foreign_keys(queue)):
        raise Refused(f"{brief(queue)} cannot be a queue: {', '.join(found)}"[:MAX_REFUSAL])


def may_consume(routes: Any, queue: str, tasks: Iterable[str]) -> bool:
    """Return True if one of `tasks` is routed to `queue`, or no task at all is."""
    maps = [route for route in routes or () if isinstance(route, _MapRoute)]
    targets = [each for route in maps for each in (*route.map.values(), *route.patterns.values())]
    if queue not in map(_target, targets):
        return True
    return any(_target(route(name)) == queue for route in maps for name in tasks)


def _target(target: Any) -> str:
    """Return the name of a route's queue; the route may be the name or a mapping."""
    return _name_of(target.get("queue") if isinstance(target, Mapping) else target)


def _configured(app: Any) -> set[str]:
    return {_name_of(queue) for queue in app.conf.task_queues or ()}


def _name_of(queue: Any) -> str:
    return str(getattr(queue, "name", queue))


@_checked("cancel_consumer")
def _check_cancel_consumer(state: Any, queue: Any, **_: Any) -> None:
    check_names("queue", [queue], 1)
    if not state.consumer.task_consumer.consuming_from(queue):
        raise Refused(f"this worker does not consume from {brief(queue)}")


# Queries and other workers -----------------------------------------------------------


@_checked("query_task")
def _check_query_task(state: Any, ids: Any, **_: Any) -> None:
    check_names("ids", [ids] if isinstance(ids, str) else ids, revocation.MAX_IDS)


@_checked("registered")
def _check_registered(state: Any, taskinfoitems: Any = None, **_: Any) -> None:
    check_names("taskinfoitems", taskinfoitems or [])


@_checked("hello")
def _check_hello(state: Any, from_node: Any, revoked: Any = None, **_: Any) -> None:
    check_names("from_node", [from_node], 1)
    check_names("revoked", list(revoked or ()), _state.revoked.maxlen)


@_checked("election")
def _check_election(state: Any, id: Any, topic: Any, action: Any = None, **_: Any) -> None:  # noqa: A002 - Celery's
    check_names("id and topic", [id, topic], 2)
    if not hasattr(state.consumer.gossip, "dispatcher"):
        raise Refused("this worker does not take part in elections: it runs without gossip")
    if action is not None and not isinstance(action, Mapping):
        raise Refused("the action must be a task's signature")
