"""The page of features says what the code says."""

from pathlib import Path

from margincast.features.library import LIBRARY
from margincast.features.reference import feature_page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "features.md"


def test_the_page_is_that_of_the_code():
    renew = "renew it: python -m margincast.features.reference > docs/features.md"
    assert PAGE.read_text(encoding="utf-8") == feature_page(), renew


def test_every_function_is_documented():
    page = feature_page()
    for _, name in LIBRARY:
        assert f"### `{name}`" in page
    assert all(function.build.__doc__ for function in LIBRARY.values())
