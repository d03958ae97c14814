"""Celery's remote control commands that have to reach beyond one worker."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Thread
from typing import Any

from celery.worker import control, state
from redis.exceptions import RedisError

from celery_streams.dead_letters import Letter
from celery_streams.errors import Malformed
from celery_streams.transport import revocation
from celery_streams.transport.channel import Channel
from celery_streams.transport.validation import check
from celery_streams.worker.arguments import Refused, check_names, signal_number
from celery_streams.worker.pool import TaskPool

logger = logging.getLogger(__name__)

#: Limit on the delayed jobs that `scheduled` lists for a queue, which may hold a million.
MAX_SCHEDULED = 1000
#: Size up to which a message's body is decoded to show its arguments, in bytes; those of a larger
#: message are shown as its headers have them, as text.
MAX_DECODED = 64 * 1024
#: Priority of the timers with which Celery's workers delay jobs.
TIMER_PRIORITY = 6

_celery: Any = control  # its type stubs leave most of it out
_panel: dict[str, Callable[..., Any]] = _celery.Panel.data
_state: Any = state


def revoke(
    state: Any, task_id: Any = (), terminate: Any = None, signal: Any = None, **_: Any
) -> Any:
    """Revoke jobs by their ids, here and in every worker that starts later."""
    ids = [task_id] if isinstance(task_id, str) else task_id
    try:
        check_names("ids", ids, revocation.MAX_IDS)
        number = signal_number(signal)
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
        return _celery.nok(f"a {kind} pool cannot terminate jobs; they are flagged as revoked")
    if not running:
        return _celery.ok("terminate: tasks unknown")
    return _celery.ok(f"terminate: {', '.join(request.id for request in running[:10])}")


def _record(state: Any, ids: list[str], not_started: list[str]) -> None:
    """Record revoked ids in Redis and store the jobs' state REVOKED, outside of the event loop."""
    channel = state.consumer.task_consumer.channel
    backend = state.app.backend

    def write() -> None:
        try:
            added = ids
            if isinstance(channel, Channel):
                added = channel.record_revoked(ids)
            revocation.store(backend, sorted(set(added) & set(not_started)))
            if isinstance(pool := state.consumer.pool, TaskPool):
                pool.scoreboard.note_revoked()
        except (OSError, RedisError) as error:
            logger.error("revoked here, but not recorded for other workers: %s", error)  # noqa: TRY400

    Thread(target=write, name="revoke", daemon=True).start()


def terminate(state: Any, signal: Any = None, task_id: Any = (), **_: Any) -> Any:
    """Revoke jobs by their ids, and terminate those that run."""
    return revoke(state, task_id, terminate=True, signal=signal)


def revoked_ids(state: Any, **_: Any) -> list[str]:
    """List revoked task-ids: the latest, as many as fit in one reply."""
    return list(_state.revoked)[-revocation.MAX_IDS :]


#: Celery's command, which lists what this worker holds.
_scheduled_here: Callable[..., list[Any]] = _panel["scheduled"]


def scheduled(state: Any, **options: Any) -> list[dict[str, Any]]:
    """List ETA and countdown tasks: those this worker holds, and its queues' in Redis."""
    channel = getattr(state.consumer.task_consumer, "channel", None)
    delayed: list[tuple[float, bytes]] = []
    if isinstance(channel, Channel):
        for queue in channel.durable_queues():
            delayed += channel.queues.delayed(queue, MAX_SCHEDULED)
    entries = (_scheduled_entry(due, message, state.hostname) for due, message in delayed)
    return [*_scheduled_here(state, **options), *filter(None, entries)]


def _scheduled_entry(due: float, message: bytes, hostname: str) -> dict[str, Any] | None:
    """Return a delayed job as Celery's `scheduled` lists it; None if the message is malformed."""
    letter = Letter("", "", message, "", "", "")
    headers, properties = letter.envelope.get("headers"), letter.envelope.get("properties")
    try:
        check(message)
        if not isinstance(headers, dict) or not isinstance(properties, dict):
            return None
        body = letter.body if len(message) <= MAX_DECODED else None
        texts = headers.get("argsrepr"), headers.get("kwargsrepr")
        args, kwargs = body[:2] if isinstance(body, list) and len(body) > 1 else texts
    except Malformed:  # dead-lettered when it is due
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
    """Return a timestamp in ISO 8601; None if it is out of range."""
    try:
        return datetime.fromtimestamp(due, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return None


def install() -> None:
    """Replace Celery's commands."""
    # Keep revoked ids as long as their jobs may be delivered. Celery's limit is 50,000 ids.
    _state.revoked.maxlen, _state.revoked.expires = revocation.MAX_REVOKED, revocation.RETENTION
    ids = "[id1 [id2 [... [idN]]]]"
    _celery.control_command(variadic="task_id", signature=ids)(revoke)
    _celery.control_command(
        variadic="task_id", args=[("signal", str)], signature=f"<signal> {ids}"
    )(terminate)
    _celery.inspect_command(name="revoked", alias="dump_revoked")(revoked_ids)
    _celery.inspect_command(alias="dump_schedule")(scheduled)
    # It draws a graph of all objects, and blocks the worker's event loop meanwhile.
    _panel.pop("objgraph", None)
    _celery.Panel.meta.pop("objgraph", None)
