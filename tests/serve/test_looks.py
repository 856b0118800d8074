"""The store of looks: bounded in bytes and in time, the least used leave first."""

import torch

from gazetell.models.encoders import Grid
from gazetell.serve.looks import Held, LookStore, handle_of


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def held(numbers):
    """A picture that takes 8 bytes a number (4 for its cell and 4 for the pooled one)."""
    return Held(grids={"e": Grid.of(torch.zeros(1, 1, numbers), 1, 1)})


def test_what_is_put_is_got_until_its_time_is_over():
    clock = Clock()
    store, one = LookStore(1000, 10, clock), held(2)
    store.put("a", one)
    clock.now = 9
    assert store.get("a") is one  # used: its time begins anew
    clock.now = 18
    assert store.get("a") is one
    clock.now = 28
    assert store.get("a") is None
    assert (len(store), store.size) == (0, 0)


def test_the_least_used_leave_when_there_is_no_room():
    store = LookStore(100, 10, Clock())
    for name in "abc":
        store.put(name, held(4))  # 32 bytes each
    assert store.size == 96
    assert store.get("a") is not None
    store.put("d", held(4))
    assert [name for name in "abcd" if store.get(name)] == ["a", "c", "d"]
    assert store.size == 96


def test_the_same_handle_is_counted_once():
    store = LookStore(100, 10, Clock())
    for _ in range(5):
        store.put("a", held(4))
    assert (len(store), store.size) == (1, 32)


def test_one_that_is_too_large_alone_is_kept_until_the_next():
    store = LookStore(100, 10, Clock())
    store.put("a", held(100))
    assert store.get("a") is not None
    store.put("b", held(4))
    assert store.get("a") is None
    assert store.size == 32


def test_handles_are_of_contents():
    assert handle_of(b"a") == handle_of(b"a") != handle_of(b"b")
