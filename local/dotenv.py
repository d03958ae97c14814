"""The settings in `.env` for make, read as Docker Compose reads them: python3 local/dotenv.py FILE.

Make's own `include` would read quotes and comments as part of a value. A line that Compose reads in
a surprising way is rejected here, so that all commands see the same values.
https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/#env-file-syntax

Needs only Python: make runs it before anything is installed.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

#: Placeholder for the end of a line, because make's `shell` joins lines.
NEWLINE = "@@newline@@"

_ASSIGNMENT = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(.*)")
_SINGLE = re.compile(r"'([^'\\]*)'[ \t]*(?:#.*)?")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\["\\]|\\\$(?!\$))*)"[ \t]*(?:#.*)?')
#: A variable, with a default if it is empty or not set; or a dollar sign, doubled or alone.
_VARIABLE = re.compile(
    r"\\(?P<escaped>.)"
    r"|\$(?:(?P<dollar>\$)|(?P<plain>[A-Za-z_][A-Za-z0-9_]*)"
    r"|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<kind>:?-)(?P<default>[^${}]*))?\}|(?P<wrong>\{))?"
)


#: Makefile variable for a hash sign, which otherwise begins a comment.
_HASH = r"_hash := \#"


class Wrong(ValueError):
    """A line of the file that Compose and make would not read alike."""


def read(text: str, environment: Mapping[str, str], name: str = ".env") -> dict[str, str]:
    """Return a file's variables; those in `environment` win. Raise Wrong, naming file and line."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line_ = line.removesuffix("\r").strip(" \t")
        if line_ and not line_.startswith("#"):
            try:
                variable, value = _assignment(line_, {**found, **environment})
            except Wrong as error:
                raise Wrong(f"{name}, line {number}: {error}") from None
            found[variable] = environment.get(variable, value)
    return found


def _assignment(line: str, known: Mapping[str, str]) -> tuple[str, str]:
    assignment = _ASSIGNMENT.fullmatch(line)
    if not assignment:
        raise Wrong("must be NAME=value or a comment")
    variable, text = assignment.groups()
    if text.startswith("'"):
        quoted = _SINGLE.fullmatch(text)
        if not quoted:
            raise Wrong(f"the value of {variable} must end with ' on its line, and hold no ' or \\")
        value = quoted[1]
    elif text.startswith('"'):
        quoted = _DOUBLE.fullmatch(text)
        if not quoted:
            raise Wrong(
                f'the value of {variable} must end with " on its line, '
                'and hold \\ only in \\" \\\\ \\$'
            )
        value = _expanded(quoted[1], known)
    else:
        value = _plain(variable, text, known)
    if not value.isprintable():
        raise Wrong(f"the value of {variable} must contain only printable characters")
    return variable, value


def _plain(variable: str, text: str, known: Mapping[str, str]) -> str:
    if text.startswith("#") or "\\" in text or re.search(r"\t[ \t]*#", text):
        raise Wrong(f"the value of {variable} must be quoted, because of its # or \\")
    return _expanded(text.partition(" #")[0].rstrip(" \t"), known)


def _expanded(text: str, known: Mapping[str, str]) -> str:
    def value(match: "re.Match[str]") -> str:
        if match["wrong"]:
            raise Wrong("a ${ must be ${name} or ${name:-default}")
        name = match["plain"] or match["name"]
        if not name:
            return match["escaped"] or "$"
        found = known.get(name)
        if match["kind"] and (found is None or (match["kind"] == ":-" and not found)):
            return match["default"] or ""
        return found or ""

    return _VARIABLE.sub(value, text)


def makefile(variables: Mapping[str, str]) -> str:
    """Return makefile lines that set and export the variables unless they are set already."""
    lines = [_HASH]
    for name, value in variables.items():
        # An empty $() on each side preserves leading blanks and a trailing backslash.
        text = value.replace("$", "$$").replace("#", "$(_hash)")
        lines += [f"{name} ?= $(){text}$()", f"export {name}"]
    return NEWLINE.join(lines)


def main(path: Path) -> str:
    """Return the lines for make: the variables of a file, or the error that stops make."""
    try:
        return makefile(read(path.read_bytes().decode(), os.environ, path.name))
    except UnicodeDecodeError:
        message = f"{path.name} must be UTF-8"
    except OSError as error:
        message = f"cannot read {path.name}: {error.strerror}"
    except Wrong as error:
        message = str(error)
    text = message.replace("$", "$$").replace("#", "$(_hash)")
    return f"{_HASH}{NEWLINE}$(error {text})"


if __name__ == "__main__":
    sys.stdout.write(main(Path(sys.argv[1])))
