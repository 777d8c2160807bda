from flagd_server.hub.replay import ReplayRing


def ring_of(*sequences: int, **limits: int) -> ReplayRing:
    ring = ReplayRing(**limits)
    for sequence in sequences:
        ring.append(sequence, b"%d" % sequence)
    return ring


def test_gives_what_came_after():
    ring = ring_of(10, 20, 30)
    assert ring.since(10) == [b"20", b"30"]
    assert ring.since(25) == [b"30"]
    assert ring.since(30) == []


def test_cannot_tell_about_the_time_before_its_first_event_or_after_its_last():
    ring = ring_of(10, 20)
    assert ring.since(8) is None
    assert ring.since(9) == [b"10", b"20"]  # nothing lies between 9 and 10
    assert ring.since(21) is None
    assert ReplayRing().since(5) is None


def test_forgets_the_oldest_beyond_its_number_of_events():
    ring = ring_of(10, 20, 30, 40, max_events=2)
    assert ring.since(10) is None
    assert ring.since(20) == [b"30", b"40"]


def test_forgets_the_oldest_beyond_its_bytes():
    ring = ring_of(10, 20, 30, 40, max_bytes=5)
    assert ring.since(20) == [b"30", b"40"]
    assert ring.since(19) is None


def test_an_event_larger_than_all_its_bytes_leaves_it_empty_but_in_order():
    ring = ring_of(10, max_bytes=5)
    ring.append(20, b"x" * 6)
    assert ring.since(10) is None
    assert ring.since(20) == []
    ring.append(30, b"ok")
    assert ring.since(20) == [b"ok"]
