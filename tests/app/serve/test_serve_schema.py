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


def test_each_operation_has_a_name_of_its_own_and_says_how_it_fails(server: Server) -> None:
    paths = server.http.get("/openapi.json").json()["paths"]
    operations = {(method, path): one for path, found in paths.items() for method, one in found.items()}
    names = [operation["operationId"] for operation in operations.values()]
    assert len(names) == len(set(names)), names
    assert {"rerank", "rerank_v2"} <= set(names)
    upload, search = operations["post", "/v1/documents"]["responses"], operations["post", "/v1/search"]["responses"]
    assert {"408", "413", "415", "500", "504", "507"} <= upload.keys()
    assert {"408", "413", "415", "500", "504"} <= search.keys()
    assert "409" in operations["delete", "/v1/uploads"]["responses"]


def test_status_has_the_fields_that_are_described(server: Server) -> None:
    described = server.http.get("/openapi.json").json()["components"]["schemas"]
    status = server.http.get("/v1/status").json()
    assert described["StatusResponse"]["properties"].keys() == status.keys()
    assert described["EmbedderEntry"]["properties"].keys() == status["embedder"].keys()


def test_a_few_requests_of_every_route(server: Server) -> None:
    run(server, 8)


@pytest.mark.slow
def test_many_requests_of_every_route(server: Server) -> None:
    run(server, 150)
