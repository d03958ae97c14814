"""Adds a family to the project, and removes one that was added so.

A new family is a copy of `add/`, except for its tasks, examples and caller, which come from
`develop/template`; the shared files get a row, a line or a block each.
"""

import builtins
import importlib.util
import json
import keyword
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from celeryconfig import families
from develop import pins, readme, table
from develop.derived import OWN
from develop.tree import ROOT, Changes

COPIED = ("Dockerfile", "__init__.py", "requirements.txt", "worker.py")
#: What the new files import, and what local mode calls other processes.
TAKEN = ("arguments", "command", "run", "shared_task", "server", "supervisor", "caller", "self")
#: The longest name, in characters.
MAX_NAME = 30

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_CALLER = """\
  call-{name}:
    <<: *caller
    command: ["python", "-m", "callers.{name}"]
"""
_WORKER = """\
  {name}:
    <<: *worker
    image: ${{IMAGE_PREFIX:-task-cluster}}/{name}
    build: {{context: ., dockerfile: {name}/Dockerfile, args: *base-image}}
    environment:
      <<: *worker-environment
      {upper}_CONCURRENCY:
    deploy: {{replicas: "${{{upper}_REPLICAS:-1}}", \
resources: {{limits: {{cpus: "1", memory: 512m, pids: 128}}}}}}
"""


def check_name(name: str) -> None:
    """Raise ValueError if a new family cannot have this name."""
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise ValueError(
            f"a family's name consists of lower-case letters, digits and single underscores, "
            f"begins with a letter and has at most {MAX_NAME} characters: not {name!r}"
        )
    if name in families:
        raise ValueError(f"the family {name} exists already")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name) or hasattr(builtins, name):
        raise ValueError(f"{name} is a word of Python: a family needs another name")
    if name in TAKEN or not isinstance(yaml.safe_load(name), str):
        raise ValueError(f"{name} has a meaning already: a family needs another name")
    if name in _services():
        raise ValueError(f"{name} is a service in docker-compose.yml: a family needs another name")
    if (ROOT / name).exists() or (ROOT / "callers" / f"{name}.py").exists():
        found = name if (ROOT / name).exists() else f"callers/{name}.py"
        raise ValueError(f"{found} exists already: a family needs another name")
    if importlib.util.find_spec(name):
        raise ValueError(f"{name} is a Python module: a family needs another name")


def add(name: str) -> None:
    """Add a family; raises ValueError for a name that it cannot have, and then changes nothing."""
    check_name(name)
    changes = Changes()
    for file in COPIED:
        changes.write(f"{name}/{file}", _renamed(changes.read(f"add/{file}"), "add", name))
    for file in ("tasks.py", "examples.py"):
        changes.write(f"{name}/{file}", _from_template(changes, file, name))
    changes.write(f"callers/{name}.py", _from_template(changes, "caller.py", name))
    changes.edit("celeryconfig.py", table.add_row, name)
    changes.edit("README.md", readme.add_rows, name, [*families][-1])
    _add_services(changes, name)
    _add_settings(changes, name)
    _derive(changes, name)
    changes.apply()


def remove(name: str) -> None:
    """Remove a family, and the pins of packages that only it needs.

    Raise ValueError if there is no such family, or if other files need it.
    """
    if name not in families:
        raise ValueError(f"there is no family {name!r}; the families are {', '.join(families)}")
    if name in OWN:
        raise ValueError(f"{name} cannot be removed: documents, tests and benchmarks need it")
    changes = Changes()
    changes.delete(name)
    changes.delete(f"callers/{name}.py")
    changes.edit("celeryconfig.py", table.remove_row, name)
    changes.edit("README.md", readme.remove_rows, name)
    _remove_services(changes, name)
    _remove_settings(changes, name)
    _derive(changes, name)
    packages = {*changes.read(f"{name}/requirements.txt").splitlines()}
    changes.apply()
    if packages - {*changes.read("add/requirements.txt").splitlines()}:
        pins.pin()


def _renamed(text: str, old: str, new: str) -> str:
    return re.sub(rf"\b{old}\b", new, text)


def _from_template(changes: Changes, file: str, name: str) -> str:
    return _renamed(changes.read(f"develop/template/{file}"), "template", name)


# docker-compose.yml -----------------------------------------------------------------


def _services() -> list[str]:
    return [*yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]]


def _block(service: str) -> re.Pattern[str]:
    """Return what matches the block of a service, with the blank line that parts it from others."""
    return re.compile(rf"^  {service}:[^\n]*\n(?:(?:    .*)?\n)*", re.MULTILINE)


def _add_services(changes: Changes, name: str) -> None:
    text = changes.read("docker-compose.yml")
    last = [*families][-1]
    for after, block in ((f"call-{last}", _CALLER), (last, _WORKER)):
        found = _block(after).search(text)
        if not found:
            raise ValueError(f"docker-compose.yml has no service {after}")
        new = block.format(name=name, upper=name.upper())
        text = f"{text[: found.end()]}{new}\n{text[found.end() :]}"
    changes.write("docker-compose.yml", text)


def _remove_services(changes: Changes, name: str) -> None:
    text = changes.read("docker-compose.yml")
    left = yaml.safe_load(text)
    for service in (f"call-{name}", name):
        text = _block(service).sub("", text)
        left["services"].pop(service, None)
    with suppress(yaml.YAMLError):
        if yaml.safe_load(text) == left:
            changes.write("docker-compose.yml", text)
            return
    raise ValueError(
        f"docker-compose.yml: the services {name} and call-{name} have to be removed by hand first"
    )


# .env.example -----------------------------------------------------------------------


def _settings(name: str) -> dict[str, str]:
    return {f"{name.upper()}_REPLICAS": "1", f"{name.upper()}_CONCURRENCY": "1"}


def _add_settings(changes: Changes, name: str) -> None:
    text = changes.read(".env.example")
    for variable, default in _settings(name).items():
        kind = variable.rpartition("_")[2]
        lines = [*re.finditer(rf"^#\w+_{kind}=.*\n", text, re.MULTILINE)]
        if not lines:
            raise ValueError(f".env.example has no line of a family's {kind}")
        last = lines[-1]
        text = f"{text[: last.end()]}#{variable}={default}\n{text[last.end() :]}"
    changes.write(".env.example", text)


def _remove_settings(changes: Changes, name: str) -> None:
    text = changes.read(".env.example")
    for variable in _settings(name):
        text = re.sub(rf"^#{variable}=.*\n", "", text, flags=re.MULTILINE)
    changes.write(".env.example", text)


# What is derived from the tasks -----------------------------------------------------


def _derive(changes: Changes, name: str) -> None:
    """Derive what `make contracts` does, from the files as they will be."""
    program = (
        "import json, pathlib; from develop.derived import derive; "
        "print(json.dumps(derive(pathlib.Path.cwd())))"
    )
    with TemporaryDirectory() as folder:
        staged = Path(folder)
        changes.export(staged, "celeryconfig.py", "README.md", f"{name}/")
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=staged,
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise ValueError(done.stderr.strip().rpartition("\n")[2])
    for path, text in json.loads(done.stdout).items():
        changes.write(path, text)
