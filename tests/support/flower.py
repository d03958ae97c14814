"""Flower for tests, used from outside with the right, a wrong or no password."""

import json
from base64 import b64encode
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

from tests.support.repo import ROOT

USER = "flower"
PASSWORD = ROOT / "secrets" / "flower_password"


class Flower:
    """The Flower of a stack, on a port of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.password = PASSWORD.read_text().strip()

    def ask(self, path: str, password: str | None, method: str = "GET") -> tuple[int, str]:
        """Return the status and the text of a response."""
        login = b64encode(f"{USER}:{password}".encode()).decode()
        headers = {} if password is None else {"Authorization": f"Basic {login}"}
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def json(self, path: str) -> Any:
        """Return the JSON response to a request with the password."""
        status, text = self.ask(path, self.password)
        assert status == 200, f"{path}: {status} {text}"
        return json.loads(text)

    def workers(self, family: str = "") -> dict[str, dict[str, Any]]:
        """Return the workers of a family, or of all, that are online, by name."""
        return {
            worker["hostname"]: worker
            for worker in self.json("/workers?json=1")["data"]
            if worker["hostname"].startswith(family) and worker["status"]
        }

    def has_seen(self, task_id: str) -> bool:
        """Return True if it has seen a job's success, and its arrival, which has the job's name."""
        task = self.json("/api/tasks").get(task_id, {})
        return task.get("state") == "SUCCESS" and bool(task.get("received"))

    def state(self, task_id: str) -> str | None:
        """Return the state of a job, or None if Flower does not know it."""
        state: str | None = self.json("/api/tasks").get(task_id, {}).get("state")
        return state
