"""URLs as errors may quote them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towerbus.urls import MAX_SHOWN, shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h:1/x", "'http://h:1/x'"),
        ("http://u:hunter2@h:1/x", "'http://...@h:1/x'"),
        ("ampq://u:hun/ter?2@h", "'ampq://...@h'"),
        ("u:hunter2@h", "'...@h'"),
        ("ws://h:8051/?token=hunter2", "'ws://h:8051/?...'"),
        ("x" * 1000, "'" + "x" * 100 + "...'"),
    ],
)
def test_how_a_url_is_shown(url, expected):
    assert shown(url) == expected


@given(st.text(), st.text(st.characters(exclude_characters="@")))
def test_what_stands_before_an_at_or_behind_a_question_mark_is_never_shown(before, behind):
    assert "hunter2" not in shown(f"amqp://u:{before}hunter2@h?{behind}hunter2")
    assert len(shown(before + behind)) < 20 + 12 * MAX_SHOWN
