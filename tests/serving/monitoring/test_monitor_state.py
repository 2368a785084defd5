"""A monitor's memory: read back to the last bit, and refused when a byte of it changed."""

import json
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.monitoring.monitoring_cases import START, after, record_case
from tests.serving.monitoring.test_tally import RATES, same

from margincast.core.digest import digest_of
from margincast.serving.monitoring.alarm import AlarmState
from margincast.serving.monitoring.state import State, StateError, read_state, write_state
from margincast.serving.monitoring.tally import Tally, settle

SETTINGS = "s" * 64


def state_case(hours):
    record = record_case(hours=120)
    tally = settle(Tally.begin(record), record, after(hours), RATES, timedelta(0))
    alarms = {"fallback: demo": AlarmState(START, None), "champion: m": AlarmState(START, START)}
    return State(SETTINGS, after(hours), {"forecasts": tally}, alarms)


@pytest.mark.parametrize("hours", [0, 60, 200])
def test_a_state_is_read_back_to_the_last_bit(tmp_path, hours):
    state = state_case(hours)
    write_state(state, tmp_path / "deep" / "state.json")
    found = read_state(tmp_path / "deep" / "state.json", SETTINGS)
    assert same(found.tallies["forecasts"], state.tallies["forecasts"])
    assert (found.at, found.alarms) == (state.at, state.alarms)
    assert found.tallies["forecasts"].symbols == state.tallies["forecasts"].symbols


def test_bets_go_on_where_they_stopped(tmp_path):
    record, path = record_case(hours=120), tmp_path / "state.json"
    write_state(state_case(60), path)
    kept = read_state(path, SETTINGS).tallies["forecasts"]
    settled = settle(kept, record, after(200), RATES, timedelta(0))
    assert same(settled, state_case(200).tallies["forecasts"])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("state") / "state.json"
    write_state(state_case(60), path)
    return path.read_bytes()


@settings(max_examples=40)
@given(st.data())
def test_a_changed_byte_is_refused(written, tmp_path_factory, data):
    place = data.draw(st.integers(0, len(written) - 2))
    other = data.draw(st.integers(33, 126).filter(lambda code: code != written[place]))
    path = tmp_path_factory.getbasetemp() / "changed.json"
    path.write_bytes(written[:place] + bytes([other]) + written[place + 1 :])
    with pytest.raises(StateError):
        read_state(path, SETTINGS)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"format": 1}'])
def test_what_is_no_state_is_refused(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(StateError):
        read_state(path, SETTINGS)


def test_a_state_cut_short_or_of_other_settings_is_refused(tmp_path, written):
    path = tmp_path / "state.json"
    path.write_bytes(written[: len(written) // 2])
    with pytest.raises(StateError, match="damaged"):
        read_state(path, SETTINGS)
    path.write_bytes(written)
    with pytest.raises(StateError, match="other settings"):
        read_state(path, "t" * 64)
    body = {**json.loads(written), "format": "margincast-monitor 0"}
    body["digest"] = digest_of({name: value for name, value in body.items() if name != "digest"})
    path.write_text(json.dumps(body))
    with pytest.raises(StateError, match="another version"):
        read_state(path, SETTINGS)


def test_no_state_is_no_error(tmp_path):
    assert read_state(tmp_path / "state.json", SETTINGS) is None
