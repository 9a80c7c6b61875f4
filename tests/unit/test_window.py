"""The window of ids, beside a model that remembers a list."""

from hypothesis import given
from hypothesis import strategies as st

from towerbus.event import Event
from towerbus.log.window import IdWindow
from towerbus.topics import Topic


def events(ids):
    return [Event(Topic("g", "t"), b"{}", str(id_), 0.0) for id_ in ids]


@given(st.lists(st.lists(st.integers(0, 12), max_size=6)))
def test_it_knows_the_newest_ids_and_no_others(emits):
    window, known = IdWindow(5), []
    for ids in emits:
        fresh = [event.id for event in window.unseen(events(ids))]
        assert fresh == list(dict.fromkeys(str(id_) for id_ in ids if str(id_) not in known))
        window.add(events(fresh))
        known = (known + fresh)[-5:]


def test_what_is_only_asked_for_is_not_remembered():
    window = IdWindow()
    assert window.unseen(events([1]))
    assert window.unseen(events([1]))
