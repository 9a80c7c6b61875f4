"""The two send loops, for tests that run with both of them."""

import pytest

from towerbus.wire import eager

LOOPS = ("compiled", "python")


def loop_named(name):
    """The loop of that name; the test is skipped where it is not there."""
    if name == "python":
        return eager.send_each_in_python
    if eager._eager is None:
        pytest.skip("the C loop is not there: towerbus was installed without a compiler")
    return eager._eager.send_each
