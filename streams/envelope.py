"""placeholder until merged"""

import json
from typing import Any


class Malformed(Exception):
    job_id: str | None = None


def check(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError as e:
        raise Malformed(str(e))
