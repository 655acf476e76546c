"""Requests made from the OpenAPI document: nothing they hold is answered with a defect."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from serve_process import Server

schemathesis = pytest.importorskip("schemathesis")


def run(server: Server, examples: int) -> None:
    schema = schemathesis.openapi.from_dict(server.http.get("/openapi.json").json())
    schema.config.update(base_url=server.url)
    tried = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate], derandomize=True, database=None,
        )  # fmt: skip
        @schemathesis_given(operation)
        def one(case: object) -> None:
            answer = case.call()  # type: ignore[attr-defined]
            assert answer.status_code < 500, (case.as_curl_command(), answer.text)  # type: ignore[attr-defined]

        one()
        tried += 1
    assert tried >= 15


def schemathesis_given(operation: object) -> object:
    from hypothesis import given

    return given(case=operation.as_strategy())  # type: ignore[attr-defined]


def test_a_few_requests_of_every_route(server: Server) -> None:
    run(server, 8)


@pytest.mark.slow
def test_many_requests_of_every_route(server: Server) -> None:
    run(server, 150)
