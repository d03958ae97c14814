"""A worker's mailbox for remote control, hardened against malformed messages."""

import logging
from collections.abc import Mapping
from inspect import signature
from typing import Any

from kombu import pidbox
from kombu.exceptions import EncodeError, KombuError

from celery_streams.errors import MessageTooLarge
from celery_streams.transport.validation import MAX_NUMBER, is_name
from celery_streams.worker.pool import TaskPool

logger = logging.getLogger(__name__)

#: Commands that a pool's processes repeat.
_REPEATED = frozenset(
    {
        *("rate_limit", "time_limit", "add_consumer", "cancel_consumer"),
        *("enable_events", "disable_events", "revoke_by_stamped_headers"),
    }
)

#: Length limit of a host name pattern, in characters.
MAX_PATTERN = 256


class Node(pidbox.Node):
    """Kombu's mailbox node; logs a malformed command in one line and ignores it."""

    def handle_message(self, body: Any, message: Any = None) -> Any:
        """Run a command that is addressed to this worker."""
        fault = _fault(body)
        if fault is None and body["method"] not in (self.handlers or {}):
            fault = f"there is no command {ascii(body['method'])[:80]}"
        if fault:
            logger.warning("refused a remote control command: %s", fault)
            return None
        if message and not _is_clock(message.headers.get("clock")):
            message.headers["clock"] = 0
        return super().handle_message(body, message)

    def dispatch(
        self,
        method: str,
        arguments: Any = None,
        reply_to: Any = None,
        ticket: str | None = None,
        **_: Any,
    ) -> Any:
        """Run a command, send its result or error to `reply_to` if given, and return it."""
        answer = self._run(method, arguments or {})
        if reply_to:
            self._reply(answer, reply_to["exchange"], reply_to["routing_key"], ticket)
        return answer

    def _run(self, method: str, arguments: Mapping[str, Any]) -> Any:
        try:
            signature((self.handlers or {})[method]).bind(self.state, **arguments)
        except TypeError:
            return {"error": f"{method} does not take these arguments"}
        consumer: Any = self.state and self.state.consumer
        try:
            consumer.refresh_running()
            answer = self.handle(method, dict(arguments))
        except Exception as error:  # noqa: BLE001 - applications can define commands
            logger.warning("the remote control command %s failed: %r", method, error)
            return {"error": repr(error)}
        if method in _REPEATED and isinstance(consumer.pool, TaskPool) and "error" not in answer:
            consumer.pool.scoreboard.repeat(method, dict(arguments))
        return answer

    def _reply(self, answer: Any, exchange: str, key: str, ticket: str | None) -> None:
        try:
            self.reply({self.hostname: answer}, exchange, key, ticket)
        except (EncodeError, MessageTooLarge) as error:
            answer = {"error": f"the reply cannot be sent: {error}"}
            self.reply({self.hostname: answer}, exchange, key, ticket)


def ignore_malformed(gossip: Any) -> None:
    """Make Celery's gossip ignore malformed events, which would end the worker."""
    handle = gossip.on_message

    def on_message(prepare: Any, message: Any) -> None:
        try:
            handle(prepare, message)
        except (AttributeError, KombuError, LookupError, TypeError, ValueError) as error:
            logger.warning("ignored a malformed gossip event: %r", error)

    gossip.on_message = on_message


def _fault(body: Any) -> str | None:
    """Return in one sentence why a message is not a command; None if it is one."""
    if not isinstance(body, Mapping):
        return "it is not a mapping"
    if not body.keys() <= _FIELDS:
        return "it has unknown fields"
    if not is_name(body.get("method")):
        return "its method is not a name"
    if not isinstance(body.get("arguments") or {}, Mapping):
        return "its arguments are not a mapping"
    destination = body.get("destination") or []
    if not isinstance(destination, list | tuple) or not all(map(is_name, destination)):
        return "its destination is not a list of host names"
    pattern = body.get("pattern")
    if pattern is not None and not (is_name(pattern) and len(pattern) <= MAX_PATTERN):
        return f"its pattern is not a string of at most {MAX_PATTERN} characters"
    # Matching a regular expression can take exponential time.
    if body.get("matcher") not in (None, "glob"):
        return "its matcher is not glob"
    reply_to = body.get("reply_to")
    if reply_to and not (
        isinstance(reply_to, Mapping)
        and is_name(reply_to.get("exchange"))
        and is_name(reply_to.get("routing_key"))
    ):
        return "its reply_to lacks an exchange or a routing key"
    ticket = body.get("ticket")
    return None if ticket is None or is_name(ticket) else "its ticket is not a name"


_FIELDS = {"method", "arguments", "destination", "pattern", "matcher", "reply_to", "ticket"}


def _is_clock(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < MAX_NUMBER**2)
