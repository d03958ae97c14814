"""Validation of our options in `broker_transport_options`."""

from typing import Any

import kombu
import pytest

from celery_streams.errors import InvalidOption
from celery_streams.transport.options import check_options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("lease", value) for value in ("20", 0, -1, True, None, float("nan"), float("inf"))),
        *(
            (name, value)
            for name in ("max_deliveries", "max_message_bytes", "queue_max_length")
            for value in ("a lot", 0, -1, 2.5, True, None, 10**13)
        ),
        *(("priority_steps", value) for value in ([], 3, "0369", [0, 10], [3, 0], [1, 1], [True])),
    ],
)
def test_an_option_out_of_range_is_refused_before_a_connection_is_made(
    name: str, value: Any
) -> None:
    connection: Any = kombu.Connection(
        "redis://127.0.0.1:1/0",
        transport="celery_streams:Transport",
        transport_options={name: value},
    )

    with pytest.raises(InvalidOption, match=rf"^broker_transport_options: {name} must be a "):
        connection.connect()


def test_valid_options_and_those_of_kombu_are_accepted() -> None:
    check_options({})
    check_options({"lease": 0.5, "max_deliveries": 1, "priority_steps": [0, 9]})
    check_options({"visibility_timeout": "any", "socket_timeout": None})
