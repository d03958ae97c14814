"""The table of docs/reliability.md: the outcomes of all jobs, under each fault."""

import json
import os
import platform
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from tests.faults.account import Account, Outcome
from tests.support.repo import ROOT

DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN = "<!-- make test_faults ARGS=--report writes what follows -->"
END = "<!-- the end of what it writes -->"
#: The rows of earlier runs: a run of some faults keeps the others' rows.
FOUND = ROOT / ".test-logs" / "faults.json"

_COLUMNS = ("jobs", "right", "failed at the caller", "lost", "hung", "wrong", "runs beyond one")
_HEAD = (
    f"| fault | transport | {' | '.join(_COLUMNS)} | recovery, s |",
    f"|---|---|{'--:|' * (len(_COLUMNS) + 1)}",
)


@dataclass
class Row:
    """The outcomes of the jobs of one load under one fault."""

    fault: str
    transport: str
    jobs: int
    right: int
    failed: int
    lost: int
    hung: int
    wrong: int
    runs_beyond_one: int
    recovery: float | None

    def __str__(self) -> str:
        recovery = "" if self.recovery is None else f"{self.recovery:.1f}"
        transport = "**streams**" if self.transport == "streams" else "kombu's lists"
        bad = (self.lost, self.hung, self.wrong)
        cells = [
            *(self.fault, transport, self.jobs, self.right, self.failed),
            *(f"**{count}**" if count else "0" for count in bad),
            *(self.runs_beyond_one, recovery),
        ]
        return f"| {' | '.join(map(str, cells))} |"


class Report:
    """The rows of one run of the suite, against one transport."""

    def __init__(self, transport: str) -> None:
        self._transport = transport
        self._rows: list[Row] = []
        self._server = ""

    def describe(self, server: str) -> None:
        """Set the version of the Redis server."""
        self._server = server

    def add(self, fault: str, account: Account, recovery: float | None = None) -> None:
        """Add the account of a load; `recovery` is the time from the fault's end, in seconds.

        It ends with the first job that runs again, or the last that the fault had hit.
        """
        counts = account.counts
        row = Row(
            fault,
            self._transport,
            account.submitted,
            counts[Outcome.RIGHT],
            account.failed,
            counts[Outcome.LOST],
            counts[Outcome.HUNG],
            counts[Outcome.WRONG],
            account.runs_beyond_one,
            recovery,
        )
        self._rows.append(row)
        print(f"\n{row}")  # noqa: T201 - shown with a failure, and by pytest -s

    def save(self) -> None:
        """Save the rows beside those of other faults and of the other transport."""
        if not self._rows:
            return
        FOUND.parent.mkdir(exist_ok=True)
        found = _found()
        for row in self._rows:
            found["rows"][f"{row.fault} / {row.transport}"] = asdict(row)
        found["machine"] = _machine(self._server)
        FOUND.write_text(json.dumps(found, indent=1))

    def write(self) -> None:
        """Write all saved rows into the document, between its two markers."""
        document = DOCUMENT.read_text()
        pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
        assert pattern.search(document), f"{DOCUMENT} has lost its markers"
        DOCUMENT.write_text(pattern.sub(lambda _: _section(_found()), document))


def _found() -> Any:
    return json.loads(FOUND.read_text()) if FOUND.exists() else {"rows": {}, "machine": {}}


def _section(found: Any) -> str:
    rows = [Row(**row) for row in found["rows"].values()]
    order = list(dict.fromkeys(row.fault for row in rows))
    rows.sort(key=lambda row: (order.index(row.fault), row.transport != "streams"))
    facts = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    return "\n".join([BEGIN, "", f"Measured: {facts}.", "", *_HEAD, *map(str, rows), "", END])


def _machine(server: str) -> dict[str, object]:
    now = datetime.now(UTC)
    return {
        "on": now.strftime("%-d %B %Y"),
        "with": f"{os.cpu_count()} cores ({platform.machine()})",
        "Linux": platform.release().split("-")[0],
        "Redis": server,
        "Celery": version("celery"),
        "kombu": version("kombu"),
        "redis-py": version("redis"),
    }
