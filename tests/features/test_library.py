"""A window asks for the share of rows it was told to, no more and no less."""

from datetime import timedelta

import pytest

from margincast.core.errors import InputError
from margincast.features import volatility
from margincast.features.library import LIBRARY, Window, look_up

HOUR = timedelta(hours=1)


def test_the_minimum_is_the_smallest_number_of_rows_that_reaches_the_share():
    for rows in range(1, 201):
        for percent in range(101):
            window = Window.over(rows * HOUR, HOUR, percent / 100)
            assert window.rows == rows
            # whole-number arithmetic as the oracle
            assert window.minimum == max(1, -(-percent * rows // 100))


@pytest.mark.parametrize(("hours", "minimum"), [(1, 1), (3, 3), (10, 9), (24, 22), (168, 152)])
def test_nine_tenths_of_a_window(hours, minimum):
    window = Window.over(timedelta(hours=hours), HOUR, 0.9)
    assert window.minimum == minimum


def test_a_window_off_the_grid_is_refused():
    with pytest.raises(InputError, match="90m is not a whole number of 1h grid steps"):
        Window.over(timedelta(minutes=90), HOUR, 0.9)


def test_functions_are_found_by_family_and_name_and_a_misspelt_one_is_suggested():
    found = look_up("bars", "parkinson_volatility")
    assert found.build is volatility.parkinson_volatility
    assert found.unit == "fraction"
    with pytest.raises(InputError, match=r"did you mean 'parkinson_volatility'\?"):
        look_up("bars", "parkinsn_volatility")
    with pytest.raises(InputError, match=r"there are .*drawdown"):
        look_up("bars", "zzz")
    with pytest.raises(InputError, match="no feature function 'parkinson_volatility' for book"):
        look_up("book", "parkinson_volatility")


def test_every_function_says_in_a_line_what_it_is():
    for function in LIBRARY.values():
        assert (function.build.__doc__ or "").strip(), function.name
