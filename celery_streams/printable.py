r"""Text from outside, made safe for a terminal and for a log of one line a message.

What a terminal obeys (escape sequences), what reorders text (bidirectional marks), and line ends,
by which one message can pass for several, are shown as Python writes them: `\x1b`.
"""

import logging
import re
import traceback

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str, keep: str = "") -> str:
    """Return a text with all that is unsafe written out, but for the characters to keep."""

    def written_out(match: re.Match[str]) -> str:
        character = match[0]
        return character if character in keep else ascii(character)[1:-1]

    return _UNSAFE.sub(written_out, text) if _UNSAFE.search(text) else text


class SafeLines(logging.Filter):
    """Makes the messages of a handler safe, those of tracebacks too."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Write out what is unsafe in a record; a line end only where its format has none."""
        keep = "\n\t" if isinstance(record.msg, str) and "\n" in record.msg.strip() else "\t"
        # Formatted once: the formatter finds no arguments any more.
        record.msg, record.args = printable(record.getMessage(), keep), None
        if record.exc_info and not record.exc_text:
            parts = traceback.format_exception(*record.exc_info)
            record.exc_text = "".join(map(_safe_part, parts)).rstrip("\n")
        return True


def _safe_part(part: str) -> str:
    """Return a part of a traceback: its frames have lines, its error is one."""
    is_frame = part.startswith(("  ", "Traceback", "\n"))
    return printable(part, "\n\t") if is_frame else printable(part.rstrip("\n")) + "\n"


def make_logs_safe(logger: logging.Logger, **_: object) -> None:
    """Make the messages of a logger's handlers safe: for Celery's `after_setup_logger`."""
    for handler in logger.handlers:
        if not any(isinstance(each, SafeLines) for each in handler.filters):
            handler.addFilter(SafeLines())
