"""A stream gives the rows of the batch, one decision at a time, from the last events alone."""

import pickle
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from margincast.core.errors import InputError
from margincast.data.bars import BarTable, regular_bars
from margincast.data.book import BookTable, mended_book
from margincast.data.mid_bars import mid_bars
from margincast.data.schemas import TIMESTAMP
from margincast.data.states import StateTable
from margincast.data.trades import AGGRESSOR_SIDES, TradeTable
from margincast.features.library import LIBRARY
from margincast.features.pipeline import build_features
from margincast.features.sources import Sources
from margincast.features.stream import FeatureStream
from margincast.specs.features import FeatureSet
from margincast.specs.loading import load_spec, validate_spec

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
WORKSPACE = Path(__file__).resolve().parents[2]
STATES = {
    "funding": ("funding_rate",),
    "open_interest": ("open_interest", "open_interest_usd"),
    "implied_vol": ("implied_volatility",),
}


# --- a simulated market, as the batch reads it and as a stream is given it -----------------------


@dataclass
class Feed:
    """A market: what the batch reads, and the updates in the order in which they arrive."""

    sources: Sources
    updates: list = field(default_factory=list)

    def give(self, stream, after, until):
        """Give a stream what arrives in (after, until]."""
        for arrival, method, arguments in self.updates:
            if after < arrival <= until:
                getattr(stream, method)(*arguments)


def price_path(rng, count, steps):
    """A walk of heavy tails with still stretches and a crash, shape (count, steps)."""
    moves = np.clip(rng.standard_t(2.5, (count, steps)) * 0.003, -0.3, 0.3)
    for start in rng.integers(0, count, 2):
        moves[start : start + rng.integers(1, 6)] = 0.0
    moves[rng.integers(0, count), rng.integers(0, steps)] = rng.choice([-2.5, -0.7, 0.7])
    return 100 * np.exp(np.cumsum(moves).reshape(count, steps))


def raw_bars(rng, count, interval, start):
    path = price_path(rng, count, 6)
    opens = np.concatenate([[100.0], path[:-1, -1]])
    frame = pl.DataFrame(
        {
            "ts": [start + i * interval for i in range(count)],
            "open": opens,
            "high": np.maximum(path.max(axis=1), opens),
            "low": np.minimum(path.min(axis=1), opens),
            "close": path[:, -1],
            "volume": rng.lognormal(3, 1, count),
            "mark_close": path[:, -1] * np.exp(rng.normal(0, 1e-4, count)),
            "index_close": path[:, -1] * np.exp(rng.normal(0, 1e-4, count)),
        },
        schema_overrides={"ts": TIMESTAMP},
    )
    still = pl.Series(rng.random(count) < 0.03)
    stale = frame.with_columns(
        *(
            pl.when(still).then("open").otherwise(name).alias(name)
            for name in ("high", "low", "close")
        ),
        pl.when(still).then(0.0).otherwise("volume").alias("volume"),
    )
    there = rng.random(count) > 0.04
    hole = rng.integers(count // 4, count)
    there[hole : hole + rng.integers(0, 12)] = False
    there[[0, -1]] = True
    return stale.filter(pl.Series(there))


def instead(where, value, name):
    return pl.when(where).then(value).otherwise(name).alias(name)


def raw_book(rng, start, seconds, levels, step):
    """Snapshots as a feed gives them: late, repeated, broken, short of levels, with holes."""
    count = seconds // step
    mid = price_path(rng, count, 1)[:, 0]
    ts = [start + timedelta(seconds=int(i * step)) for i in range(count)]
    columns = {"ts": ts}
    columns["received_at"] = [
        time + timedelta(seconds=float(d))
        for time, d in zip(ts, rng.exponential(0.4, count), strict=True)
    ]
    tick = mid * 1e-4
    for level in range(levels):
        for side, sign in (("bid", -1), ("ask", 1)):
            columns[f"{side}_price_{level}"] = mid + sign * tick * (level + 0.5)
            columns[f"{side}_size_{level}"] = rng.lognormal(0, 1, count).round(3) + 0.001
    frame = pl.DataFrame(columns, schema_overrides={"ts": TIMESTAMP, "received_at": TIMESTAMP})
    u = pl.Series(rng.random(count))
    frame = frame.with_columns(
        # an empty side, a crossed book, a level that holds nothing, one that is not best first
        instead(u < 0.01, None, "bid_price_0"),
        instead(u.is_between(0.01, 0.02), pl.col("bid_price_0") * 0.99, "ask_price_0"),
        instead(u.is_between(0.02, 0.05), 0.0, f"ask_size_{levels - 1}"),
        instead(u.is_between(0.05, 0.06), pl.col("bid_price_0") * 1.01, f"bid_price_{levels // 2}"),
    )
    hole = rng.integers(0, count)
    keep = np.ones(count, dtype=bool)
    keep[hole : hole + rng.integers(0, 240) // step] = False
    keep[[0, -1]] = True
    frame = frame.filter(pl.Series(keep))
    again = frame.sample(fraction=0.03, seed=int(rng.integers(2**31)))
    other = again.with_columns(pl.col("bid_size_0") * 1.5)
    return pl.concat([frame, again, other]).sort("ts", maintain_order=True)


def later(times, seconds):
    pairs = zip(times, seconds.tolist(), strict=True)
    return [time + timedelta(seconds=delay) for time, delay in pairs]


def raw_trades(rng, start, seconds):
    count = seconds // 4
    after = np.sort(rng.uniform(0, seconds, count)) * (rng.random(count) < 0.97)
    ts = [start + timedelta(microseconds=int(second * 1e6)) for second in np.sort(after)]
    side = rng.choice(["buy", "sell"], count).astype(object)
    side[rng.random(count) < 0.002] = None
    return pl.DataFrame(
        {
            "ts": ts,
            "received_at": later(ts, rng.exponential(0.5, count)),
            "price": 100 * np.exp(np.cumsum(rng.normal(0, 1e-4, count))),
            "size": rng.lognormal(0, 1.5, count),
            "side": side.tolist(),
        },
        schema_overrides={"ts": TIMESTAMP, "received_at": TIMESTAMP, "side": pl.String},
    )  # fmt: skip


def raw_states(rng, table, start, count, interval):
    """Rows now and then, some of which arrive late."""
    every = rng.integers(2, 9)
    opens = [start + int(i) * interval for i in range(0, count, every)]
    late = rng.exponential(1.0, len(opens)) * (rng.random(len(opens)) < 0.3)
    known = np.maximum.accumulate(
        [time + delay * interval for time, delay in zip(opens, late, strict=True)]
    )
    values = {name: rng.lognormal(0, 0.3, len(opens)) * 1e-3 for name in STATES[table]}
    return pl.DataFrame(
        {"ts": opens, "known_at": list(known), **values},
        schema_overrides={"ts": TIMESTAMP, "known_at": TIMESTAMP},
    )


def raw_liquidations(rng, start, count, interval):
    """Single ones, in bursts and with a silence in which the feed may have been down."""
    after = np.sort(rng.uniform(0, count, count))
    silent = rng.uniform(0, count - 30)
    after = after[(after < silent) | (after > silent + 30)]
    ts = [start + timedelta(seconds=round(part * (interval / SECOND))) for part in after]
    known = np.maximum.accumulate(later(ts, rng.exponential(0.3, len(ts)) * (interval / SECOND)))
    amounts = rng.lognormal(9, 1, (2, len(ts))) * (rng.random(len(ts)) < [[0.5], [0.7]])
    columns = dict(zip(("long_liquidated_usd", "short_liquidated_usd"), amounts, strict=True))
    return pl.DataFrame(
        {"ts": ts, "known_at": list(known), **columns},
        schema_overrides={"ts": TIMESTAMP, "known_at": TIMESTAMP},
    ).sort("known_at", maintain_order=True)


def raw_chains(rng, start, count, interval):
    """Small chains now and then; some arrive in two parts, some thinned out, some late."""
    k = np.linspace(-0.4, 0.4, 9)
    frames = []
    for place in range(0, count, int(rng.integers(5, 9))):
        at = start + place * interval
        level, forward = rng.uniform(0.3, 0.9), rng.uniform(90, 110)
        for days in (20, 45, 140):
            strikes = forward * np.exp(k)
            volatility = np.sqrt(level**2 + 0.2 * (np.sqrt(k * k + 0.04) - 0.2 - 0.3 * k))
            frame = pl.DataFrame({"strike": strikes, "implied_volatility": volatility})
            part = frame.with_columns(
                pl.lit(at, TIMESTAMP).alias("ts"), pl.lit(at + days * DAY).alias("expiry"),
                pl.lit(forward).alias("underlying_price"), pl.lit(0.01).alias("bid_price"),
                pl.lit(0.02).alias("ask_price"),
            )  # fmt: skip
            frames += [part.with_columns(pl.lit(kind).alias("option_type"))
                       for kind in ("call", "put")]  # fmt: skip
        whole = pl.concat(frames[-6:])
        delay = rng.choice([timedelta(0), 30 * SECOND, 5 * MINUTE, 2 * interval])
        second = pl.Series(rng.random(len(whole)) < rng.choice([0.0, 0.1, 0.6]))
        first = at + rng.choice([timedelta(0), 20 * SECOND])
        known = pl.when(second).then(pl.lit(first + delay)).otherwise(pl.lit(first))
        frames[-6:] = [whole.with_columns(known.cast(TIMESTAMP).alias("known_at"))]
        if rng.random() < 0.2:
            frames[-1] = frames[-1].filter(pl.Series(rng.random(len(whole)) < 0.6))
    return pl.concat(frames).sort("known_at", "ts", "expiry", "strike", "option_type")


def market(features, seed, count, symbols, *, tables, levels=5, step=1, start=START):
    """Simulate what a set reads."""
    rng = np.random.default_rng(seed)
    interval = features.grid.interval
    updates, bars, books, trades, states = [], {}, {}, {}, {}
    for place, symbol in enumerate(symbols):
        begin = start + place * 7 * interval
        length = count - place * 7
        seconds = int(length * interval / SECOND)
        if "bars" in tables:
            raw = raw_bars(rng, length, interval, begin)
            bars[symbol] = regular_bars(raw, symbol, interval)[0]
            updates += [
                (row["ts"] + interval, "update_bar", (symbol, row)) for row in raw.to_dicts()
            ]
        if "book" in tables:
            raw = raw_book(rng, begin, seconds, levels, step)
            mended, _, _ = mended_book(raw.lazy(), symbol, "simulated", SECOND)
            books[symbol] = mended.with_columns(pl.lit(symbol).alias("symbol"))
            arrivals = raw.select(pl.max_horizontal("ts", "received_at")).to_series()
            updates += [
                (at, "update_book", (symbol, row))
                for at, row in zip(arrivals, raw.to_dicts(), strict=True)
            ]
        if "trades" in tables:
            raw = raw_trades(rng, begin, seconds)
            known = raw.with_columns(pl.max_horizontal("ts", "received_at").alias("known_at"))
            first = [
                known.filter(pl.col("side") == side)["known_at"].min() for side in AGGRESSOR_SIDES
            ]
            told = pl.when(pl.col("known_at") >= max(first)).then("side").alias("side")
            trades[symbol] = known.sort("known_at", maintain_order=True).with_columns(told).lazy()
            updates += [
                (row["known_at"], "update_trade", (symbol, {k: row[k] for k in raw.columns}))
                for row in known.to_dicts()
            ]
        for table in STATES:
            if table in tables and (table != "implied_vol" or symbol == features.grid.leader):
                rows = raw_states(rng, table, begin, length, interval)
                states.setdefault(table, StateTable({}, ())).frames[symbol] = rows
                updates += [
                    (row["known_at"], "update_state", (table, symbol, row))
                    for row in rows.to_dicts()
                ]
        if "liquidations" in tables:
            rows, known = raw_liquidations(rng, begin, length, interval), "liquidations"
            states.setdefault(known, StateTable({}, ())).frames[symbol] = rows
            updates += [
                (row["known_at"], "update_state", (known, symbol, row)) for row in rows.to_dicts()
            ]
        if "options" in tables and symbol == features.grid.leader:
            rows = raw_chains(rng, begin, length, interval)
            states["options"] = StateTable({symbol: rows}, ())
            updates += [
                (
                    arrival,
                    "update_chain",
                    (
                        symbol,
                        rows.filter(pl.col("known_at") == arrival, pl.col("ts") == ts).to_dicts(),
                    ),
                )
                for arrival, ts in rows.select("known_at", "ts").unique().iter_rows()
            ]
    book_table = BookTable(books, dict.fromkeys(books, levels), ()) if books else None
    trade_table = TradeTable(trades, ()) if trades else None
    table = BarTable(bars, interval, ()) if bars else mid_bars(book_table, interval, trade_table)
    updates.sort(key=lambda update: update[0])
    return Feed(Sources(table, book_table, trade_table, states), updates)  # fmt: skip


# --- equality -------------------------------------------------------------------------------------


def batch(features, sources):
    """The batch's table, null where not known."""
    frame = build_features(features, sources).frame
    columns = {name: frame[name].to_numpy() for name in frame.columns if name != "ts"}
    times = pl.Series(frame["ts"].dt.tz_convert(None).to_numpy()).dt.replace_time_zone("UTC")
    return pl.DataFrame(columns | {"ts": times.cast(TIMESTAMP)}, nan_to_null=True).select(
        *frame.columns
    )


def differences(features, feed, decisions, stream, after):
    """Columns in which a row of the stream is not that of the batch, with the worst of each."""
    whole = batch(features, feed.sources)
    worst = {}
    rows = 0
    for decision in decisions:
        feed.give(stream, after, decision)
        after = decision
        found = stream.decide(decision)
        expected = whole.filter(pl.col("ts") == decision).sort("symbol")
        assert found.columns == expected.columns
        assert found["symbol"].to_list() == expected["symbol"].to_list(), decision
        rows += len(found)
        for name in found.columns[2:]:
            one, other = found[name], expected[name]
            if not one.is_null().equals(other.is_null()):
                worst[name] = float("inf")
                continue
            scale = other.abs().clip(1.0)
            gap = ((one - other).abs() / scale).max()
            if gap is not None and gap > 1e-9:
                worst[name] = max(worst.get(name, 0.0), gap)
    return worst, rows


def steps(features, first, count):
    return [START + (first + i) * features.grid.interval for i in range(count)]


def shipped(name):
    return load_spec(WORKSPACE / "features" / f"{name}.toml", FeatureSet)


def every_line(family, skip=(), *, windows=("3", "5"), unit="h", values=None, statistics=()):
    lines = []
    for (of, name), function in LIBRARY.items():
        if of != family or name in skip:
            continue
        line = {"function": name}
        if function.argument == "windows" or (family == "book" and statistics):
            line["windows"] = [f"{window}{unit}" for window in windows]
        if function.argument == "values":
            line["values"] = list((values or {}).get(name, (values or {}).get(None, ())))
        if family == "book":
            line["statistics"] = list(statistics)
        lines.append(line)
    return lines


LONG = {"intraday_seasonality": ["3d"], "weekly_seasonality": ["7d"], "hill_tail_index": ["100h"]}


def library_of_bars():
    lines = every_line("bars", LONG, values={None: (0.7, 0.85)})
    lines += [{"function": name, "windows": windows} for name, windows in LONG.items()]
    market_lines = []
    for (family, name), function in LIBRARY.items():
        if family != "market":
            continue
        line = {"function": name, "columns": ["log_return_3h", "realised_volatility_5h"]}
        if function.argument == "columns and windows":
            line["windows"] = ["4h", "12h"]
        market_lines.append(line)
    return validate_spec(
        {
            "name": "library",
            "description": "every function of bars, market and clock",
            "grid": {
                "interval": "1h",
                "warm_up": "6h",
                "minimum_present": 0.6,
                "leader": "BTCUSDT",
            },
            "bars": lines,
            "market": market_lines,
            "calendar": every_line(
                "calendar", values={"hours_to_funding": (8,), "days_since_listing": (3, 365)}
            ),
        },
        FeatureSet,
        "test",
    )


SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")


def small_set(interval="1m", leader="BTCUSDT", **sections):
    raw = {
        "name": "small",
        "description": "small",
        "grid": {
            "interval": interval,
            "warm_up": "5m" if interval == "1m" else "6h",
            "minimum_present": 0.6,
            "leader": leader,
        },
        "bars": [{"function": "log_return", "windows": ["2" + interval[-1]]}],
    }
    return validate_spec(raw | sections, FeatureSet, "test")


def book_lines(statistics):
    costs, bands = (100, 300), (2, 5)
    values = {
        None: (1, 3),
        "depth_recovery": (5,),
        **dict.fromkeys(
            ("effective_spread", "cost_to_buy", "cost_to_sell", "depth_shortage"), costs
        ),
        **dict.fromkeys(
            ("imbalance_within", "bid_depth_usd_within", "ask_depth_usd_within"), bands
        ),
    }
    return every_line("book", windows=("3",), unit="m", values=values, statistics=statistics)


@pytest.mark.parametrize("seed", range(2))
def test_every_function_of_bars(seed):
    features = library_of_bars()
    feed = market(features, seed, 420, SYMBOLS[:2], tables=("bars",))
    stream = FeatureStream(features, ("bars",))
    worst, rows = differences(features, feed, steps(features, 200, 220)[::55], stream, START)
    assert rows >= 5
    assert worst == {}


def test_most_values_of_that_check_are_known():
    features = library_of_bars()
    table = batch(features, market(features, 0, 420, SYMBOLS[:2], tables=("bars",)).sources)
    shares = table.tail(200).null_count().row(0)
    assert np.mean(np.array(shares) / 200) < 0.3
    # after a crash no move is large beside the window's volatility
    unknown = {name for name, share in zip(table.columns, shares, strict=True) if share == 200}
    assert unknown <= {"hill_tail_index_100h"}


@pytest.mark.parametrize("given", [("book",), ("book", "trades"), ("bars", "book", "trades")])
def test_every_function_of_the_book(given):
    features = small_set(book=book_lines(("last", "mean")))
    feed = market(features, 5, 24, SYMBOLS[:1], tables=given)
    stream = FeatureStream(features, given, timedelta(0))
    worst, rows = differences(features, feed, steps(features, 1, 24)[::4], stream, START)
    assert rows >= 3
    assert worst == {}


@pytest.mark.parametrize("statistic", ["deviation", "time_mean", "minimum", "rank"])
def test_every_statistic_of_the_book(statistic):
    lines = [
        {"function": name, "values": [2], "windows": ["3m", "5m"], "statistics": [statistic]}
        for name in ("imbalance", "log_depth_usd", "order_flow_imbalance")
    ]
    features = small_set(book=lines)
    feed = market(features, 6, 24, SYMBOLS[:1], tables=("book",))
    worst, rows = differences(
        features,
        feed,
        steps(features, 1, 24),
        FeatureStream(features, ("book",), timedelta(0)),
        START,
    )
    assert rows >= 15
    assert worst == {}


@pytest.mark.parametrize("given", [("book", "trades"), ("bars", "trades")])
def test_every_function_of_trades(given):
    features = small_set(trades=every_line("trades", windows=("3", "5"), unit="m"))
    feed = market(features, 7, 24, SYMBOLS[:1], tables=given)
    delay = timedelta(0) if "book" in given else None
    stream = FeatureStream(features, given, delay)
    worst, rows = differences(features, feed, steps(features, 1, 24)[::3], stream, START)
    assert rows >= 4
    assert worst == {}


def test_a_stream_that_starts_from_history_goes_on_as_if_it_had_always_run():
    features = small_set(
        book=[
            {"function": "depth_recovery", "values": [5], "windows": ["5m"], "statistics": ["mean"]}
        ],
        trades=[
            {"function": "price_impact", "windows": ["3m"]},
            {"function": "vpin", "windows": ["3m"]},
        ],
        market=[
            {"function": "beta_to_leader", "columns": ["log_return_2m"], "windows": ["6m"]},
            {"function": "market_median", "columns": ["vpin_3m"]},
        ],
        calendar=[{"function": "days_since_listing", "values": [30]}],
    )
    feed = market(features, 11, 36, SYMBOLS[:2], tables=("book", "trades"))
    for place in (14, 22, 30):
        start = steps(features, place, 1)[0]
        stream = FeatureStream.warm(features, feed.sources, start, timedelta(0), bars_of_book=True)
        worst, rows = differences(features, feed, steps(features, place + 1, 4), stream, start)
        assert rows >= 3
        assert worst == {}


STANDING = {"funding": "2d", "open_interest": "1d", "implied_vol": "2d"}


def test_states_count_as_in_the_batch():
    lines = every_line("derivatives", values={None: (0.0075,)}, skip=())
    lines = [line for line in lines if "liquid" not in line["function"]]
    features = small_set(
        "1h",
        standing=STANDING,
        derivatives=lines,
        implied_vol=every_line("implied_vol", values={None: (30,)}),
    )
    given = ("bars", "funding", "open_interest", "implied_vol")
    feed = market(features, 3, 150, SYMBOLS[:2], tables=given)
    stream = FeatureStream(features, given)
    worst, rows = differences(features, feed, steps(features, 20, 125)[::9], stream, START)
    assert rows > 15
    assert worst == {}


def test_liquidations_count_as_in_the_batch():
    lines = [
        line
        for line in every_line("derivatives", values={None: (0.0075,)})
        if "liquid" in line["function"]
    ]
    assert lines
    features = small_set("1h", standing={"open_interest": "1d"}, derivatives=lines)
    given = ("bars", "liquidations", "open_interest")
    feed = market(features, 8, 150, SYMBOLS[:2], tables=given)
    worst, rows = differences(
        features, feed, steps(features, 20, 125)[::7], FeatureStream(features, given), START
    )
    assert rows > 15
    assert worst == {}


def set_of_options():
    tenors = every_line("options", windows=("30",), unit="d", values={None: (30,)})
    return small_set("1h", standing={"options": "2d"}, options=tenors)


@pytest.mark.parametrize("seed", range(2))
def test_options_count_as_in_the_batch(seed):
    features = set_of_options()
    feed = market(features, seed, 70, SYMBOLS[:2], tables=("bars", "options"))
    stream = FeatureStream(features, ("bars", "options"))
    decisions = steps(features, 8, 60)[::3]
    worst, rows = differences(features, feed, decisions, stream, START - HOUR)
    assert rows > 25
    assert worst == {}
    known = batch(features, feed.sources).drop_nulls("atm_volatility_30d")
    assert len(known) > 30
    assert known["skew_25_delta_30d"].null_count() < len(known)


def test_a_stream_goes_on_from_chains_that_a_history_held():
    features = set_of_options()
    feed = market(features, 5, 60, SYMBOLS[:2], tables=("bars", "options"))
    for place in (20, 41):
        start = steps(features, place, 1)[0]
        stream = FeatureStream.warm(features, feed.sources, start)
        worst, rows = differences(features, feed, steps(features, place + 1, 12), stream, start)
        assert rows > 10
        assert worst == {}


def test_a_chain_is_fitted_when_it_comes():
    features = set_of_options()
    feed = market(features, 1, 20, SYMBOLS[:1], tables=("bars", "options"))
    stream = FeatureStream(features, ("bars", "options"))
    feed.give(stream, START - HOUR, START + 15 * HOUR)
    stream.decide(START + 15 * HOUR)
    (held,) = stream._states.tables(0)["options"].frames.values()
    assert {"atm_volatility_30d", "error"} <= set(held.columns)
    assert "strike" not in held.columns


def test_a_chain_is_given_whole_and_of_one_time():
    stream = FeatureStream(set_of_options(), ("bars", "options"))
    option = {"ts": START, "expiry": START + 20 * DAY, "option_type": "call", "strike": 100.0,
              "underlying_price": 100.0, "implied_volatility": 0.5}  # fmt: skip
    with pytest.raises(InputError, match="give all of its options to update_chain"):
        stream.update_state("options", "BTC", option)
    with pytest.raises(InputError, match="no strike"):
        stream.update_chain("BTC", [{k: v for k, v in option.items() if k != "strike"}])
    with pytest.raises(InputError, match="of several times"):
        stream.update_chain("BTC", [option, option | {"ts": START + HOUR}])
    stream.update_chain("BTC", [option])
    stream.update_chain("BTC", [option | {"ts": START - HOUR}])
    counted = {finding.what: (finding.count, finding.total) for finding in stream.findings}
    assert counted["older than a row given before"] == (1, 2)
    assert counted["expiry with too few quotes for a smile"] == (1, 2)


def test_a_contract_without_trades_has_no_flow():
    features = small_set(
        trades=every_line("trades", windows=("3",), unit="m"),
        market=[{"function": "market_median", "columns": ["trade_count_3m"]}],
    )
    given = ("bars", "book", "trades")
    feed = market(features, 9, 30, SYMBOLS[:2], tables=given)
    quiet = SYMBOLS[1]
    del feed.sources.trades.frames[quiet]
    feed.updates = [
        update for update in feed.updates if update[1:2] + update[2][:1] != ("update_trade", quiet)
    ]
    stream = FeatureStream(features, given, timedelta(0))
    worst, rows = differences(features, feed, steps(features, 12, 18)[::3], stream, START)
    assert rows >= 8
    assert worst == {}
    at = steps(features, 29, 1)[0]
    feed.give(stream, steps(features, 27, 1)[0], at)
    flow = dict(stream.decide(at).select("symbol", "trade_count_3m").iter_rows())
    assert flow[quiet] is None
    assert flow[SYMBOLS[0]] is not None


@pytest.mark.parametrize(
    ("name", "given", "count", "step", "levels"),
    [("bars-1h", ("bars",), 800, 1, 1), ("demo-1m", ("bars", "book", "trades"), 1500, 60, 10),
     ("book-1m", ("book", "trades"), 75, 10, 20)],
)  # fmt: skip
def test_every_shipped_set(name, given, count, step, levels):
    features = shipped(name)
    symbols = (features.grid.leader, "OTHER-USD")
    feed = market(features, 4, count, symbols, tables=given, levels=levels, step=step)
    start = steps(features, count - 6, 1)[0]
    delay = timedelta(0) if "book" in given else None
    stream = FeatureStream.warm(
        features, feed.sources, start, delay, bars_of_book="bars" not in given
    )
    worst, rows = differences(features, feed, steps(features, count - 5, 5), stream, start)
    assert rows >= 4
    assert worst == {}


# --- updates that are late, wrong or too many -----------------------------------------------------


def bar(open_hour, close=100.0, **more):
    ts = START + open_hour * HOUR
    return {
        "ts": ts,
        "open": close,
        "high": close * 1.01,
        "low": close,
        "close": close,
        "volume": 1.0,
    } | more


def hourly():
    return small_set("1h", bars=[{"function": "drawdown", "windows": ["3h"]}],
                     grid={"interval": "1h", "warm_up": "1h", "minimum_present": 0.3,
                           "leader": "A"})  # fmt: skip


def test_a_bar_given_late_counts_from_then_on():
    stream = FeatureStream(hourly(), ("bars",))
    stream.update_bar("A", bar(0))
    assert stream.decide(START + HOUR)["drawdown_3h"][0] == pytest.approx(1 / 1.01 - 1)
    assert stream.decide(START + 2 * HOUR).is_empty()  # not given yet: no decision
    stream.update_bar("A", bar(1, 200.0))
    stream.update_bar("A", bar(2))
    # the late bar's high is the highest of the window
    assert stream.decide(START + 3 * HOUR)["drawdown_3h"][0] == pytest.approx(100 / 202 - 1)
    (finding,) = stream.findings
    assert (finding.what, finding.count, finding.total) == (
        "given after the decision at its close", 1, 3,
    )  # fmt: skip


def test_a_bar_given_early_is_not_known_before_its_close():
    one, other = FeatureStream(hourly(), ("bars",)), FeatureStream(hourly(), ("bars",))
    one.update_bar("A", bar(0))
    other.update_bar("A", bar(0))
    other.update_bar("A", bar(1, 300.0))
    assert one.decide(START + HOUR).equals(other.decide(START + HOUR))


def test_a_stale_bar_is_a_missing_one():
    stream = FeatureStream(hourly(), ("bars",))
    stream.update_bar("A", bar(0))
    stream.update_bar("A", bar(1, volume=0.0, high=100.0))
    assert stream.decide(START + 2 * HOUR).is_empty()
    assert [finding.what for finding in stream.findings] == ["stale bars (zero volume, no change)"]


@pytest.mark.parametrize(
    ("update", "message"),
    [(bar(0), "a second one that opens"), (bar(1, high=1.0), "high >= open"),
     (bar(1, close=float("nan")), "a finite number above zero"),
     (bar(0.5), "off the 1h grid"), ({"ts": START}, "no open, high, low, close, volume"),
     ({"ts": datetime(2024, 1, 1)}, "a datetime with a time zone")],  # noqa: DTZ001  # the fault
)  # fmt: skip
def test_a_bar_that_cannot_be_is_refused(update, message):
    stream = FeatureStream(hourly(), ("bars",))
    stream.update_bar("A", bar(0))
    with pytest.raises(InputError, match=message):
        stream.update_bar("A", update)


def test_decisions_are_made_once_in_order_on_the_grid():
    stream = FeatureStream(hourly(), ("bars",))
    stream.decide(START + HOUR)
    with pytest.raises(InputError, match="the one before was at"):
        stream.decide(START + HOUR)
    with pytest.raises(InputError, match="off the 1h grid"):
        stream.decide(START + 1.5 * HOUR)


def test_tables_that_were_not_announced_are_refused():
    with pytest.raises(InputError, match="did you mean 'trades'"):
        FeatureStream(hourly(), ("bars", "trade"))
    with pytest.raises(InputError, match="needs bars, or a book"):
        FeatureStream(hourly(), ("trades",))
    with pytest.raises(InputError, match="book_known_after"):
        FeatureStream(hourly(), ("book",))
    with pytest.raises(InputError, match="made for bars and is given a row of trades"):
        FeatureStream(hourly(), ("bars",)).update_trade("A", {})


def snapshot(second, bid=99.0, **more):
    ts = START + second * SECOND
    return {
        "ts": ts,
        "bid_price_0": bid,
        "bid_size_0": 1.0,
        "ask_price_0": bid + 2,
        "ask_size_0": 1.0,
    } | more


def spread_stream():
    line = {"function": "relative_spread", "statistics": ["last", "mean"], "windows": ["1m"]}
    return FeatureStream(
        small_set(
            book=[line],
            grid={"interval": "1m", "warm_up": "1m", "minimum_present": 1.0, "leader": "A"},
        ),
        ("book",),
        timedelta(0),
    )


def test_faulty_snapshots_are_dropped_and_counted():
    stream = spread_stream()
    for update in (
        snapshot(10), snapshot(20, bid_size_0=0.0), snapshot(30, ask_price_0=1.0),
        snapshot(40), snapshot(35), snapshot(40, bid=199.0), snapshot(50, is_valid=False),
    ):  # fmt: skip
        stream.update_book("A", update)
    row = stream.decide(START + MINUTE)
    assert row["close"][0] == 200.0
    assert row["relative_spread_mean_1m"][0] == pytest.approx((0.02 + 0.02 + 0.01) / 3)
    counted = {finding.what: finding.count for finding in stream.findings}
    assert counted == {
        "out-of-order rows": 1, "several rows of the same time, not equal": 1,
        "is_valid not true": 1,
        "empty side (best price or size missing or not above 0)": 1,
        "crossed (best bid > best ask)": 1,
    }  # fmt: skip


def test_a_snapshot_known_after_the_decision_waits():
    stream = spread_stream()
    stream.update_book("A", snapshot(10))
    stream.update_book("A", snapshot(59, bid=199.0, received_at=START + 61 * SECOND))
    assert stream.decide(START + MINUTE)["close"][0] == 100.0
    assert stream.decide(START + 2 * MINUTE)["close"][0] == 200.0


def test_a_snapshot_given_late_counts_from_then_on_unless_it_is_overtaken():
    stream = spread_stream()
    stream.update_book("A", snapshot(10))
    stream.decide(START + MINUTE)
    stream.update_book("A", snapshot(5, bid=1.0))
    stream.update_book("A", snapshot(50, bid=199.0))
    assert stream.decide(START + 2 * MINUTE)["close"][0] == 200.0
    assert [finding.what for finding in stream.findings] == [
        "received after a snapshot of a later time"
    ]


def test_old_rows_are_let_go():
    stream = FeatureStream(hourly(), ("bars",))
    sizes = set()
    for hour in range(200):
        stream.update_bar("A", bar(hour, 100.0 + hour % 7))
        stream.decide(START + (hour + 1) * HOUR)
        if hour > 100:
            sizes.add(len(pickle.dumps(stream._contracts["A"].bars._columns)))
            assert len(stream._contracts["A"].rows) == 1
    assert len(sizes) == 1


def test_a_stream_shows_the_bars_and_books_it_holds():
    """What an outcome and a liquidation cost are made of beside features."""
    features = small_set("1h", bars=[{"function": "drawdown", "windows": ["3h"]}])
    stream = FeatureStream(features, ("bars", "book"), timedelta(0), bars_kept=4)
    at = START
    for hour, price in enumerate([100.0, 90.0, 95.0, 97.0, 99.0, 98.0]):
        at = START + hour * HOUR
        assert stream.awaits_bar("A", at + HOUR)
        bar = dict.fromkeys(("open", "high", "low", "close"), price) | {"volume": 1.0, "ts": at}
        if hour != 3:
            stream.update_bar("A", bar)
            assert not stream.awaits_bar("A", at + HOUR)
        sizes = {f"{side}_size_0": 1.0 for side in ("bid", "ask")}
        for crossed in (False, True):
            best = {"bid_price_0": price + crossed, "ask_price_0": price + 0.5}
            stream.update_book("A", {"ts": at + (1 + crossed) * MINUTE, **best, **sizes})
        stream.decide(at + HOUR)
    bars = stream.last_bars("A", 4)
    np.testing.assert_array_equal(bars["low"], [95.0, np.nan, 99.0, 98.0])
    assert stream.last_bars("B", 4) is None
    assert stream.new_books("A").values[0].tolist() == [98.0]
