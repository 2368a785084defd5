"""New publications take their place without a dropped request; damaged ones do not."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tests.serving.api.asgi_caller import ask
from tests.serving.api.conftest import NEWEST
from tests.serving.levels_case import levels_of
from tests.serving.published_case import publish

from margincast.serving.api.keys import KeyRing
from margincast.serving.api.stream import _rates_of, event_of
from margincast.serving.board import Change
from margincast.serving.snapshot import contracts_of

NEXT = (0.02, 0.0052, 0.0061)


def test_a_new_publication_is_served_at_the_next_look_and_the_caller_told_by_etag(own):
    service = own()
    before = service.ask("/v1/margins/SIM-ALT")
    publish(service.workspace, NEXT, at=NEWEST + timedelta(hours=1))
    assert service.ask("/v1/margins/SIM-ALT").content == before.content
    service.look()
    after = service.ask("/v1/margins/SIM-ALT", headers={"if-none-match": before.headers["etag"]})
    assert (before.headers["etag"], after.headers["etag"]) == ('"3"', '"4"')
    assert after.json["sides"][0]["forecast"] == 0.02


def test_every_request_is_answered_from_one_publication_while_they_change(own):
    service = own()
    shown = service.state.view.snapshot
    asked = []

    async def change():
        for number in range(4, 40):
            header = replace(shown.header, number=number)
            service.state.board.show(replace(shown, header=header))
            await asyncio.sleep(0)

    async def read():
        for _ in range(60):
            path = "/v1/margins?limit=3" if len(asked) % 2 else "/v1/margins/SIM-BTC"
            asked.append(await one(path))
            await asyncio.sleep(0)

    async def one(path):
        headers = {"authorization": f"Bearer {service.keys['read']}"}
        return await ask(service.app, "GET", path, headers)

    async def both():
        await asyncio.gather(change(), read(), read())

    service.loop.run_until_complete(both())
    assert len(asked) == 120
    for answer in asked:
        assert answer.status == 200
        assert answer.headers["etag"] == f'"{answer.json["publication"]["number"]}"'
    assert len({answer.headers["etag"] for answer in asked}) > 20


def test_a_damaged_publication_is_not_served_and_the_one_before_is(own, caplog):
    service = own()
    made = publish(service.workspace, NEXT, at=NEWEST + timedelta(hours=1))
    path = made.folder / "levels" / "00000.parquet"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    service.look()
    status = service.ask("/v1/status").json
    assert status["publication"]["number"] == 3
    assert status["reason"] == "the newest publication cannot be read; see the service's log"
    assert "was changed after it was published" in caplog.text
    assert service.ask("/v1/margins/SIM-ALT").status == 200
    assert "margincast_unreadable_publications_total 1.0" in service.state.metrics.text().decode()


def test_a_service_with_nothing_to_serve_is_not_ready_and_says_why(own):
    service = own(forecasts=())
    for path in ("/ready", "/v1/margins", "/v1/margins/SIM-BTC"):
        answer = service.ask(path)
        assert answer.status == 503
        assert "nothing is published yet" in answer.json["detail"]
    assert service.ask("/v1/status").json["status"] == "empty"
    assert service.ask("/health").status == 200


def test_an_old_publication_is_stale_and_the_service_not_ready(own):
    service = own("publications.max_age=36h")
    moment = [NEWEST + timedelta(hours=36)]
    service.state.now = lambda: moment[0]
    assert service.ask("/ready").status == 200
    moment[0] += timedelta(seconds=1)
    answer = service.ask("/ready")
    assert answer.status == 503
    assert "publication 3 is older than 36h, it was made at 2026-01-10" in answer.json["detail"]
    assert service.ask("/v1/status").json["status"] == "stale"
    service.look()
    text = service.state.metrics.text().decode()
    assert 'margincast_status{status="stale"} 1.0' in text
    assert 'margincast_status{status="ok"} 0.0' in text


def test_a_fallback_is_named_with_its_reason(own):
    service = own(forecasts=((0.012, float("nan"), 0.0054),))
    status = service.ask("/v1/status").json
    assert status["status"] == "fallback"
    assert status["fallbacks"] == ["SIM-BTC"]
    assert "SIM-BTC long: base schedule in force: no trade for an hour" in status["reason"]
    assert service.ask("/ready").status == 200


async def events(service, query="", count=2, act=lambda: None):
    """Listen until some events have come."""
    sent, texts = asyncio.Queue(), []
    key = f"Bearer {service.keys['read']}".encode()
    scope = {
        "type": "http", "method": "GET", "path": "/v1/stream", "raw_path": b"/v1/stream",
        "query_string": query.encode(), "headers": [(b"authorization", key)], "root_path": "",
        "client": ("10.0.0.1", 5), "scheme": "http", "http_version": "1.1", "state": {},
        "asgi": {"version": "3.0", "spec_version": "2.4"},
    }  # fmt: skip
    body = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive():
        return body.pop() if body else await asyncio.Future()

    task = asyncio.create_task(service.app(scope, receive, sent.put))
    try:
        start = await sent.get()
        assert start["status"] == 200
        while len(texts) < count:
            texts.append((await asyncio.wait_for(sent.get(), 5))["body"].decode())
            act()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return texts


def parsed(text):
    identity, kind, data = text.strip().split("\n")
    assert kind == "event: margins"
    found = json.loads(data.removeprefix("data: "))
    version = (
        f"{found['number']}.{found['revision']}" if found["revision"] else str(found["number"])
    )
    assert identity == f"id: {version}"
    return found


@pytest.mark.parametrize(("query", "told"), [("", ["SIM-ALT"]), ("symbols=SIM-BTC,X", [])])
def test_listeners_are_told_of_what_changed(own, query, told):
    service = own()
    shown = service.state.view.snapshot
    later = replace(shown.header, revision=1)
    changed = contracts_of(levels_of((0.03,), ("SIM-ALT",), at=datetime(2026, 1, 10, tzinfo=UTC)))

    def act():
        service.state.board.show(shown.replaced(later, changed))

    first, second = map(parsed, service.loop.run_until_complete(events(service, query, act=act)))
    assert (first["number"], first["revision"], first["changed"]) == (3, 0, [])
    assert second["revision"] == 1
    assert [one["symbol"] for one in second["changed"]] == told
    for one in second["changed"]:
        assert one["sides"][0]["mmrs"] == changed["SIM-ALT"]["long"].values("mmr")
    # who left is forgotten
    assert service.state.streams == 0
    assert "margincast_streams 0.0" in service.state.metrics.text().decode()


def test_streams_are_counted_and_limited(own):
    service = own("limits.streams=1")
    headers = {"authorization": f"Bearer {service.keys['read']}"}

    async def two():
        first = asyncio.create_task(events(service))
        while not service.state.streams:  # noqa: ASYNC110  # the service has no such event
            await asyncio.sleep(0)
        second = await ask(service.app, "GET", "/v1/stream", headers)
        service.state.board.close()
        return second, await first

    refused, _ = service.loop.run_until_complete(two())
    assert refused.status == 429
    assert "all streams are taken" in refused.json["detail"]
    assert service.state.streams == 0


def test_a_stream_ends_with_its_key_and_tells_nothing_more(own):
    service = own()
    shown = service.state.view.snapshot
    identifier = service.keys["read"].split("_")[1]

    def revoke_and_change():
        if service.state.view.snapshot is not shown:
            return
        service.state.key_file.revoke(identifier, now=datetime.now(UTC))
        service.state.keys = KeyRing(service.state.key_file.read())
        service.state.board.show(shown.replaced(replace(shown.header, revision=1), {}))

    texts = service.loop.run_until_complete(events(service, count=2, act=revoke_and_change))
    assert texts[1:] == [""]


def test_listeners_of_a_change_share_what_is_written(own):
    service = own()
    shown = service.state.view.snapshot
    changed = contracts_of(levels_of((0.03,), ("SIM-ALT",), at=datetime(2026, 1, 10, tzinfo=UTC)))
    change = Change(shown, shown.replaced(replace(shown.header, revision=1), changed))
    _rates_of.cache_clear()
    every = parsed(event_of(change, frozenset(), with_margins=True).decode())
    one = parsed(event_of(change, frozenset({"SIM-ALT", "SIM-BTC"}), with_margins=True).decode())
    assert every == one
    assert _rates_of.cache_info().misses == 1


def test_an_answer_about_a_publication_keeps_to_it_while_another_comes(own):
    service = own()
    before = service.state.view
    publish(service.workspace, (0.05, 0.0041, 0.0054), at=NEWEST + timedelta(hours=1))
    service.look()
    assert service.state.view.snapshot.header.number == 4
    record = service.loop.run_until_complete(service.state.record_of(before))
    assert record.number == 3


def test_a_stream_ends_when_the_service_does(own):
    service = own()
    stopped = asyncio.Event()

    async def listen_and_stop():
        async def stop():
            await asyncio.sleep(0.05)
            service.state.board.close()
            stopped.set()

        stopping = asyncio.create_task(stop())
        texts = await events(service, count=2)
        await stopping
        return texts

    texts = service.loop.run_until_complete(listen_and_stop())
    assert texts[1] == ""  # the end of the body
    assert stopped.is_set()
