"""Kombu's mailbox of a worker, for messages of which any field may be anything."""

import logging
from collections.abc import Mapping
from inspect import signature
from typing import Any

from kombu import pidbox
from kombu.exceptions import EncodeError, KombuError

from celery_streams.errors import MessageTooLarge
from celery_streams.transport.validation import MAX_NUMBER, is_name

logger = logging.getLogger(__name__)

#: Characters of a pattern of host names.
MAX_PATTERN = 256


class Node(pidbox.Node):
    """A worker's end of remote control; refuses what is no command in one log line."""

    def handle_message(self, body: Any, message: Any = None) -> Any:
        """Run a command that is meant for this worker."""
        wrong = what_is_wrong(body)
        if wrong is None and body["method"] not in (self.handlers or {}):
            wrong = f"there is no command {ascii(body['method'])[:80]}"
        if wrong:
            logger.warning("refused a command of remote control: %s", wrong)
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
        """Run a command, and answer whoever asks for it; an error is an answer, too."""
        told = self._told(method, arguments or {})
        if reply_to:
            self._answer(told, reply_to["exchange"], reply_to["routing_key"], ticket)
        return told

    def _told(self, method: str, arguments: Mapping[str, Any]) -> Any:
        try:
            signature((self.handlers or {})[method]).bind(self.state, **arguments)
        except TypeError:
            return {"error": f"{method} does not take these arguments"}
        try:
            return self.handle(method, dict(arguments))
        except Exception as error:  # noqa: BLE001 - commands may be anybody's
            logger.warning("the command %s of remote control failed: %r", method, error)
            return {"error": repr(error)}

    def _answer(self, told: Any, exchange: str, key: str, ticket: str | None) -> None:
        try:
            self.reply({self.hostname: told}, exchange, key, ticket)
        except (EncodeError, MessageTooLarge) as error:
            told = {"error": f"the answer cannot be sent: {error}"}
            self.reply({self.hostname: told}, exchange, key, ticket)


def ignore_malformed(gossip: Any) -> None:
    """Have Celery's gossip ignore events that no worker sends: by one, its worker would end."""
    handle = gossip.on_message

    def on_message(prepare: Any, message: Any) -> None:
        try:
            handle(prepare, message)
        except (AttributeError, KombuError, LookupError, TypeError, ValueError) as error:
            logger.warning("ignored a malformed event of another worker: %r", error)

    gossip.on_message = on_message


def what_is_wrong(body: Any) -> str | None:
    """Return in one sentence why a message is no command; None if it is one."""
    if not isinstance(body, Mapping):
        return "it is no mapping"
    if not body.keys() <= _FIELDS:
        return "it has fields that no command has"
    if not is_name(body.get("method")):
        return "its method is no name"
    if not isinstance(body.get("arguments") or {}, Mapping):
        return "its arguments are no mapping"
    destination = body.get("destination") or []
    if not isinstance(destination, list | tuple) or not all(map(is_name, destination)):
        return "its destination is no list of host names"
    pattern = body.get("pattern")
    if pattern is not None and not (is_name(pattern) and len(pattern) <= MAX_PATTERN):
        return f"its pattern is no text of up to {MAX_PATTERN} characters"
    # A regular expression can take for ever.
    if body.get("matcher") not in (None, "glob"):
        return "its matcher is not glob"
    reply_to = body.get("reply_to")
    if reply_to and not (
        isinstance(reply_to, Mapping)
        and is_name(reply_to.get("exchange"))
        and is_name(reply_to.get("routing_key"))
    ):
        return "its reply_to names no exchange and routing key"
    ticket = body.get("ticket")
    return None if ticket is None or is_name(ticket) else "its ticket is no name"


_FIELDS = {"method", "arguments", "destination", "pattern", "matcher", "reply_to", "ticket"}


def _is_clock(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < MAX_NUMBER**2)
