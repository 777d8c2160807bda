from itertools import islice

from examples.demo.traffic import Visit, read_log, replay


def test_the_log_is_read_whole_and_with_its_own_failures() -> None:
    visits = read_log()

    assert len(visits) == 10_000
    assert len({visit.visitor for visit in visits}) == 1_753
    assert sum(visit.has_failed for visit in visits) == 220
    assert visits[0] == Visit(
        "19f1e13f017d", "/presentations/logstash-monitorama-2013/images/redis.png", 25230, 200
    )


def test_the_log_starts_over_with_other_visitors_and_the_same_requests() -> None:
    log = [Visit("ann", "/a", 1, 200), Visit("bob", "/b", 2, 404)]

    rounds = list(islice(replay(log), 6))

    assert [visit.visitor for visit in rounds] == ["ann", "bob", "ann-2", "bob-2", "ann-3", "bob-3"]
    assert [(v.article, v.price_cents, v.status) for v in rounds[2:4]] == [
        ("/a", 1, 200),
        ("/b", 2, 404),
    ]
