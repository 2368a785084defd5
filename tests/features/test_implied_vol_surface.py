"""The surface of an option chain: by hand, against Black's formula, blind to what comes later."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from margincast.data.option_chains import read_option_chains
from margincast.features.implied_vol.surface import (
    SETTLING,
    surface_findings,
    surface_states,
    tenors_in,
)

START = datetime(2026, 1, 5, 8, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FORWARD = 1000.0
STRIKES = FORWARD * np.exp(np.linspace(-0.5, 0.5, 41))


def flat(volatility):
    return lambda k, _: np.full_like(k, volatility)


def svi(tilt=0.0, level=0.25, sigma=0.2):
    """Volatility of a smile whose total variance grows in proportion to time."""

    def volatility(k, years):
        return np.sqrt(level + 0.5 * (tilt * k + np.sqrt(k * k + sigma**2) - sigma))

    return volatility


def snapshot(volatility, days=(20, 40), at=START, strikes=STRIKES, forward=FORWARD, **columns):
    """Both options at every strike and expiry, priced by a function of log-moneyness and years."""
    frames = []
    for day in days:
        iv = volatility(np.log(strikes / forward), day / 365)
        frames += [
            pl.DataFrame(
                {
                    "instrument": [f"{day}-{strike:.3f}-{kind}" for strike in strikes],
                    "strike": strikes,
                    "implied_volatility": iv,
                }
            ).with_columns(
                pl.lit(at + day * DAY, pl.Datetime("us", "UTC")).alias("expiry"),
                pl.lit(kind).alias("option_type"),
            )
            for kind in ("call", "put")
        ]
    times = pl.lit(at, pl.Datetime("us", "UTC"))
    return pl.concat(frames).with_columns(
        times.alias("ts"),
        times.alias("known_at"),
        pl.lit(forward).alias("underlying_price"),
        pl.lit(0.01).alias("bid_price"),
        pl.lit(0.02).alias("ask_price"),
        **columns,
    )


def states(chain, tenors=(30,)):
    return surface_states(chain, tenors)


def volatility_at_delta(volatility, years, call_delta):
    """Black's forward delta on a smile, solved by scipy."""

    def excess(k):
        root = volatility(np.array([k]), years)[0] * math.sqrt(years)
        return norm.cdf(root / 2 - k / root) - call_delta

    k = brentq(excess, -0.5, 0.5, xtol=1e-12)
    return volatility(np.array([k]), years)[0]


# --- by hand --------------------------------------------------------------------------------------


def test_total_variance_is_linear_between_expiries():
    def volatility(k, years):
        return np.full_like(k, 0.6 if years < 30 / 365 else 0.5)

    row = states(snapshot(volatility), (20, 30, 40)).row(0, named=True)
    assert row["atm_volatility_20d"] == pytest.approx(0.6, abs=1e-6)
    assert row["atm_volatility_40d"] == pytest.approx(0.5, abs=1e-6)
    # 0.36 * 20 = 7.2 and 0.25 * 40 = 10 day-variances: 8.6 over 30 days
    assert row["atm_volatility_30d"] == pytest.approx(math.sqrt(8.6 / 30), abs=1e-6)
    assert row["skew_25_delta_30d"] == pytest.approx(0, abs=1e-6)
    assert row["butterfly_25_delta_30d"] == pytest.approx(0, abs=1e-6)


def test_nothing_is_known_far_beyond_the_listed_expiries():
    row = states(snapshot(flat(0.5)), (17, 19, 44, 45)).row(0, named=True)
    known = {name for name, value in row.items() if name.startswith("atm") and value is not None}
    # by a tenth of the tenor at most: 20 days stand for 19, 40 for 44
    assert known == {"atm_volatility_19d", "atm_volatility_44d"}
    assert row["atm_volatility_44d"] == pytest.approx(0.5, abs=1e-6)


def test_skew_and_butterfly_are_those_of_blacks_deltas():
    volatility = svi(tilt=-0.4)
    row = states(snapshot(volatility), (20,)).row(0, named=True)
    put, call = (volatility_at_delta(volatility, 20 / 365, delta) for delta in (0.75, 0.25))
    assert put > call
    assert row["skew_25_delta_20d"] == pytest.approx(put - call, abs=2e-5)
    assert row["butterfly_25_delta_20d"] == pytest.approx((put + call) / 2 - 0.5, abs=2e-5)


def test_a_delta_beyond_the_quoted_strikes_is_not_known():
    near = FORWARD * np.exp(np.linspace(-0.05, 0.05, 11))
    row = states(snapshot(svi(), strikes=near), (20,)).row(0, named=True)
    assert row["atm_volatility_20d"] == pytest.approx(0.5, abs=1e-4)
    assert row["skew_25_delta_20d"] is row["butterfly_25_delta_20d"] is None


# --- what is left out -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strikes", "known"),
    [
        ([800, 900, 950, 1050, 1100, 1200], True),
        ([800, 900, 1050, 1100, 1200], False),
        ([700, 750, 800, 900, 950, 1050], False),
    ],
    ids=["six", "five", "one call"],
)
def test_a_smile_of_too_few_strikes_is_not_known(strikes, known):
    chain = snapshot(flat(0.5), (30,), strikes=np.array(strikes, dtype=float))
    row = states(chain).row(0, named=True)
    assert (row["atm_volatility_30d"] is not None) == known
    assert (row["expiries"], row["expiries_fitted"]) == (1, int(known))
    assert row["expiries_thin"] == int(not known)


def test_bad_quotes_are_left_out_and_counted():
    option = pl.col("instrument")
    names = [f"30-{strike:.3f}-put" for strike in STRIKES[:6]]
    volatility = pl.col("implied_volatility")
    chain = snapshot(svi(tilt=-0.4), (30,)).with_columns(
        pl.when(option == names[0]).then(None).otherwise(pl.col("bid_price")).alias("bid_price"),
        pl.when(option == names[1]).then(0.001).otherwise(pl.col("ask_price")).alias("ask_price"),
        pl.when(option == names[2])
        .then(12.0)
        .when(option == names[3])
        .then(None)
        .when(option == f"30-{STRIKES[25]:.3f}-call")
        .then(2 * volatility)
        .otherwise(volatility)
        .alias("implied_volatility"),
        pl.when(option == names[4]).then(pl.col("ts")).otherwise(pl.col("expiry")).alias("expiry"),
        pl.when(option == names[5])
        .then(None)
        .otherwise(pl.col("underlying_price"))
        .alias("underlying_price"),
    )
    row = states(chain).row(0, named=True)
    counts = {name: count for name, count in row.items() if name.startswith("quotes")}
    assert counts == {
        "quotes": 82,
        "quotes_expired": 1,
        "quotes_unpriced": 3,
        "quotes_without_bid": 1,
        "quotes_crossed": 1,
        "quotes_in_the_money": 41,
        "quotes_far_off": 1,
    }
    clean = states(snapshot(svi(tilt=-0.4), (30,))).row(0, named=True)
    for name in ("atm_volatility_30d", "skew_25_delta_30d", "butterfly_25_delta_30d"):
        assert row[name] == pytest.approx(clean[name], abs=5e-4)
    findings = {one.what: (one.count, one.total) for one in surface_findings(states(chain), "BTC")}
    assert findings["out-of-the-money option without a bid"] == (1, 82)
    assert findings["volatility far from the smile of the others"] == (1, 82)
    assert findings["expiry with too few quotes for a smile"] == (0, 1)


def test_a_feed_without_bids_is_fitted_from_its_volatilities():
    row = states(snapshot(flat(0.5)).drop("bid_price", "ask_price")).row(0, named=True)
    assert row["atm_volatility_30d"] == pytest.approx(0.5, abs=1e-6)
    assert row["quotes_without_bid"] == 0


def test_noise_is_no_smile():
    generator = np.random.default_rng(3)

    def volatility(k, years):
        return 0.5 * np.exp(0.4 * generator.standard_normal(len(k)))

    row = states(snapshot(volatility)).row(0, named=True)
    assert row["expiries_fitted"] == 0
    assert row["expiries_badly_fitted"] + row["expiries_with_arbitrage"] == 2
    assert row["atm_volatility_30d"] is None


def test_a_calendar_spread_that_costs_nothing_is_mended():
    def volatility(k, years):
        # 0.36 * 20 = 7.2 day-variances, and 7.0 twice as long ahead
        return np.full_like(k, 0.6 if years < 30 / 365 else math.sqrt(7.0 / 40))

    row = states(snapshot(volatility), (20, 40)).row(0, named=True)
    assert row["calendars_mended"] == 1
    nearer, further = (row[f"atm_volatility_{days}d"] ** 2 * days for days in (20, 40))
    assert nearer == pytest.approx(7.2, rel=1e-4)
    assert nearer * (1 - 1e-9) <= further < nearer * 1.005


def steep(k, _):
    """Volatility of a smile with wings far steeper than those of later expiries."""
    return np.sqrt(0.25 + 2 * (np.sqrt(k * k + 0.04) - 0.2))


def within(reach):
    return FORWARD * np.exp(np.linspace(-reach, reach, 21))


@pytest.mark.parametrize(
    ("near", "far", "mended"),
    [(0.2, 0.5, 0), (0.5, 0.2, 0), (0.2, 0.2, 0), (0.5, 0.5, 1), (0.55, 0.5, 1), (0.6, 0.45, 0)],
)
def test_a_calendar_spread_is_one_of_strikes_that_both_expiries_quote(near, far, mended):
    # 0.44 * 40 = 17.6 day-variances: the steep smile has more of them beyond k = 0.474 alone
    level = math.sqrt(0.44)
    chain = pl.concat(
        [
            snapshot(steep, (20,), strikes=within(near)),
            snapshot(flat(level), (40,), strikes=within(far)),
        ]
    )
    row = states(chain, (40,)).row(0, named=True)
    assert row["calendars_mended"] == mended
    assert row["expiries_fitted"] == 2
    if not mended:
        assert row["atm_volatility_40d"] == pytest.approx(level, abs=1e-9)
        assert row["skew_25_delta_40d"] == pytest.approx(0, abs=1e-9)
        assert row["butterfly_25_delta_40d"] == pytest.approx(0, abs=1e-9)


def test_a_calendar_spread_is_one_of_neighbouring_expiries():
    # what the second would be where only the first and the third are quoted is not known
    wide, narrow = within(0.5), within(0.2)
    chain = pl.concat(
        [
            snapshot(flat(0.4), (10,), strikes=wide),
            snapshot(steep, (20,), strikes=narrow),
            snapshot(flat(math.sqrt(0.44)), (40,), strikes=wide),
        ]
    )
    row = states(chain).row(0, named=True)
    assert (row["expiries_fitted"], row["calendars_mended"]) == (3, 0)


# --- properties -----------------------------------------------------------------------------------

TILTS = st.floats(-0.6, 0.6)
MEASURES = ("atm_volatility_30d", "skew_25_delta_30d", "butterfly_25_delta_30d")


@settings(max_examples=20)
@given(TILTS, st.floats(0.05, 0.5))
def test_a_mirrored_smile_flips_the_skew(tilt, level):
    # days from expiry, when deltas themselves are all but symmetric
    strikes = FORWARD * np.exp(np.linspace(-0.2, 0.2, 41))
    one, other = (
        surface_states(
            snapshot(svi(sign * tilt, level, sigma=0.05), (1, 2), strikes=strikes), (1.5,)
        )
        .select("atm_volatility_1.5d", "skew_25_delta_1.5d", "butterfly_25_delta_1.5d")
        .row(0)
        for sign in (1, -1)
    )
    assert one[0] == pytest.approx(other[0], abs=1e-4)
    assert one[1] == pytest.approx(-other[1], abs=0.005)
    assert one[2] == pytest.approx(other[2], abs=0.005)
    if abs(tilt) > 0.1:
        assert np.sign(one[1]) == -np.sign(tilt) == -np.sign(other[1])


@settings(max_examples=15)
@given(TILTS, st.sampled_from([2.0**-20, 0.5, 4.0, 1024.0]))
def test_the_currencys_unit_changes_nothing(tilt, factor):
    one = states(snapshot(svi(tilt)))
    other = states(snapshot(svi(tilt), strikes=STRIKES * factor, forward=FORWARD * factor))
    assert one.select(MEASURES).row(0) == pytest.approx(other.select(MEASURES).row(0), abs=1e-7)


@settings(max_examples=15)
@given(TILTS, st.floats(0.01, 2.0))
def test_values_stay_within_the_quoted_volatilities(tilt, level):
    chain = snapshot(svi(tilt, level))
    least, most = chain["implied_volatility"].min(), chain["implied_volatility"].max()
    center, skew, butterfly = states(chain).select(MEASURES).row(0)
    assert least - 1e-3 <= center <= most + 1e-3
    if skew is not None:
        for side in (1, -1):
            assert least - 1e-3 <= center + butterfly + side * skew / 2 <= most + 1e-3


ARRIVALS = ("together", "one by one", "in halves", "some late")


def received(chain, generator, how):
    """The rows of a snapshot in random order, with times at which they arrive, in seconds."""
    rows = len(chain)
    match how:
        case "together":
            delay = np.full(rows, generator.integers(0, 90))
        case "one by one":
            delay = np.cumsum(generator.integers(0, 3, rows))
        case "in halves":
            delay = np.where(np.arange(rows) < rows / 2, 0, generator.integers(1, 150))
        case "some late":
            late = generator.random(rows) < 0.1
            delay = np.where(late, generator.integers(1, 6000, rows), 0)
    times = pl.Series(generator.permutation(delay)) * SECOND
    return chain.with_columns((pl.col("ts") + times).alias("known_at"))


def series(seed, count=3):
    """Snapshots an hour apart, each of its own smile, each arriving in its own way."""
    generator = np.random.default_rng(seed)
    frames = []
    for number in range(count):
        smile = svi(generator.uniform(-0.6, 0.6), generator.uniform(0.1, 0.6))
        chain = snapshot(smile, at=START + number * HOUR, strikes=STRIKES[::4])
        frames.append(received(chain, generator, generator.choice(ARRIVALS)))
    return pl.concat(frames).sample(fraction=1, shuffle=True, seed=seed)


@st.composite
def series_and_times(draw):
    """A chain and a time at or near which some of its rows arrive."""
    chain = series(draw(st.integers(0, 10**6)))
    arrival = (
        chain["known_at"]
        .unique()
        .sort()[draw(st.integers(0, 10**6)) % chain["known_at"].n_unique()]
    )
    return chain, arrival + draw(st.sampled_from([-1, 0, 1, 29, 59, 60, 61, 600])) * SECOND


@settings(max_examples=15)
@given(series_and_times())
def test_rows_known_later_change_nothing(case):
    chain, at = case
    by_then = pl.col("known_at") <= at
    whole = states(chain).filter(by_then)
    assert whole.equals(states(chain.filter(by_then)).filter(by_then))
    volatility = pl.col("implied_volatility")
    moved = chain.with_columns(
        pl.when(by_then).then(volatility).otherwise(volatility * 1.7).alias("implied_volatility")
    )
    assert whole.equals(states(moved).filter(by_then))


@settings(max_examples=15)
@given(series_and_times())
def test_every_row_counts_when_it_has_settled_and_none_before_it_arrived(case):
    chain, at = case
    known = states(chain).filter(pl.col("known_at") <= at)
    arrived = chain.filter(pl.col("known_at") <= at)
    settled = chain.filter(pl.col("known_at") <= at - SETTLING)
    newest = settled["ts"].max()
    if newest is not None:
        assert known["ts"][-1] >= newest
    if len(known):
        ts = pl.col("ts") == known["ts"][-1]
        assert len(settled.filter(ts)) <= known["quotes"][-1] <= len(arrived.filter(ts))


# --- arrivals -------------------------------------------------------------------------------------


def arriving(chain, *parts):
    """Rows of a chain, so many of them (the rest where None) so long after its time."""
    delays = [delay for count, delay in parts for _ in range(count)]
    times = pl.Series(delays, dtype=pl.Duration("us"))
    return chain.with_columns((pl.col("ts") + times).alias("known_at"))


def test_a_snapshot_that_arrives_row_by_row_is_fitted_once_when_it_has_settled():
    old, new = snapshot(flat(0.5)), snapshot(flat(0.6), at=START + HOUR)
    rows = len(new)
    new = arriving(new, *((1, number * timedelta(milliseconds=5)) for number in range(rows)))
    surface = states(pl.concat([old, new]))
    assert surface["known_at"].to_list() == [START, START + HOUR + SETTLING]
    assert surface["atm_volatility_30d"].to_list() == pytest.approx([0.5, 0.6], abs=1e-6)
    assert surface["quotes"].to_list() == [rows, rows]


def test_one_that_arrives_at_the_end_of_a_minute_belongs_to_it():
    whole = snapshot(flat(0.5))
    rows = len(whole)
    times = [timedelta(0), SETTLING, SETTLING + SECOND, SETTLING + 2 * SECOND]
    surface = states(arriving(whole, (rows - 3, times[0]), *((1, delay) for delay in times[1:])))
    expected = [times[0], SETTLING, SETTLING + SECOND, 2 * SETTLING + SECOND]
    assert surface["known_at"].to_list() == [START + delay for delay in expected]
    assert surface["quotes"].to_list() == [rows - 3, rows - 2, rows - 1, rows]


def test_a_snapshot_that_may_be_whole_counts_at_once_and_its_stragglers_together():
    whole = snapshot(flat(0.5))
    rows = len(whole)
    parts = [(rows - 9, timedelta(0)), (1, SECOND), (2, SETTLING)]
    # a minute and a second after the first: late, and those that come soon after it
    parts += [(1, MINUTE + SECOND), (2, MINUTE + 2 * SECOND), (1, 2 * MINUTE), (2, HOUR)]
    surface = states(arriving(whole, *parts))
    assert list(zip(surface["known_at"], surface["quotes"], strict=True)) == [
        (START, rows - 9),
        (START + MINUTE, rows - 6),
        (START + MINUTE + SECOND, rows - 5),
        (START + 2 * MINUTE + SECOND, rows - 2),
        (START + HOUR, rows),
    ]


@pytest.mark.parametrize(("share", "waits"), [(0.74, SETTLING), (0.76, timedelta(0))])
def test_a_first_arrival_of_few_rows_waits_whether_or_not_more_will_come(share, waits):
    old, new = snapshot(flat(0.5)), snapshot(flat(0.6), at=START + HOUR)
    first = math.ceil(share * len(new))
    more = arriving(new, (first, timedelta(0)), (len(new) - first, 30 * SECOND))
    for later in (new.head(first), more):
        surface = states(pl.concat([old, later]))
        assert surface["known_at"][1] == START + HOUR + waits
    # a chain that has become smaller for good is waited for once
    smaller = pl.concat(
        [
            old,
            *(
                new.head(first).with_columns(ts=at, known_at=at)
                for at in (
                    pl.lit(START + number * HOUR, pl.Datetime("us", "UTC")) for number in (1, 2)
                )
            ),
        ]
    )
    assert states(smaller)["known_at"].to_list() == [
        START,
        START + HOUR + waits,
        START + 2 * HOUR,
    ]


def test_a_snapshot_still_settling_gives_way_to_a_newer_one():
    old, part, new = (snapshot(flat(0.5), at=START + number * 30 * SECOND) for number in range(3))
    surface = states(pl.concat([old, part.head(20), new]))
    assert surface["known_at"].to_list() == [START, START + MINUTE]
    assert surface["ts"].to_list() == [START, START + MINUTE]


def test_findings_count_a_snapshot_once_as_it_was_last_known():
    chain = snapshot(flat(0.5)).with_columns(
        pl.when(pl.col("strike") == STRIKES[3])
        .then(None)
        .otherwise(pl.col("bid_price"))
        .alias("bid_price")
    )
    rows = len(chain)
    late = arriving(chain.reverse(), (rows - 20, timedelta(0)), (10, MINUTE), (10, HOUR))
    assert len(states(late)) == 3
    at_once = surface_findings(states(chain), "BTC")
    assert surface_findings(states(late), "BTC") == at_once
    # a put without a bid at either expiry; its call is in the money
    assert {one.what: (one.count, one.total) for one in at_once}[
        "out-of-the-money option without a bid"
    ] == (2, rows)


def test_an_old_snapshots_late_row_does_not_replace_a_newer_one():
    late = pl.when(pl.col("strike") == STRIKES[3]).then(pl.col("ts") + 2 * HOUR)
    old = snapshot(flat(0.5), (30,)).with_columns(late.otherwise(pl.col("ts")).alias("known_at"))
    new = snapshot(flat(0.7), (30,), at=START + HOUR)
    surface = states(pl.concat([old, new]))
    assert surface["ts"].to_list() == [START, START + HOUR]
    assert surface["known_at"].to_list() == [START, START + HOUR]
    # while it is the newest, a row that comes late is waited for and then counts
    alone = states(old)
    assert alone["known_at"].to_list() == [START, START + 2 * HOUR]
    assert alone["quotes"].to_list() == [80, 82]


def test_tenors_are_read_off_column_names():
    names = ["close", "skew_25_delta_30d", "atm_volatility_0.5d", "atm_volatility_30d", "xd"]
    assert tenors_in(names) == [0.5, 30.0]
    assert states(snapshot(flat(0.5)), ()).columns[:3] == ["known_at", "ts", "error"]


# --- the real chain -------------------------------------------------------------------------------


def real_chain(shared_data, folder):
    """The shared Deribit snapshots of 5 February 2026 under canonical names."""
    raw = pl.read_parquet(shared_data / "data/options/deribit_chain_snapshots.parquet")
    day = raw.filter(
        (pl.col("currency") == "BTC") & (pl.col("timestamp").dt.date() == pl.date(2026, 2, 5))
    ).rename(
        {
            "timestamp": "ts",
            "instrument_name": "instrument",
            "expiry_datetime": "expiry",
            "underlying": "underlying_price",
        }
    )
    day.write_parquet(folder / "BTC.parquet")
    return read_option_chains(folder, ["BTC.parquet"]).frames["BTC"]


def test_deribits_marks_are_black_prices_at_its_volatilities(shared_data, tmp_path):
    chain = real_chain(shared_data, tmp_path).filter(
        (pl.col("implied_volatility") > 0) & (pl.col("delta").abs().is_between(0.05, 0.95))
    )
    years = ((chain["expiry"] - chain["ts"]).dt.total_microseconds() / (365 * 86_400e6)).to_numpy()
    k = np.log(chain["strike"].to_numpy() / chain["underlying_price"].to_numpy())
    root = chain["implied_volatility"].to_numpy() * np.sqrt(years)
    sign = np.where(chain["option_type"] == "call", 1, -1)
    # in coins: the price over the forward
    price = sign * (
        norm.cdf(sign * (root / 2 - k / root)) - np.exp(k) * norm.cdf(sign * (-root / 2 - k / root))
    )
    error = np.abs(price - chain["mark_price"].to_numpy())
    # forward, day count and unit are right, or this would be wrong by far more than half a tick
    assert np.quantile(error, 0.95) < 5e-4


def test_the_fifth_of_february_2026(shared_data, tmp_path):
    surface = states(real_chain(shared_data, tmp_path), (7, 30))
    assert surface["ts"].is_sorted()
    assert len(surface) == 4
    # the day's fall from 73 000 to 63 000 USD
    assert surface["atm_volatility_30d"].to_list() == pytest.approx(
        [0.539, 0.526, 0.632, 0.787], abs=0.003
    )
    assert surface["skew_25_delta_30d"].is_between(0.07, 0.21).all()
    assert (surface["atm_volatility_7d"] > surface["atm_volatility_30d"]).all()
    assert (surface["expiries_fitted"] >= 0.8 * surface["expiries"]).all()
    assert (surface["error"] < 0.01).all()
    # the nearest expiries are quoted far less widely than the next; nothing is free where both are
    assert surface["calendars_mended"].sum() == 0
