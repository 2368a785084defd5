"""One message carries every problem, and exit codes tell a refusal from a negative verdict."""

import pytest

from margincast.core.errors import (
    BundleError,
    CheckFailedError,
    InputError,
    InsufficientHistoryError,
    LedgerError,
    MargincastError,
    SpecError,
    did_you_mean,
)


def test_a_spec_error_lists_all_problems_and_counts_them():
    error = SpecError("job.toml", ["a: missing", "b: unknown key"])
    assert str(error) == ("job.toml: 2 problems in this spec:\n  - a: missing\n  - b: unknown key")
    assert error.problems == ("a: missing", "b: unknown key")
    assert "1 problem in this spec" in str(SpecError("job.toml", ["a: missing"]))


@pytest.mark.parametrize("kind", [InputError, InsufficientHistoryError, BundleError, LedgerError])
def test_bad_input_exits_with_2(kind):
    assert issubclass(kind, InputError)
    assert kind.exit_code == 2


def test_a_negative_verdict_exits_with_1_and_is_no_input_error():
    assert CheckFailedError.exit_code == 1
    assert issubclass(CheckFailedError, MargincastError)
    assert not issubclass(CheckFailedError, InputError)


def test_the_nearest_name_is_suggested_and_a_far_one_is_not():
    assert did_you_mean("BTCUSD", ["ETHUSDT", "BTCUSDT"]) == " (did you mean 'BTCUSDT'?)"
    assert did_you_mean("xyz", ["ETHUSDT", "BTCUSDT"]) == ""
