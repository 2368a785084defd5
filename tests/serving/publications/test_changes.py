"""What changed between two tables, beside a slow twin that looks at one level after another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.publications.publication_case import POLICY, SCHEDULE, scored

from margincast.margin.explanation import chain_of
from margincast.serving.publications.changes import changes_between

FULL = ("BTCUSDT", "DOGEUSDT", "ETHUSDT", "XRPUSDT")


def one_by_one(before, after, threshold):
    """Return (change, cause, notable) by level, a row and a step at a time."""
    tables = [
        {
            (row["symbol"], row["side"], row["tier_floor_usd"], row["tier_cap_usd"]): row
            for row in table.to_dict(orient="records")
        }
        for table in (before, after)
    ]
    found = {}
    for key in {**tables[0], **tables[1]}:
        old, new = (table.get(key) for table in tables)
        if old is None or new is None:
            found[key] = (None, "", True)
            continue
        added = [
            {step.name: step.value_after - step.value_before for step in chain_of(row, POLICY)}
            for row in (old, new)
        ]
        moved = {
            step: added[1].get(step, 0.0) - added[0].get(step, 0.0)
            for step in {**added[0], **added[1]}
        }
        change = new["mmr"] / old["mmr"] - 1.0
        largest = max(abs(value) for value in moved.values())
        causes = {step for step, value in moved.items() if abs(value) > largest - 1e-12}
        notable = abs(change) >= threshold or old["status"] != new["status"]
        found[key] = (change, causes if new["mmr"] != old["mmr"] else "", notable)
    return found


@settings(max_examples=10)
@given(
    st.integers(0, 5), st.integers(0, 5),
    st.lists(st.sampled_from(FULL), min_size=1, unique=True),
    st.lists(st.sampled_from(FULL), min_size=1, unique=True),
    st.sampled_from([0.05, 0.3]),
)  # fmt: skip
def test_changes_are_those_of_every_level_looked_at_alone(one, other, symbols, others, threshold):
    before = scored(0, seed=one, symbols=tuple(sorted(symbols))).levels
    after = scored(1, seed=other, symbols=tuple(sorted(others))).levels
    changes = changes_between(before, after, threshold)
    expected = one_by_one(before, after, threshold)
    assert len(changes.rows) == len(expected)
    for row in changes.rows.to_dict(orient="records"):
        key = (row["symbol"], row["side"], row["tier_floor_usd"], row["tier_cap_usd"])
        change, causes, notable = expected[key]
        if change is None:
            assert np.isnan(row["change"])
            assert row["cause"] == ""
        else:
            assert row["change"] == pytest.approx(change, abs=1e-15)
            assert row["cause"] == "" if causes == "" else row["cause"] in causes
        assert row["notable"] == notable
    assert changes.new == sum(key[0] not in symbols for key in expected)
    assert changes.gone == sum(key[0] not in others for key in expected)
    assert changes.counts("status")["after"].sum() == len(after)
    assert len(changes.rises) == sum(
        change is not None and change > 0 for change, *_ in expected.values()
    )


def test_a_table_beside_itself_has_not_changed():
    levels = scored().levels
    changes = changes_between(levels, levels, 0.01)
    assert (changes.rows["change"] == 0.0).all()
    assert set(changes.rows["cause"]) == {""}
    assert (changes.new, changes.gone, changes.notable) == (0, 0, 0)


def test_a_level_whose_notionals_changed_is_another_one():
    tiers = SCHEDULE.default.tiers
    first = tiers[0].model_copy(update={"cap_usd": 2 * tiers[0].cap_usd})
    second = tiers[1].model_copy(update={"floor_usd": 2 * tiers[0].cap_usd})
    default = SCHEDULE.default.model_copy(update={"tiers": (first, second, *tiers[2:])})
    other = SCHEDULE.model_copy(update={"default": default, "brackets": ()})
    plain = SCHEDULE.model_copy(update={"brackets": ()})
    changes = changes_between(
        scored(symbols=("AUSDT", "BUSDT"), schedule=plain).levels,
        scored(symbols=("AUSDT", "BUSDT"), schedule=other).levels,
    )
    # two tiers of two contracts' two sides
    assert (changes.new, changes.gone) == (8, 8)
    assert changes.notable == 0, "no threshold flags nothing"
