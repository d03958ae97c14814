"""What a worker needs of a message: that it can be processed, whose job it is, and who waits."""

from contextlib import suppress
from typing import Any

from celery.app.task import Context
from celery.exceptions import InvalidTaskError
from kombu.exceptions import ContentDisallowed, DecodeError

from celery_streams.errors import DeadLetter, Malformed
from celery_streams.transport import keys, validation
from celery_streams.transport.channel import Channel

#: Characters of a reason: an error may quote the whole message.
MAX_REASON = 1000
#: Errors whose text is enough, without their names.
_CLEAR = (ContentDisallowed, DecodeError, InvalidTaskError)


def check_message(message: Any) -> None:
    """Raise an error for a message that no worker can process, of either protocol of Celery."""
    headers = message.headers
    if "task" in headers:
        validation.check_task(headers)
    payload = message.payload
    if "task" in headers or (isinstance(payload, dict) and "task" in payload):
        validation.check_call(payload, headers)
        if _may_be_deep(message) and validation.is_deep(payload):
            raise Malformed("the task's arguments are nested too deeply")


def _may_be_deep(message: Any) -> bool:
    """Return False if a JSON body has too few brackets to be nested too deeply."""
    if message.content_type != "application/json":
        return True
    left = ("[", "{") if isinstance(message.body, str) else (b"[", b"{")
    brackets: int = sum(map(message.body.count, left))
    return brackets > validation.MAX_DEPTH


def dead_letter(message: Any, reason: str) -> None:
    """Dead-letter a message: into our stream, or by the broker's own means."""
    if queue_of(message) is None:
        message.reject()
        return
    message.channel.deliveries.dead_letter(message.delivery_tag, reason)
    message._state = "REJECTED"  # noqa: SLF001 - so that Celery does not ack it


def queue_of(message: Any) -> str | None:
    """Return the queue of a message whose dead letters are a stream of ours; None for others."""
    tag = str(message.delivery_tag)
    if not isinstance(message.channel, Channel) or not keys.is_tag(tag):
        return None
    return keys.queue_of(keys.place(tag)[0])


def failure(reason: str, queue: str | None) -> DeadLetter:
    """Return the error that the caller gets: the reason, and where the message is."""
    where = f"kept in {keys.dead(queue)}" if queue else "rejected at the broker"
    return DeadLetter(f"{reason}; its message is {where}")


def task_of(message: Any) -> dict[str, Any]:
    """Return the fields of a message's task: its headers or, in protocol 1, its body."""
    headers = message.headers if isinstance(message.headers, dict) else {}
    with suppress(Exception):  # the body may be what cannot be read
        if "task" not in headers and isinstance(message.payload, dict):
            return {**message.payload, **headers}
    return headers


def job_id_of(message: Any, error: Exception | None) -> str | None:
    """Return the id of a message's job, which may only stand in the error; None if unknown."""
    if isinstance(error, Malformed) and error.job_id:
        return error.job_id
    job_id, _ = validation.sender({"headers": task_of(message), "properties": message.properties})
    return job_id


def request_of(message: Any, job_id: str) -> Context:
    """Return Celery's request, with the chord and callbacks as far as they can be read."""
    embed: Any = {}
    with suppress(Exception):
        validation.check_call(message.payload, message.headers)
        payload = message.payload
        embed = payload if isinstance(payload, dict) else payload[2]
    request = Context(task_of(message), **(embed or {}))
    _, request.reply_to = validation.sender({"properties": message.properties})
    request.id, request.delivery_info = job_id, {}
    return request


def reason_of(error: Exception) -> str:
    """Return an error in one line."""
    if isinstance(error, Malformed):
        return error.reason
    text = str(error) if isinstance(error, _CLEAR) else f"{type(error).__name__}: {error}"
    return " ".join(f"the worker cannot read the message: {text}".split())[:MAX_REASON]
