"""Settings read from the environment; every error names the variable."""

import os

from cluster.arguments import brief

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

#: Largest number, within what Redis and JSON represent exactly.
MAX_NUMBER = 10**15
#: Longest time in seconds, within what timers and threads accept.
MAX_SECONDS = 10**9
#: Largest pool of a worker, in processes; the same as for remote control.
MAX_PROCESSES = 1000
#: Longest number, in digits, leading zeros included.
MAX_DIGITS = 20


def integer(variable: str, default: int, maximum: int = MAX_NUMBER, minimum: int = 1) -> int:
    """Return the environment variable as a whole number from `minimum` to `maximum`.

    Raise ValueError if it is set to anything else.
    """
    text = os.environ.get(variable) or str(default)
    is_number = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    if not is_number or not minimum <= int(text) <= maximum:
        raise ValueError(
            f"{variable} must be a whole number from {minimum} to {maximum}, not {brief(text)}"
        )
    return int(text)


def choice(variable: str, default: str, *others: str) -> str:
    """Return the environment variable if it is `default` or one of `others`.

    Raise ValueError if it is set to anything else.
    """
    words = dict.fromkeys((default, *others))
    word = os.environ.get(variable) or default
    if word not in words:
        raise ValueError(f"{variable} must be one of {', '.join(words)}, not {word!r}")
    return word


def log_level() -> str:
    """Return the value of LOG_LEVEL, INFO by default.

    Raise ValueError if it is not one of LOG_LEVELS.
    """
    return choice("LOG_LEVEL", "INFO", *LOG_LEVELS)
