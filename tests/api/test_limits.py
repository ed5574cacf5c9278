"""What limits a workflow's runs: how it is declared."""

from __future__ import annotations

import pickle
from datetime import timedelta

import pytest

from cloaca.errors import WorkflowError
from cloaca.limits import Concurrency, Limit, RateLimit, Throttle

WRONG = [
    (lambda: Concurrency(0), "limit is 0; it must be from 1"),
    (lambda: Concurrency(True), "limit is True, a bool; it must be a whole number from 1"),
    (lambda: Concurrency(1.5), "limit is 1.5, a float"),
    (lambda: Concurrency(1, key=7), "key is 7, an int; give a path into the context"),
    (lambda: Concurrency(1, key=""), 'key is "", which has not 1 to 1024 characters; give a path'),
    (lambda: Concurrency(1, key="a..b"), "with an empty name in its path"),
    (lambda: Concurrency(1, key="{a"), "with a { that is not closed"),
    (lambda: Concurrency(1, key="{{a}}"), "in which no path stands"),
    (lambda: Concurrency(1, key="\ud800"), "lone surrogate"),
    (lambda: Concurrency(1, overflow="drop"), "overflow is 'drop'; \"wait\" lets"),
    (lambda: Throttle(1, per="soon"), "per is 'soon', which is no duration"),
    (lambda: Throttle(1, per="1m", burst=0), "burst is 0; it must be from 1"),
    (lambda: Throttle(2_000, per="1ms"), "limit is 2000 per 1ms; the most is one in a microsecond"),
    (lambda: RateLimit(1, per=0), "per is 0s; the smallest is 1ms"),
    (lambda: Limit(""), "name is ''; it must not be empty"),
    (lambda: Limit("api"), "limit 'api' limits nothing; give concurrency=4"),
    (lambda: Limit("api", concurrency=0), "concurrency is 0; it must be from 1"),
    (lambda: Limit("api", throttle=60), "throttle is 60, an int; give cloaca.Throttle(60"),
    (lambda: Limit("api", throttle=Throttle(1, per="1s", key="tenant")), "has the key 'tenant'"),
]


@pytest.mark.parametrize(("make", "told"), WRONG, ids=[told for _, told in WRONG])
def test_a_wrong_limit_names_argument_value_and_way_out(make, told):
    with pytest.raises(WorkflowError) as refused:
        make()
    assert told in str(refused.value)


def test_limits_are_equal_shown_and_pickled_by_what_they_say():
    throttle = Throttle(10, per=timedelta(minutes=1), key="{tenant}:{region}")
    assert throttle == Throttle(10, per="1m", burst=1, key="{tenant}:{region}") != Throttle(10, per="2m")
    assert repr(throttle) == "Throttle(limit=10, per='1m', burst=1, key='{tenant}:{region}')"
    assert throttle != RateLimit(10, per="1m", burst=1, key="{tenant}:{region}")
    assert RateLimit(100, per="1h").burst == 100
    assert repr(Concurrency(2)) == "Concurrency(limit=2, key=None, overflow='wait')"
    for limit in (
        throttle,
        Concurrency(2, key="a.b"),
        Limit("api", concurrency=4, throttle=Throttle(1, per=1)),
    ):
        assert pickle.loads(pickle.dumps(limit)) == limit
    with pytest.raises(AttributeError, match="cannot be changed"):
        throttle.limit = 3
