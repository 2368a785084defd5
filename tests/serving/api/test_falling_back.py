"""When nobody makes new margins: the larger of the base schedule and those shown last, and back."""

from datetime import timedelta

import pytest
from tests.serving.api.conftest import NEWEST
from tests.serving.levels_case import SYMBOLS, levels_of
from tests.serving.published_case import publish

from margincast.serving.api.past import snapshot_of
from margincast.serving.live.folder import LiveFolder
from margincast.serving.live.listener import Listener
from margincast.serving.live.receipt import Receipt
from margincast.serving.snapshot import Header, Snapshot

LIVE = (
    "live.folder=live",
    "live.look_every_milliseconds=1000",
    "live.longest_silence_milliseconds=1000",
)


def test_a_stale_publication_falls_back_and_the_next_one_ends_it(own):
    service = own("publications.max_age=36h")
    moment = [NEWEST + timedelta(hours=37)]
    service.state.now = lambda: moment[0]
    published = snapshot_of(service.state.past.publication(3)).contracts["SIM-BTC"]
    service.look()
    after = service.ask("/v1/margins/SIM-BTC")
    assert after.headers["etag"].startswith('"3.1-')
    for fallen in after.json["sides"]:
        assert fallen["status"] == "fallback"
        for row, tier in zip(published[fallen["side"]].rows, fallen["tiers"], strict=True):
            assert row["status"] == "ok"
            assert tier["mmr"] == max(row["mmr"], row["base_mmr"])
            assert "publication 3 is older than 36h" in tier["reason"]
    assert service.ask("/v1/status").json["status"] == "stale"
    # a second look changes nothing more
    service.look()
    assert service.ask("/v1/margins/SIM-BTC").headers["etag"] == after.headers["etag"]
    publish(service.workspace, (0.012, 0.0041, 0.0054), at=moment[0])
    service.look()
    assert service.ask("/v1/status").json["status"] == "ok"
    assert service.ask("/v1/margins/SIM-BTC").json["sides"][0]["status"] == "ok"


@pytest.fixture
def followed(own):
    """A service that follows a live engine, which shows what the test says, at its time."""
    service = own(*LIVE)
    moment = [NEWEST + timedelta(minutes=1)]
    service.state.now = lambda: moment[0]

    def seconds():
        return (moment[0] - NEWEST).total_seconds()

    service.state.seconds = seconds
    folder = LiveFolder(service.workspace / "live")
    folder.prepare()

    def engine(snapshot, after=0.0):
        moment[0] += timedelta(seconds=after)
        folder.write(snapshot, {}, moment[0])

    def step(after=0.0):
        moment[0] += timedelta(seconds=after)
        service.loop.run_until_complete(service.state.follow_once())
        return service.ask("/v1/status").json

    return service, engine, step


def live(revision, forecast):
    at = NEWEST + timedelta(minutes=1 + revision)
    header = Header(3, at, "live", "live decision", revision=revision)
    return Snapshot.of(levels_of((forecast, 0.0041, 0.0054), at=at), header)


def test_a_live_engine_is_followed_and_its_silence_noticed(followed):
    service, engine, step = followed
    # before it was heard of, the newest publication is served
    assert step()["publication"] == {
        "number": 3, "revision": 0, "published_at": "2026-01-10T00:00:00Z",
    }  # fmt: skip
    engine(live(1, 0.02))
    status = step()
    assert (status["status"], status["publication"]["revision"]) == ("ok", 1)
    assert service.ask("/v1/margins/SIM-ALT").json["sides"][0]["forecast"] == 0.02
    first = service.ask("/v1/margins/SIM-ALT").headers["etag"]
    engine(live(2, 0.03), after=0.5)
    assert step()["publication"]["revision"] == 2
    assert service.ask("/v1/margins/SIM-ALT").headers["etag"] != first
    # a heartbeat is enough
    engine(live(2, 0.03), after=0.9)
    assert step(after=0.9)["status"] == "ok"
    status = step(after=0.2)
    assert status["status"] == "fallback"
    assert "no heartbeat since 2026-01-10 00:01:01 UTC" in status["reason"]
    assert status["fallbacks"] == list(SYMBOLS)
    # it comes back with what it showed before
    engine(live(2, 0.03), after=5.0)
    assert step()["status"] == "ok"
    assert service.ask("/v1/margins/SIM-ALT").json["sides"][0]["forecast"] == 0.03


def test_while_the_engine_is_there_the_store_does_not_take_its_place(followed):
    service, engine, step = followed
    engine(live(1, 0.02))
    step()
    publish(service.workspace, (0.5, 0.0041, 0.0054), at=NEWEST + timedelta(hours=1))
    service.look()
    assert service.ask("/v1/status").json["publication"] == {
        "number": 3, "revision": 1, "published_at": "2026-01-10T00:02:00Z",
    }  # fmt: skip
    step(after=5.0)
    service.look()
    assert service.ask("/v1/status").json["publication"]["number"] == 4


def test_what_cannot_be_read_is_not_shown(followed, caplog):
    service, engine, step = followed
    engine(live(1, 0.02))
    (service.workspace / "live" / "levels.arrow").write_bytes(b"torn")
    status = step()
    assert status["publication"]["number"] == 3
    assert caplog.text.count("the live engine's margins cannot be read") == 1


def test_what_an_engine_left_behind_is_no_news_where_there_is_a_later_publication(followed):
    service, engine, step = followed
    engine(live(1, 0.02))
    publish(service.workspace, (0.5, 0.0041, 0.0054), at=NEWEST + timedelta(hours=1))
    # the engine is gone before this worker heard of it
    step(after=60.0)
    service.look()
    status = step()
    assert (status["status"], status["publication"]["number"]) == ("ok", 4)


@pytest.mark.parametrize("hours", [-40, 40])
def test_a_clock_that_is_wrong_by_more_than_the_age_allowed_is_no_reason_for_trust(own, hours):
    service = own("publications.max_age=36h")
    service.state.now = lambda: NEWEST + timedelta(hours=hours)
    service.look()
    assert service.ask("/v1/status").json["status"] == "stale"


def test_a_clock_that_is_set_back_makes_no_publication_younger(own):
    service = own("publications.max_age=36h")
    service.state.now = lambda: NEWEST
    started = service.state.seconds()
    service.state.seconds = lambda: started + 37 * 3_600.0
    service.look()
    assert service.ask("/v1/status").json["status"] == "stale"


def test_rows_are_handed_to_the_engine_and_its_receipt_back(followed):
    service, _, _ = followed
    taken = []

    def receive(lines):
        taken.extend(lines)
        return Receipt(1, {"no such side": 1}, 0)

    headers = {"content-type": "application/x-ndjson"}
    rows = [b'{"a":1}\n{"b":2}\n']

    def post(scope="publish"):
        return service.ask("/v1/events", "POST", scope=scope, headers=headers, pieces=rows)

    assert post().status == 503
    listener = Listener(service.workspace / "live" / "events.sock", receive, 1_000)
    try:
        answer = post()
        assert answer.json == {"taken": 1, "refused": {"no such side": 1}, "dropped": 0}
        assert taken == [b'{"a":1}', b'{"b":2}']
        assert post(scope="read").status == 403
    finally:
        listener.close()


def test_a_service_without_an_engine_takes_no_rows(asked):
    headers = {"content-type": "application/x-ndjson"}
    answer = asked.ask("/v1/events", "POST", scope="publish", headers=headers, pieces=[b"{}"])
    assert answer.status == 404
