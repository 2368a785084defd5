"""Which files of the Binance archive a request means: every day once, in the archive's folders."""

from datetime import date, timedelta
from pathlib import PurePosixPath
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.fetch.binance import CEASED, PUBLISHED, plan

TODAY = date(2024, 3, 10)
DAY = timedelta(days=1)
DAYS = st.dates(date(2022, 11, 20), TODAY)
EVERY_TABLE = [(market, table) for market, tables in PUBLISHED.items() for table in tables]


def days_of(files):
    return [
        file.first + n * DAY for file in files for n in range((file.last - file.first).days + 1)
    ]


def paths(symbol, table, start, end, **options):
    options = {"market": "um", "interval": "1h", "today": TODAY, **options}
    return [file.path for file in plan([symbol], [table], start, end, **options)]


# Addresses as the archive has them: the first two from the README of binance/binance-public-data,
# the others from that repository's issues 226 and 334 and from listings of the archive.
@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        (
            "data/spot/monthly/klines/BNBUSDT/1m/BNBUSDT-1m-2019-01.zip",
            (
                "BNBUSDT",
                "klines",
                date(2019, 1, 1),
                date(2019, 1, 31),
                {"market": "spot", "interval": "1m"},
            ),
        ),
        (
            "data/spot/monthly/trades/BNBUSDT/BNBUSDT-trades-2019-01.zip",
            ("BNBUSDT", "trades", date(2019, 1, 1), date(2019, 1, 31), {"market": "spot"}),
        ),
        (
            "data/futures/cm/daily/klines/BTCUSD_PERP/1m/BTCUSD_PERP-1m-2020-11-02.zip",
            (
                "BTCUSD_PERP",
                "klines",
                date(2020, 11, 2),
                date(2020, 11, 2),
                {"market": "cm", "interval": "1m"},
            ),
        ),
        (
            "data/futures/um/daily/bookTicker/BTCUSDT/BTCUSDT-bookTicker-2024-03-30.zip",
            ("BTCUSDT", "bookTicker", date(2024, 3, 30), date(2024, 3, 30), {}),
        ),
        (
            "data/futures/um/monthly/fundingRate/1000BONKUSDT/1000BONKUSDT-fundingRate-2024-01.zip",
            ("1000BONKUSDT", "fundingRate", date(2024, 1, 5), date(2024, 1, 20), {}),
        ),
        (
            "data/futures/um/daily/metrics/BTCUSDT/BTCUSDT-metrics-2020-09-01.zip",
            ("BTCUSDT", "metrics", date(2020, 9, 1), date(2020, 9, 1), {}),
        ),
        (
            "data/futures/cm/monthly/indexPriceKlines/BTCUSD/1h/BTCUSD-1h-2020-06.zip",
            (
                "BTCUSD_PERP",
                "indexPriceKlines",
                date(2020, 6, 1),
                date(2020, 6, 30),
                {"market": "cm"},
            ),
        ),
        (
            "data/spot/monthly/klines/BTCUSDT/1w/BTCUSDT-1w-2025-02.zip",
            (
                "BTCUSDT",
                "klines",
                date(2025, 2, 3),
                date(2025, 2, 9),
                {"market": "spot", "interval": "1w"},
            ),
        ),
    ],
)
def test_paths_are_those_of_the_archive(expected, arguments):
    *plain, options = arguments
    assert paths(*plain, today=date(2026, 1, 1), **options) == [expected]


def test_whole_past_months_come_by_month_and_the_rest_by_day():
    files = paths("BTCUSDT", "aggTrades", date(2023, 12, 30), date(2024, 3, 2))
    assert [path.removesuffix(".zip").partition("aggTrades-")[2] for path in files] == [
        "2023-12-30", "2023-12-31", "2024-01", "2024-02", "2024-03-01", "2024-03-02",
    ]  # fmt: skip


@settings(max_examples=200)
@given(market_and_table=st.sampled_from(EVERY_TABLE), one=DAYS, other=DAYS)
def test_every_day_asked_for_is_in_one_file(market_and_table, one, other):
    market, table = market_and_table
    start, end = min(one, other), max(one, other)
    files = plan(["BTCUSDT"], [table], start, end, market=market, interval="5m", today=TODAY)
    covered = days_of(files)
    assert len(covered) == len(set(covered))
    asked = {start + n * DAY for n in range((end - start).days + 1)}
    if "daily" in PUBLISHED[market][table]:
        assert set(covered) == asked
        # the month that runs has no monthly file yet
        assert all(file.period == "daily" for file in files if file.last >= TODAY.replace(day=1))
    else:
        assert set(covered) >= asked
        assert {day.replace(day=1) for day in covered} == {day.replace(day=1) for day in asked}
    assert {file.period for file in files} <= set(PUBLISHED[market][table])


def test_the_month_that_ends_today_has_no_monthly_file_yet():
    first, last = date(2024, 1, 1), date(2024, 1, 31)
    assert len(paths("BTCUSDT", "trades", first, last, today=last)) == 31
    assert len(paths("BTCUSDT", "trades", first, last, today=last + DAY)) == 1


@given(month=st.dates(date(2020, 1, 1), date(2024, 2, 28)))
def test_the_days_of_a_month_stand_for_it(month):
    first = month.replace(day=1)
    last = (first + 31 * DAY).replace(day=1) - DAY
    (file,) = plan(["BTCUSDT"], ["klines"], first, last, market="um", interval="1h", today=TODAY)
    days = file.daily_files()
    assert file.period == "monthly"
    assert days_of(days) == days_of([file])
    assert all(day.period == "daily" and day.daily_files() == () for day in days)


@pytest.mark.parametrize(("table", "interval"), [("fundingRate", "1h"), ("klines", "1w")])
def test_a_month_that_exists_only_as_such_has_no_days(table, interval):
    files = plan(
        ["BTCUSDT"], [table], date(2024, 1, 1), date(2024, 2, 29),
        market="um", interval=interval, today=TODAY,
    )  # fmt: skip
    assert [file.daily_files() for file in files] == [(), ()]


def test_contracts_of_a_pair_share_the_files_of_its_index():
    files = plan(
        ["BTCUSD_PERP", "BTCUSD_240628"], ["indexPriceKlines", "markPriceKlines"],
        date(2024, 1, 1), date(2024, 1, 31), market="cm", interval="1h", today=TODAY,
    )  # fmt: skip
    assert [(file.symbol, file.table) for file in files] == [
        ("BTCUSD", "indexPriceKlines"),
        ("BTCUSD_PERP", "markPriceKlines"),
        ("BTCUSD_240628", "markPriceKlines"),
    ]


def test_ceased_tables_are_tables():
    assert all(table in PUBLISHED[market] for market, table in CEASED)


@given(symbol=st.text(max_size=12) | st.from_regex(r"[A-Z./%\\?#@:~]{2,8}", fullmatch=True))
def test_no_symbol_leads_out_of_its_folder(symbol):
    try:
        (path,) = paths(symbol, "metrics", TODAY, TODAY)
    except InputError:
        return
    parts = PurePosixPath(path).parts
    assert len(parts) == 7
    assert parts[5] == symbol
    assert ".." not in path
    assert PurePosixPath(*parts[:5]) == PurePosixPath("data/futures/um/daily/metrics")
    assert quote(path).count("/") == 6


@pytest.mark.parametrize("symbol", ["../..", "BTC/USDT", "BTC USDT", "", "A", "BTC%2F", "BTC.USDT"])
def test_what_cannot_be_a_symbol_is_refused(symbol):
    with pytest.raises(InputError, match="cannot be a symbol"):
        paths(symbol, "klines", TODAY, TODAY)


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (r"'klins' is not in the archive of um \(did you mean 'klines'\?\)", {"tables": ["klins"]}),
        ("'metrics' is not in the archive of spot", {"tables": ["metrics"], "market": "spot"}),
        ("no table to fetch", {"tables": []}),
        ("no symbol to fetch", {"symbols": []}),
        (r"in capitals \(did you mean 'BTCUSDT'\?\)", {"symbols": ["btcusdt"]}),
        ("'futures' is not a market", {"market": "futures"}),
        ("'2m' is not in the archive of um", {"interval": "2m"}),
        ("'1s' is not in the archive of um", {"interval": "1s"}),
        ("lies after --to", {"start": date(2024, 1, 2), "end": date(2024, 1, 1)}),
        ("--to 2024-03-11 lies in the future", {"end": date(2024, 3, 11)}),
        ("before the archive begins", {"start": date(2016, 12, 31)}),
    ],
)
def test_what_cannot_be_meant_is_refused(message, change):
    arguments = {
        "symbols": ["BTCUSDT"], "tables": ["klines"], "start": date(2024, 1, 1),
        "end": date(2024, 1, 1), "market": "um", "interval": "1h", "today": TODAY,
    }  # fmt: skip
    with pytest.raises(InputError, match=message):
        plan(**{**arguments, **change})
