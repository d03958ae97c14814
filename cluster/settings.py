"""Settings read from the environment; each error names its variable in one sentence."""

import os

from cluster.arguments import brief

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

#: The largest number, which Redis and JSON take, and the largest time in seconds, which timers
#: and threads take.
MAX_NUMBER = 10**15
MAX_SECONDS = 10**9
#: Processes of a worker's pool; remote control has the same limit.
MAX_PROCESSES = 1000
#: Digits of a setting, leading zeros included.
MAX_DIGITS = 20


def integer(variable: str, default: int, most: int = MAX_NUMBER, least: int = 1) -> int:
    """Return the value of an environment variable, a whole number from `least` to `most`.

    Raises ValueError, naming the variable, if it holds anything else.
    """
    text = os.environ.get(variable) or str(default)
    is_number = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    if not is_number or not least <= int(text) <= most:
        raise ValueError(
            f"{variable} must be a whole number from {least} to {most}, not {brief(text)}"
        )
    return int(text)


def choice(variable: str, default: str, *others: str) -> str:
    """Return the value of an environment variable, one of these words.

    Raises ValueError, naming the variable, if it holds anything else.
    """
    words = dict.fromkeys((default, *others))
    word = os.environ.get(variable) or default
    if word not in words:
        raise ValueError(f"{variable} must be one of {', '.join(words)}, not {word!r}")
    return word


def log_level() -> str:
    """Return the value of LOG_LEVEL, INFO by default.

    Raises ValueError for a name that is not a level of Python's logging.
    """
    return choice("LOG_LEVEL", "INFO", *LOG_LEVELS)
