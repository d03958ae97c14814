"""Untrusted text is printed safely, on terminals and in logs."""

import io
import logging
from typing import Any

import pytest

from celery_streams.printable import install, make_logs_safe, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 日本", "plain ü 日本"),
        ("\x1b]0;owned\x07\x1b[2J", r"\x1b]0;owned\x07\x1b[2J"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),
        ("line\u2028end", r"line\u2028end"),
        ("half \ud800", r"half \ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_line_ends_may_be_kept() -> None:
    assert printable("a\nb\tc\x1b", keep="\n\t") == "a\nb\tc\\x1b"


class Odd(Exception):
    """An error whose text is a log line."""

    def __str__(self) -> str:
        return "no\n[2026-11-27 00:00:00,000: INFO/MainProcess] Task paid\x1b[2J"


def logged(*args: Any, **options: Any) -> str:
    """Return the text of a safe log."""
    stream = io.StringIO()
    logger = logging.getLogger("test of safe lines")
    logger.propagate = False
    logger.handlers.clear()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    make_logs_safe(logger)
    make_logs_safe(logger)
    logger.error(*args, **options)
    assert len(handler.filters) == 1
    return stream.getvalue()


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("%s", "a\nINFO forged"), "ERROR a\\nINFO forged\n"),
        (("args: %(args)s", {"args": "\x1b[2J\nx"}), "ERROR args: \\x1b[2J\\nx\n"),
        (("%s failed: %s", "job\n", Odd()), None),
        (("one\ntwo %s", "x\x1b"), "ERROR one\ntwo x\\x1b\n"),
        (("%d done", 5), "ERROR 5 done\n"),
    ],
)
def test_a_message_is_one_line_whatever_it_quotes(args: Any, line: str | None) -> None:
    text = logged(*args)

    assert "\x1b" not in text
    if line:
        assert text == line
    else:
        assert text.count("\n") == 1


def test_an_error_in_a_traceback_is_one_line() -> None:
    text = logged("it failed", exc_info=Odd())

    assert "\x1b" not in text
    forged = "[2026-11-27 00:00:00,000: INFO/MainProcess] Task paid"
    assert text.endswith(f"Odd: no\\n{forged}\\x1b[2J\n")


def test_a_worker_whose_logs_are_set_up_already_writes_safe_lines() -> None:
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    logging.getLogger().addHandler(handler)
    try:
        install()
        logger = logging.getLogger("celery.worker")
        logger.warning("a job of %s", "\x1b]0;owned\x07\n[error] forged")
    finally:
        logging.getLogger().removeHandler(handler)

    assert output.getvalue() == "a job of \\x1b]0;owned\\x07\\n[error] forged\n"
