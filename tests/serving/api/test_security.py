"""Who may ask for what; nothing leaks, and no request of a stranger ends in a defect."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.api.conftest import NEWEST
from tests.serving.published_case import publish

from margincast.jobs.serve import create_key
from margincast.serving.api import shapes
from margincast.serving.api.keys import KeyFile

PATHS = (
    "/v1/status", "/v1/margins", "/v1/margins/SIM-BTC", "/v1/explain/SIM-BTC?side=long",
    "/v1/history/SIM-BTC?side=long", "/v1/keys", "/v1/audit", "/v1/stream", "/metrics",
    "/openapi.json", "/v1/absent", "/absent", "/v1/../v1/keys",
)  # fmt: skip
ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "shown", ["", "Bearer mc_000000000000_" + 43 * "A", "Basic YTpi", "Bearer"]
)
def test_without_a_valid_key_nothing_is_told(asked, path, shown):
    answer = asked.ask(path, scope="", headers={"authorization": shown} if shown else {})
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="margincast"'
    assert shapes.Problem.model_validate_json(answer.content).status == 401


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v1/keys", "admin"),
        ("GET", "/v1/audit", "admin"),
        ("GET", "/v1/margins/SIM-BTC", "read"),
        ("GET", "/v1/margins", "read"),
        ("GET", "/metrics", "read"),
        ("POST", "/v1/what-if/account", "score"),
        ("POST", "/v1/what-if/margin", "score"),
    ],
)
def test_a_key_opens_only_its_own_scope(asked, method, path, scope):
    for other in asked.keys:
        answer = asked.ask(path, method, scope=other)
        assert (answer.status == 403) == (other != scope), other


def test_a_key_made_or_revoked_is_known_at_the_next_look(own):
    service = own()
    key = service.key("late", "read")
    headers = {"authorization": f"Bearer {key}"}
    assert service.ask("/v1/model", scope="", headers=headers).status == 401
    service.look()
    assert service.ask("/v1/model", scope="", headers=headers).status == 200
    file = KeyFile(service.workspace / service.service.access.keys_file)
    file.revoke(key.split("_")[1], now=datetime.now(UTC))
    service.look()
    assert service.ask("/v1/model", scope="", headers=headers).status == 401


def test_an_expired_key_is_refused_without_a_look(own):
    service = own()
    now = datetime.now(UTC)
    file = KeyFile(service.workspace / service.service.access.keys_file)
    _, key = file.create("brief", ["read"], expires=now + timedelta(hours=1), now=now)
    service.look()
    headers = {"authorization": f"Bearer {key}"}
    assert service.ask("/v1/model", scope="", headers=headers).status == 200
    service.state.now = lambda: now + timedelta(hours=2)
    assert service.ask("/v1/model", scope="", headers=headers).status == 401


def test_a_damaged_file_of_keys_ends_neither_looks_nor_keys_and_is_told_once(own, caplog):
    service = own()
    service.look()
    path = service.state.key_file.path
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({"keys": [raw["keys"][0] | {"salt": "zz"}, *raw["keys"][1:]]}))
    publish(service.workspace, (0.05, 0.0041, 0.0054), at=NEWEST + timedelta(hours=1))
    service.look()
    service.look()
    assert service.ask("/v1/status").json["publication"]["number"] == 4
    assert caplog.text.count("keys cannot be read") == 1
    answer = service.ask("/v1/keys", scope="admin")
    assert (answer.status, answer.json["detail"]) == (
        409, "the file of keys cannot be read; see the service's log",
    )  # fmt: skip


def test_a_key_that_no_log_knows_of_opens_nothing(own):
    service = own()
    service.state.audit.path.unlink(missing_ok=True)
    service.state.audit.path.mkdir()
    with pytest.raises(OSError, match="directory"):
        create_key(service.workspace, "late", ["admin"], expires=None, who="a test")
    (late,) = (key for key in service.state.key_file.read() if key.holder == "late")
    assert late.state(datetime.now(UTC)) == "revoked"


def test_keys_of_another_user_are_a_refusal_to_read_not_a_defect(own, monkeypatch, caplog):
    service = own()

    def denied(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(service.state.key_file.path), "read_bytes", denied)
    service.state.key_file.path.touch()
    service.look()
    assert "Permission denied" in caplog.text
    assert "chown" in caplog.text


def test_a_damaged_record_is_said_not_a_defect(own):
    service = own()
    for manifest in service.workspace.glob("publications/*/000001/manifest.json"):
        manifest.chmod(0o600)
        manifest.write_text("{")
    service.state.audit.path.write_text("no line of a log\n")
    paths = {"/v1/history/SIM-BTC?side=long": "read", "/v1/publications": "read"}
    for path, scope in {**paths, "/v1/audit": "admin"}.items():
        answer = service.ask(path, scope=scope)
        assert answer.status == 409, path
        assert "see the service's log" in answer.json["detail"]
        assert_no_leak(answer)


@pytest.mark.parametrize(
    "path", ["/v1/keys", "/v1/status", "/v1/model", "/v1/policy", "/metrics", "/health", "/ready"]
)
def test_a_query_where_none_is_taken_is_refused(asked, path):
    answer = asked.ask(path + "?limit=1", scope="admin" if path == "/v1/keys" else "read")
    assert answer.status == 422
    assert "takes no query, found limit" in answer.json["detail"]


def test_anonymous_callers_may_read_where_the_operator_says_so(own):
    service = own('access.anonymous=["read"]')
    assert service.ask("/v1/margins/SIM-BTC", scope="").status == 200
    assert service.ask("/v1/keys", scope="").status == 403
    wrong = {"authorization": "Bearer mc_nonsense"}
    assert service.ask("/v1/margins/SIM-BTC", scope="", headers=wrong).status == 401


def test_more_requests_than_allowed_are_told_when_to_come_again(own):
    service = own("limits.requests_per_second=0.001", "limits.burst=3")
    answers = [service.ask("/v1/margins/SIM-BTC") for _ in range(4)]
    assert [one.status for one in answers] == [200, 200, 200, 429]
    assert 900 <= int(answers[-1].headers["retry-after"]) <= 1001
    # guessing keys is slow too
    guesses = [
        service.ask("/v1/model", scope="", headers={"authorization": "Bearer x"}) for _ in "1234"
    ]
    assert [one.status for one in guesses] == [401, 401, 401, 429]
    assert 'margincast_refused_total{why="rate"} 2.0' in service.state.metrics.text().decode()


def test_large_bodies_are_refused_whether_they_say_so_or_not(asked):
    limit = asked.service.limits.body_bytes
    pieces = [1_000 * b" "] * (limit // 1_000 + 2)
    for headers in ({"content-length": str(limit + 1)}, {}):
        answer = asked.ask(
            "/v1/what-if/account", "POST", scope="score", headers=headers, pieces=pieces
        )
        assert answer.status == 413
        assert answer.headers["connection"] == "close"


HOSTILE = (
    "..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "../../mlruns/keys.json",
    "' OR 1=1 --", "SIM-BTC'; DROP TABLE margins; --", "%00", "\u202e", "{{7*7}}", "${jndi:ldap://x}",
    5_000 * "A", "SIM-BTC/../../keys", "<script>alert(1)</script>", "__proto__", "nan",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "path",
    ["/v1/margins/{}", "/v1/explain/{}?side=long", "/v1/history/{}?side=long", "/static/{}", "/{}"],
)
def test_hostile_names_find_nothing(asked, path, text):
    answer = asked.ask(path.format(text))
    assert 400 <= answer.status < 500
    assert_no_leak(answer)


@given(name=st.text(max_size=40), query=st.text(max_size=30))
@settings(max_examples=40)
def test_random_names_and_queries_find_nothing_and_break_nothing(asked, name, query):
    for path in ("/v1/margins/", "/v1/history/", "/x"):
        answer = asked.ask(f"{path}{name.replace('?', '')}?{query}")
        assert 400 <= answer.status < 500
        assert_no_leak(answer)


def assert_no_leak(answer):
    assert shapes.Problem.model_validate_json(answer.content).status == answer.status
    for leak in ("Traceback", ".py", "/work", 'mlruns/keys.json"', "root:"):
        assert leak not in answer.text
    assert answer.headers.items() >= ALWAYS.items()
    assert "server" not in answer.headers


def test_a_defect_is_an_incident_with_a_number_and_no_trace(asked, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("secret of /etc/hosts")

    monkeypatch.setattr(asked.state, "standing", broken)
    answer = asked.ask("/v1/status")
    assert answer.status == 500
    incident = answer.json["detail"].split()[-1]
    assert "secret" not in answer.text
    assert f"incident {incident}" in caplog.text
    assert "secret of /etc/hosts" in caplog.text


def test_the_page_may_load_nothing_from_elsewhere(asked):
    answer = asked.ask("/", scope="")
    assert answer.status == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "access-control-allow-origin" not in answer.headers
