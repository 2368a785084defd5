import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.specs.loading import load_spec, validate_spec
from margincast.specs.schedule import BaseSchedule, Brackets, ContractBrackets, Tier
from margincast.specs.schedule_file import schedule_toml

SCHEDULES = sorted((Path(__file__).resolve().parents[2] / "serving" / "schedules").glob("*.toml"))


def read(text: str) -> BaseSchedule:
    return validate_spec(tomllib.loads(text), BaseSchedule, "written.toml")


@pytest.mark.parametrize("path", SCHEDULES, ids=lambda path: path.stem)
def test_shipped_schedules_survive_being_written(path):
    schedule = load_spec(path, BaseSchedule)
    assert read(schedule_toml(schedule, "a copy")) == schedule


def test_a_schedule_is_written_as_one_would_by_hand():
    tiers = (
        Tier(floor_usd=0.0, cap_usd=50_000.0, mmr=0.004, imr=0.008),
        Tier(floor_usd=50_000.0, cap_usd=250_000.5, mmr=0.005, imr=1.0),
    )
    schedule = BaseSchedule(
        name="x",
        description="d",
        brackets=(ContractBrackets(symbols=("BTC-USD", "ETH"), tiers=tiers),),
    )
    assert schedule_toml(schedule, "first line\n\nthird line") == (
        "# first line\n#\n# third line\n\n"
        'name = "x"\ndescription = "d"\n\n'
        '[[brackets]]\nsymbols = ["BTC-USD", "ETH"]\ntiers = [\n'
        "  { floor_usd = 0, cap_usd = 50_000, mmr = 0.004, imr = 0.008 },\n"
        "  { floor_usd = 50_000, cap_usd = 250000.5, mmr = 0.005, imr = 1 },\n"
        "]\n"
    )


@settings(max_examples=30)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.floats(1e-9, 0.4),
    st.floats(1e-3, 1e12),
)
def test_every_name_and_number_is_read_back(name, rate, cap):
    tier = Tier(floor_usd=0.0, cap_usd=cap, mmr=rate, imr=2.0 * rate)
    schedule = BaseSchedule(
        name=name,
        description=name,
        brackets=(ContractBrackets(symbols=(name,), tiers=(tier,)),),
        default=Brackets(tiers=(tier,)),
        delisted=(name,),
    )
    assert read(schedule_toml(schedule, "any")) == schedule
