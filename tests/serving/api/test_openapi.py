"""The OpenAPI document: every route with examples that are true, and no answer it does not know."""

import copy
import json
import os
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import negative_data_rejection  # noqa: F401
from tests.serving.api.conftest import Asked
from tests.serving.levels_case import SYMBOLS

PATH = Path(str(files("margincast.serving.api"))) / "examples.json"
ACCOUNT = {
    "positions": [
        {
            "symbol": "SIM-BTC", "side": "long", "size": 2.0, "entry_price": 52000.0,
            "mark_price": 50000.0,
        }
    ],
    "collateral": [{"asset": "USD", "amount": 10000.0, "price_usd": 1.0, "haircut": 0.0}],
    "moves": {"SIM-BTC": -0.05},
}  # fmt: skip
QUESTIONS = {
    "GET /v1/margins/{symbol}": ("/v1/margins/SIM-BTC?side=long&notional_usd=100000", "read", None),
    "GET /v1/margins": ("/v1/margins?limit=1&side=long", "read", None),
    "GET /v1/forecasts": ("/v1/forecasts?limit=1", "read", None),
    "GET /v1/model": ("/v1/model", "read", None),
    "GET /v1/explain/{symbol}": ("/v1/explain/SIM-BTC?side=long", "read", None),
    "GET /v1/policy": ("/v1/policy", "read", None),
    "GET /v1/publications": ("/v1/publications", "read", None),
    "GET /v1/history/{symbol}": ("/v1/history/SIM-BTC?side=long", "read", None),
    "GET /v1/monitor": ("/v1/monitor?symbol=SIM-BTC", "read", None),
    "GET /v1/status": ("/v1/status", "read", None),
    "GET /health": ("/health", "", None),
    "GET /ready": ("/ready", "", None),
    "POST /v1/what-if/account": ("/v1/what-if/account", "score", ACCOUNT),
    "POST /v1/what-if/margin": (
        "/v1/what-if/margin",
        "score",
        {"symbol": "SIM-BTC", "forecast_multiple": 2.0, "after_minutes": 60},
    ),
}
"""A question of every route whose answer hangs on publications alone."""
TEXTS = {
    "GET /v1/stream": 'id: 3\nevent: margins\ndata: {"number":3,"revision":0,"changed":[]}\n\n',
    "POST /v1/events": {"taken": 2, "refused": {"side is neither buy nor sell": 1}, "dropped": 0},
    "GET /metrics": 'margincast_requests_total{route="/v1/margins/{symbol}",status="200"} 5.0\n',
    "GET /v1/keys": {
        "keys": [
            {
                "identifier": "5f1d0a7be2c4", "holder": "risk desk", "scopes": ["read", "score"],
                "created": "2026-01-10T00:00:00+00:00", "expires": "2026-04-10T00:00:00+00:00",
                "revoked": "", "state": "valid",
            }
        ]
    },
    "GET /v1/audit": {
        "acts": [
            {
                "number": 1, "when": "2026-01-10T00:00:00Z", "who": "operator",
                "what": "key 5f1d0a7be2c4 for risk desk: read, score",
                "why": "margincast keys create", "hash": 64 * "0",
            }
        ],
        "next": None,
    },
}  # fmt: skip
"""Examples of answers that are never the same twice."""
ROWS = """{"table":"trades","symbol":"SIM-BTC","ts":"2026-01-10T00:00:01Z","price":5e4,"size":1,"side":"buy"}
{"table":"trades","symbol":"SIM-BTC","ts":"2026-01-10T00:00:02Z","price":5e4,"size":2,"side":"sell"}
{"table":"trades","symbol":"SIM-BTC","ts":"2026-01-10T00:00:03Z","price":5e4,"size":1,"side":"none"}
"""  # noqa: E501  # a line is a row


@pytest.fixture(scope="module")
def document(asked):
    return asked.ask("/openapi.json").json


def test_the_examples_are_what_the_service_answers(asked):
    found = {name: {"answer": answer} for name, answer in TEXTS.items()}
    found["POST /v1/events"]["ask"] = ROWS
    for name, (target, scope, body) in QUESTIONS.items():
        answer = asked.ask(target, name.partition(" ")[0], scope=scope, body=body)
        assert answer.status == 200, answer.text
        found[name] = {"answer": answer.json} | ({} if body is None else {"ask": body})
    if os.environ.get("MARGINCAST_WRITE_EXAMPLES"):
        PATH.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    kept = json.loads(PATH.read_text(encoding="utf-8"))
    assert kept == found, (
        "run this test with MARGINCAST_WRITE_EXAMPLES=1 and look at the difference"
    )


def test_every_route_is_documented_with_an_example_a_scope_and_its_refusals(document):
    routes = {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    assert set(routes) == {*QUESTIONS, *TEXTS}
    for name, operation in routes.items():
        assert operation["summary"]
        assert operation["description"]
        (content,) = operation["responses"]["200"]["content"].values()
        assert "example" in content, name
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert "example" in content, name
        assert ("security" in operation) == (not name.endswith(("/health", "/ready")))
        for status in ("400", "401", "403", "422", "429", "503"):
            assert set(operation["responses"][status]["content"]) == {"application/problem+json"}


@schemathesis.serializer("application/x-ndjson")
def rows_as_they_are(_, value):
    return value.encode() if isinstance(value, str) else value


def of_known_contracts(document):
    """The document with the contracts there are in place of any name: others are not found."""
    known = copy.deepcopy(document)
    items = [item for path in known["paths"].values() for item in path.values()]
    for one in (one for item in items for one in item.get("parameters", ())):
        if one["in"] == "path":
            one["schema"] = {"type": "string", "enum": list(SYMBOLS)}
    return known


ASKED = sorted({*QUESTIONS, *TEXTS} - {"GET /v1/stream"})
TAKES_NOTHING = {
    "/health",
    "/ready",
    "/metrics",
    "/v1/keys",
    "/v1/model",
    "/v1/policy",
    "/v1/status",
}


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, GenerationMode.POSITIVE) for name in ASKED]
    # any text may be rows of a feed: what is wrong with them is counted
    + [
        (name, GenerationMode.NEGATIVE)
        for name in ASKED
        if name.split(" ")[1] not in {*TAKES_NOTHING, "/v1/events"}
    ],
)
def test_no_request_gets_an_answer_that_is_not_documented(asked, document, name, mode):
    method, path = name.split(" ")
    schema = schemathesis.openapi.from_dict(of_known_contracts(document))
    scopes = {"/v1/keys": "admin", "/v1/audit": "admin", "/v1/events": "publish"}
    scope = scopes.get(path, QUESTIONS.get(name, ("", "read", None))[1])
    schema.app = without_lifespan(asked)
    headers = {"Authorization": f"Bearer {asked.keys[scope]}"} if scope else {}
    statuses = Counter()

    @given(schema[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=5, suppress_health_check=list(HealthCheck))
    def conforms(case):
        statuses[case.call_and_validate(headers=headers).status_code] += 1

    conforms()
    # of bodies some are refused for what no schema says: a crossed book, a move of nothing
    if mode is GenerationMode.POSITIVE and method == "GET":
        assert set(statuses) == {200}
    if mode is GenerationMode.NEGATIVE:
        assert {400, 401, 404, 422} & set(statuses)


def without_lifespan(asked: Asked):
    """The application as schemathesis asks it; it runs already."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await asked.app(scope, receive, send)

    return app
