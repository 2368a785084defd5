"""What if: the next publication, an account and its moves, computed as the real ones are."""

import json
from datetime import timedelta

import numpy as np
import pytest
from tests.serving.api.conftest import NEWEST
from tests.serving.published_case import publish

from margincast.serving.api import shapes
from margincast.serving.api.view import side_of
from margincast.serving.publications.store import PublicationStore
from margincast.serving.snapshot import contracts_of

POSITION = {
    "symbol": "SIM-BTC", "side": "long", "size": 2.0, "entry_price": 5e4, "mark_price": 5e4,
}  # fmt: skip
CASH = {"asset": "USD", "amount": 10_000.0, "price_usd": 1.0, "haircut": 0.0}


def supposed(service, **question):
    answer = service.ask(
        "/v1/what-if/margin", "POST", scope="score", body={"symbol": "SIM-BTC", **question}
    )
    assert answer.status == 200, answer.text
    return shapes.MarginAnswer.model_validate_json(answer.content)


@pytest.mark.parametrize("multiple", [0.25, 1.0, 5.0, 80.0])
def test_what_is_supposed_is_what_the_next_publication_says(own, multiple):
    service = own()
    found = supposed(service, forecast_multiple=multiple, after_minutes=90)
    # the same forecasts, published in earnest
    after = NEWEST + timedelta(minutes=90)
    publish(service.workspace, (0.011, 0.0052 * multiple, 0.0061), at=after)
    store = PublicationStore(service.workspace / "publications" / "demo")
    table = contracts_of(store.latest().levels)["SIM-BTC"]
    expected = [side_of(one) for one in table.values()]
    answered = [one.model_dump(mode="json") for one in found.supposed]
    for one, other in zip(answered, expected, strict=True):
        for side in (one, other):
            del side["data_as_of"]  # the supposed forecasts are as old as the last ones
            side["forecast"] = side["forecast"] and round(side["forecast"], 12)
            for tier in side["tiers"]:
                del tier["reason"]
        assert one == other


def test_a_thin_book_costs_more_and_a_forecast_of_one_side_leaves_the_other(asked):
    def book(size):
        return {
            "bids": [{"price": 100.0 - 0.01 * level, "size": size} for level in range(1, 21)],
            "asks": [{"price": 100.0 + 0.01 * level, "size": size} for level in range(1, 21)],
        }

    thick, thin = (supposed(asked, book=book(size)).supposed[0].tiers[1].mmr for size in (1e6, 1.0))
    assert thick < thin
    plain = supposed(asked)
    bent = supposed(asked, forecasts={"short": 0.02})
    assert bent.supposed[0] == plain.supposed[0]
    assert bent.supposed[1].tiers[0].mmr > plain.supposed[1].tiers[0].mmr


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (
            {"book": {"bids": [{"price": 2, "size": 1}], "asks": [{"price": 1, "size": 1}]}},
            "crossed",
        ),
        (
            {"book": {"bids": [{"price": 1, "size": 1}] * 2, "asks": [{"price": 2, "size": 1}]}},
            "each price once",
        ),
        ({"forecast_multiple": 0}, "1 problem"),
        ({"forecasts": {"both": 0.1}}, "1 problem"),
        ({"unknown": 1}, "1 problem"),
        ({"after_minutes": 10**9}, "1 problem"),
    ],
)
def test_what_cannot_be_supposed_is_refused(asked, question, message):
    body = {"symbol": "SIM-BTC", **question}
    answer = asked.ask("/v1/what-if/margin", "POST", scope="score", body=body)
    assert answer.status == 422
    assert message in answer.json["detail"]


def judged(service, **question):
    answer = service.ask("/v1/what-if/account", "POST", scope="score", body=question)
    assert answer.status == 200, answer.text
    return shapes.AccountAnswer.model_validate_json(answer.content)


def test_an_account_is_judged_now_and_after_moves(asked):
    found = judged(asked, positions=[POSITION], collateral=[CASH], moves={"SIM-BTC": -0.05})
    (now,), (after,) = found.now, found.after_moves
    assert now.equity_usd == 10_000.0
    margin = asked.ask("/v1/margins/SIM-BTC?side=long&notional_usd=100000").json["positions"][0]
    assert now.maintenance_margin_usd == margin["maintenance_margin_usd"]
    assert now.initial_margin_usd == margin["initial_margin_usd"]
    assert after.equity_usd == 5_000.0
    # by hand: at the move `down` equity is the margin of what is left of the notional
    rate = now.maintenance_margin_usd / 100_000.0
    left = 10_000.0 + 100_000.0 * now.down
    assert left == pytest.approx(rate * 100_000.0 * (1 + now.down))
    just_above = judged(
        asked, positions=[POSITION], collateral=[CASH], moves={"SIM-BTC": now.down + 1e-9}
    )
    just_below = judged(
        asked, positions=[POSITION], collateral=[CASH], moves={"SIM-BTC": now.down - 1e-9}
    )
    assert not just_above.after_moves[0].is_below_maintenance
    assert just_below.after_moves[0].is_below_maintenance


def test_a_rate_that_is_only_announced_is_not_charged_yet(own):
    service = own()
    levels = service.state.view.snapshot.contracts["SIM-BTC"]["long"]
    columns = dict(levels.columns)
    later = np.datetime64("2100-01-01", "us")
    columns["effective_from"] = np.where(
        columns["tier"] > 0, later, columns["effective_from"]
    ).astype("datetime64[us]")
    columns["mmr_in_force"] = columns["mmr"] / 2
    object.__setattr__(levels, "columns", columns)
    charged, published = (
        judged(service, positions=[POSITION], rates=rates).now[0].maintenance_margin_usd
        for rates in ("in_force", "published")
    )
    assert charged == pytest.approx(published / 2)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"positions": [POSITION, POSITION]}, "found twice"),
        ({"positions": [{**POSITION, "size": 1e6}]}, "above the last tier"),
        ({"positions": [POSITION], "moves": {"SIM-ETH": 0.1}}, "no position or collateral follows"),
        ({"positions": []}, "1 problem"),
        ({"positions": [{**POSITION, "size": "NaN"}]}, "1 problem"),
        ({"positions": [{**POSITION, "size": "1"}]}, "1 problem"),
        ({"positions": [{**POSITION, "size": True}]}, "1 problem"),
        ({"positions": [POSITION] * 501}, "at most 500"),
    ],
)
def test_an_account_that_cannot_be_is_refused(asked, question, message):
    answer = asked.ask("/v1/what-if/account", "POST", scope="score", body=question)
    assert answer.status == 422
    assert message in answer.json["detail"]


def test_a_position_in_an_unknown_contract_is_not_found(asked):
    question = {"positions": [{**POSITION, "symbol": "SIM-BTX"}]}
    answer = asked.ask("/v1/what-if/account", "POST", scope="score", body=question)
    assert answer.status == 404
    assert "did you mean 'SIM-BTC'?" in answer.json["detail"]


@pytest.mark.parametrize("twice", ['"size": 1, "size": 100', '"size": 1, "si\\u007ae": 100'])
def test_a_key_that_stands_twice_is_refused(asked, twice):
    body = json.dumps({"positions": [{**POSITION, "size": "?"}]}).replace('"size": "?"', twice)
    answer = asked.ask(
        "/v1/what-if/account", "POST", scope="score", pieces=[body.encode()],
        headers={"content-type": "application/json"},
    )  # fmt: skip
    assert answer.status == 400
    assert "'size' more than once" in answer.json["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b'{"positions": 1e999}'])
def test_a_body_that_is_no_question_is_refused(asked, body):
    answer = asked.ask(
        "/v1/what-if/account", "POST", scope="score", pieces=[body],
        headers={"content-type": "application/json"},
    )  # fmt: skip
    assert answer.status in {400, 422}
    shapes.Problem.model_validate_json(answer.content)
