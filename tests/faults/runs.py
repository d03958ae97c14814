"""The runs of jobs, as recorded by the workers (`tests.faults.worker`)."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Run:
    """One run of a job: its worker, and its times by `tests.faults.clock`."""

    job_id: str
    host: str
    worker: int
    process: int
    began: float
    ended: float | None = None


class Runs:
    """All runs since the file was emptied."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "runs"
        self.clear()

    def clear(self) -> None:
        """Forget all runs; workers continue to append to the file."""
        self._runs: list[Run] = []
        self._under_way: dict[tuple[str, ...], Run] = {}
        self._read = 0
        self.file.write_text("")
        self.file.chmod(0o666)  # containers append as another user

    def all(self) -> list[Run]:
        """Return the runs in the order in which they began."""
        with self.file.open() as file:
            file.seek(self._read)
            # The text after the last newline is still being written.
            lines, end, _ = file.read().rpartition("\n")
        self._read += len(lines + end)
        for line in lines.splitlines():
            self._note(*line.split())
        return list(self._runs)

    def _note(self, event: str, *details: str) -> None:
        *where, time = details
        if event == "began":
            job_id, host, worker, process = where
            run = Run(job_id, host, int(worker), int(process), float(time))
            self._runs.append(run)
            self._under_way[tuple(where)] = run
        elif tuple(where) in self._under_way:
            self._under_way.pop(tuple(where)).ended = float(time)

    def of(self, job_id: str) -> list[Run]:
        """Return the runs of a job."""
        return [run for run in self.all() if run.job_id == job_id]

    def under_way(self, host: str | None = None) -> list[Run]:
        """Return the runs that have not ended, those of one container if it is named.

        The run of a killed process never ends.
        """
        return [run for run in self.all() if run.ended is None and host in {None, run.host}]

    def repeated(self, job_ids: Iterable[str]) -> list[list[Run]]:
        """Return the runs of each job that ran more than once."""
        runs = defaultdict(list)
        for run in self.all():
            runs[run.job_id].append(run)
        return [runs[job_id] for job_id in job_ids if len(runs[job_id]) > 1]
