"""What the service says of margins is what was published, whichever way it is asked."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.levels_case import SYMBOLS

from margincast.margin.levels import position_margin_usd
from margincast.serving.api import guard, shapes
from margincast.serving.publications.store import PublicationStore


@pytest.fixture(scope="module")
def levels(published):
    return PublicationStore(published / "publications" / "demo").latest().levels


@given(
    symbol=st.sampled_from(SYMBOLS),
    side=st.sampled_from(["long", "short"]),
    cents=st.integers(0, 200_000_000),
)
@settings(max_examples=25)
def test_the_margin_of_a_position_is_that_of_the_published_table(
    asked, levels, symbol, side, cents
):
    notional = f"{cents // 100}.{cents % 100:02}"
    rows = levels[(levels["symbol"] == symbol) & (levels["side"] == side)]
    answer = asked.ask(f"/v1/margins/{symbol}?side={side}&notional_usd={notional}")
    (position,) = shapes.Margins.model_validate_json(answer.content).positions
    expected = position_margin_usd(float(Fraction(notional)), rows)
    assert position.maintenance_margin_usd == expected
    tier = rows.iloc[position.tier - 1]
    assert tier["tier_floor_usd"] <= position.notional_usd <= tier["tier_cap_usd"]
    assert position.initial_margin_usd == pytest.approx(tier["imr"] * position.notional_usd)


QUERIES = ("", "side=long", "side=short", "notional_usd=0", "side=long&notional_usd=12345.67")


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("version", ["", '"3"', 'W/"3", "2"', '"2"', "*"])
def test_the_quick_way_and_the_long_way_answer_alike(asked, monkeypatch, query, version):
    path = f"/v1/margins/SIM-ETH?{query}"
    headers = {"if-none-match": version} if version else {}
    quick = asked.ask(path, headers=headers)
    monkeypatch.setattr(guard.Guard, "_quick", lambda *_: None)
    long = asked.ask(path, headers=headers)
    assert (quick.status, quick.content) == (long.status, long.content)
    assert quick.headers == long.headers
    known = version not in {"", '"2"'}
    assert quick.status == (304 if known else 200)


@pytest.mark.parametrize("query", QUERIES)
def test_usual_questions_go_the_quick_way(query):
    assert guard._QUICK.fullmatch(query.encode())


@pytest.mark.parametrize(
    "query",
    [
        "side=both", "side=", "notional_usd=-1", "notional_usd=1e9", "notional_usd=NaN", "extra=1",
        "notional_usd=5000000000", "side=long&side=short", "notional_usd=0x10", "side=long;drop",
    ],
)  # fmt: skip
def test_other_questions_are_refused_by_name(asked, query):
    answer = asked.ask(f"/v1/margins/SIM-BTC?{query}")
    assert answer.status in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"
    shapes.Problem.model_validate_json(answer.content)


def test_all_tiers_of_all_contracts_are_served_page_by_page(asked, levels):
    found, after = [], ""
    while after is not None:
        answer = asked.ask(f"/v1/margins?limit=2&after={after}")
        page = shapes.Table.model_validate_json(answer.content)
        found += [
            (one.symbol, side.side, tier.tier, tier.mmr, tier.imr, tier.maintenance_amount_usd)
            for one in page.contracts
            for side in one.sides
            for tier in side.tiers
        ]
        after = page.next
    columns = ["symbol", "side", "tier", "mmr", "imr", "maintenance_amount"]
    assert found == list(levels[columns].itertuples(index=False, name=None))


def test_a_page_is_never_larger_than_a_batch(own):
    service = own("limits.batch=2")
    for path, name in (("/v1/margins", "contracts"), ("/v1/forecasts?side=long", "forecasts")):
        page = service.ask(f"{path}{'&' if '?' in path else '?'}limit=100").json
        assert [one["symbol"] for one in page[name]] == list(SYMBOLS[:2])
        assert page["next"] == SYMBOLS[1]


def test_contracts_are_found_by_status(own):
    service = own(forecasts=((0.012, float("nan"), 0.0054),))
    found = service.ask("/v1/margins?status=fallback").json["contracts"]
    assert [one["symbol"] for one in found] == ["SIM-BTC"]
    assert found[0]["sides"][0]["forecast"] is None
    (moment,) = service.ask("/v1/history/SIM-BTC?side=long").json["moments"]
    assert (moment["status"], moment["forecast"]) == ("fallback", None)
    calm = service.ask("/v1/margins?status=ok").json["contracts"]
    assert [one["symbol"] for one in calm] == ["SIM-ALT", "SIM-ETH"]


def test_an_unknown_contract_is_told_its_neighbour(asked):
    answer = asked.ask("/v1/margins/SIM-BTX")
    assert answer.status == 404
    assert "did you mean 'SIM-BTC'?" in answer.json["detail"]


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/forecasts", shapes.Forecasts),
        ("/v1/model", shapes.Model),
        ("/v1/policy", shapes.PolicyInForce),
        ("/v1/publications", shapes.PublicationList),
        ("/v1/history/SIM-ALT?side=short&tier=2", shapes.History),
        ("/v1/explain/SIM-ALT?side=long&notional_usd=20000", shapes.Explanation),
        ("/v1/status", shapes.StatusAnswer),
        ("/health", shapes.Health),
        ("/ready", shapes.Health),
    ],
)
def test_answers_have_the_shape_that_is_promised(asked, path, shape):
    answer = asked.ask(path)
    assert answer.status == 200
    shape.model_validate_json(answer.content)


def test_history_says_what_every_publication_said(asked, published):
    moments = asked.ask("/v1/history/SIM-ETH?side=long&tier=2").json["moments"]
    store = PublicationStore(published / "publications" / "demo")
    for moment, number in zip(moments, (1, 2, 3), strict=True):
        table = store.read(number).levels.set_index(["symbol", "side", "tier"])
        row = table.loc[("SIM-ETH", "long", 2)]
        for name in ("mmr", "imr", "multiplier", "forecast"):
            assert moment[name] == row[name]
    short = asked.ask("/v1/history/SIM-ETH?side=long&limit=1").json["moments"]
    assert [one["number"] for one in short] == [3]


def test_the_explanation_ends_at_the_rate_that_is_charged(asked):
    answer = asked.ask("/v1/explain/SIM-BTC?side=long&notional_usd=5000000").json
    assert answer["tier"] == 3
    steps = answer["steps"]
    assert [one["after"] for one in steps[:-1]] == [one["before"] for one in steps[1:]]
    assert steps[-1]["after"] == answer["mmr"]


def test_publications_are_listed_newest_first_and_paged(asked):
    page = asked.ask("/v1/publications?limit=2").json
    assert [one["number"] for one in page["publications"]] == [3, 2]
    rest = asked.ask(f"/v1/publications?limit=2&before={page['next']}").json
    assert [one["number"] for one in rest["publications"]] == [1]
    assert rest["next"] is None
