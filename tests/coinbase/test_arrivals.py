"""The queue between the socket's thread and the one that works."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from richter.adapters.coinbase.arrivals import Arrival, Arrivals, What


def frame(number: int, size: int = 100) -> Arrival:
    return Arrival(What.FRAME, "c", number, number, bytes(size))


@given(st.lists(st.integers(0, 400), max_size=60), st.integers(300, 5_000), st.integers(1, 9))
def test_every_frame_is_handed_on_or_counted_in_its_place(sizes: list[int], limit: int, every: int) -> None:
    queue = Arrivals(limit)
    taken: list[Arrival] = []
    for number, size in enumerate(sizes):
        queue.put(frame(number, size))
        if number % every == 0:
            taken += queue.take(0, most=2)
    queue.put(Arrival(What.STOPPED, "c", 0, 0))
    while got := queue.take(0):
        taken += got

    seen = 0
    for arrival in taken:
        if arrival.what is What.LOST:
            seen += arrival.frames
        elif arrival.what is What.FRAME:
            assert arrival.at == seen
            seen += 1
    assert seen == len(sizes)
    assert taken[-1].what is What.STOPPED
    assert queue.most_bytes <= limit + 3 * 200
    assert queue.waiting_bytes == 0


def test_a_queue_without_a_bound_would_lose_nothing() -> None:
    queue = Arrivals(10**9)

    for number in range(1000):
        queue.put(frame(number))

    assert queue.lost_frames == 0
    assert len(queue.take(0, most=2000)) == 1000


def test_taking_waits_for_what_comes() -> None:
    queue = Arrivals()
    thread = threading.Timer(0.05, queue.put, [frame(1)])
    thread.start()

    taken = queue.take(30)

    thread.join()
    assert [arrival.at for arrival in taken] == [1]


def test_taking_ends_when_nothing_comes() -> None:
    assert Arrivals().take(0.01) == []
