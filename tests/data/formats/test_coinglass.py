from datetime import timedelta

import pytest

from margincast.core.errors import InputError
from margincast.data.formats.coinglass import CLOCKS_DISAGREE
from margincast.data.formats.format import Hints
from margincast.data.formats.registry import recognise
from margincast.data.formats.source import Source
from margincast.data.formats.testing import check_format
from margincast.data.formats.text import HEADER_IN_THE_MIDDLE

NAME = "CoinGlass liquidation totals"
HEADER = "timestamp,datetime_utc,longUsd,shortUsd,totalUsd\n"
LINES = [
    "1763874000000,2025-11-23T05:00:00.000Z,702059.93624,79334.1739,781394.11014\n",
    "1763877600000,2025-11-23T06:00:00.000Z,1377585.03304,31731.95504,1409316.98808\n",
    "1763881200000,2025-11-23T07:00:00.000Z,2137137.59233,249169.79087,2386307.3832\n",
]


def written(folder, content, name="coinglass_btc_1h.csv"):
    path = folder / name
    path.write_text(content)
    return Source(path)


def test_the_shared_file(shared_data):
    source = Source(shared_data / "data" / "liquidations" / "coinglass_btc_1h.csv")
    reading = check_format(source, NAME)
    frame = reading.table("liquidation_totals_1h")
    assert len(frame) == 2_589 == len(source.path.read_bytes().splitlines()) - 1
    assert frame["symbol"].unique().to_list() == ["BTC"]
    assert reading.match.venue == "coinglass"
    excess = frame["long_usd"] + frame["short_usd"] - frame["total_usd"]
    assert excess.abs().max() < 0.01
    assert frame.columns == ["symbol", "ts", "long_usd", "short_usd", "total_usd", "_row"]
    # two hours are missing: the interval is still the hour
    assert (frame["ts"].diff() > timedelta(hours=1)).sum() == 2


def test_a_line_whose_two_times_differ_is_rejected(tmp_path):
    shifted = LINES[1].replace("T06:00", "T07:00")
    reading = check_format(written(tmp_path, HEADER + LINES[0] + shifted + LINES[2]), NAME)
    assert reading.table("liquidation_totals_1h")["_row"].to_list() == [1, 3]
    assert reading.account.rejected == {CLOCKS_DISAGREE: 1}


def test_garbled_lines_and_headers_in_the_middle_are_rejected(tmp_path):
    garbled = LINES[1].replace("31731.95504", "n/a")
    content = HEADER + LINES[0] + garbled + HEADER + LINES[2]
    reading = check_format(written(tmp_path, content), NAME)
    assert reading.account.rejected == {
        "column 'shortUsd' is not a number": 1,
        HEADER_IN_THE_MIDDLE: 1,
    }
    assert reading.account.records == 4


def test_the_coin_is_in_the_name_or_said_by_the_user(tmp_path):
    content = HEADER + "".join(LINES)
    with pytest.raises(InputError, match="does not say the coin"):
        recognise(written(tmp_path, content, "liquidations.csv"))
    unnamed = check_format(written(tmp_path, content, "x.csv"), NAME, Hints(symbol="ETH"))
    assert unnamed.match.symbol == "ETH"
    with pytest.raises(InputError, match="no two times"):
        recognise(written(tmp_path, HEADER + LINES[0]))
    with pytest.raises(InputError, match=f"{NAME}: the header has no column totalUsd"):
        recognise(written(tmp_path, content.replace("totalUsd", "sum")))
