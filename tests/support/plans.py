"""Plans of events for the bench's accounts: which topic each is of, and what a client with some topics gets of them."""

from hypothesis import strategies as st

from towerbus.topics import topic

TOPICS = [topic("jobs", name) for name in "abcd"]
plans = st.lists(st.integers(0, 3), min_size=1, max_size=40)
sets = st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True)


def always(_):
    """All were sent before any reply."""
    return 0.0


def wanted(plan, topics, first=0):
    return [number for number, each in enumerate(plan) if each in topics and number >= first]
