from pathlib import Path

import pytest

from margincast.core.errors import SpecError
from margincast.specs.live import LiveMode
from margincast.specs.loading import load_spec
from margincast.specs.serving import MarginPolicy

WORKSPACE = Path(__file__).resolve().parents[2]
LIVE = WORKSPACE / "serving" / "live.toml"


def test_the_shipped_file_follows_a_policy_that_is_there():
    spec = load_spec(LIVE, LiveMode)
    assert load_spec(WORKSPACE / spec.policy, MarginPolicy).name == "demo"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('feed.tables=["trades"]', "neither bars nor book"),
        ('feed.tables=["bars", "book", "bars"]', "names one twice"),
        ('feed.tables=["bars"]', "watch.silence.book is 150s"),
        ("watch.every_milliseconds=501", "less than or equal to 500"),
        ("watch.mark_deviation=0.0", "greater than 0"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(change, said):
    with pytest.raises(SpecError, match=said):
        load_spec(LIVE, LiveMode, [change])
