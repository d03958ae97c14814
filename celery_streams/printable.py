r"""Untrusted text, escaped for terminals and for logs with one line per message.

Terminal escape sequences, bidirectional marks, which reorder text, and line ends, which make one
message look like several, are written as Python escapes: `\x1b`.
"""

import logging
import re
import traceback

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str, keep: str = "") -> str:
    """Return a text with unsafe characters escaped, except those in `keep`."""

    def escape(match: re.Match[str]) -> str:
        character = match[0]
        return character if character in keep else ascii(character)[1:-1]

    return _UNSAFE.sub(escape, text) if _UNSAFE.search(text) else text


class SafeLines(logging.Filter):
    """Escapes the messages and tracebacks of a handler's records."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape a record in place; line ends are kept if the format string contains one."""
        keep = "\n\t" if isinstance(record.msg, str) and "\n" in record.msg.strip() else "\t"
        # Already formatted: without arguments, the handler does not format it again.
        record.msg, record.args = printable(record.getMessage(), keep), None
        if record.exc_info and not record.exc_text:
            parts = traceback.format_exception(*record.exc_info)
            record.exc_text = "".join(map(_safe_part, parts)).rstrip("\n")
        return True


def _safe_part(part: str) -> str:
    """Escape a part of a traceback; line ends are kept in frames, but not in the error's text."""
    is_frame = part.startswith(("  ", "Traceback", "\n"))
    return printable(part, "\n\t") if is_frame else printable(part.rstrip("\n")) + "\n"


def make_logs_safe(logger: logging.Logger, **_: object) -> None:
    """Add SafeLines to a logger's handlers; connect to Celery's `after_setup_logger` signal."""
    for handler in logger.handlers:
        if not any(isinstance(each, SafeLines) for each in handler.filters):
            handler.addFilter(SafeLines())
