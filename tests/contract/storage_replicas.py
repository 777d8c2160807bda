"""What every storage keeps to for several servers: the inbox, how far guards are, what was told."""

from datetime import timedelta

from flagd_server.storage.base import Storage
from flagd_server.storage.replicas import GuardProgress, InboxItem
from tests.contract.storage_samples import AT, fill


def _item(key: str, document: str = "{}") -> InboxItem:
    return InboxItem(key, "summary", document, AT)


class ReplicasContract:
    def test_the_inbox_is_worked_off_in_the_order_of_writing(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            tx.put_inbox([_item("b", '{"text": "Zürich \\u2028"}'), _item("a")])
        with storage.transaction() as tx:
            tx.put_inbox([_item("c"), _item("a", "again")])
            tx.put_inbox([])
        with storage.read() as reader:
            found = reader.inbox(10)
            assert [item.key for item in found] == ["b", "a", "c"]
            assert found[:2] == [_item("b", '{"text": "Zürich \\u2028"}'), _item("a")]
            assert [item.key for item in reader.inbox(2)] == ["b", "a"]
            assert reader.inbox_span() >= 3
        with storage.transaction() as tx:
            assert tx.delete_inbox(["a", "x"]) == 1
            assert [item.key for item in tx.inbox(10)] == ["b", "c"]
            assert tx.delete_inbox(["b", "c"]) == 2
            assert tx.delete_inbox([]) == 0
        with storage.read() as reader:
            assert (reader.inbox(10), reader.inbox_span()) == ([], 0)

    def test_what_was_set_aside_is_in_nobodys_way(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            tx.put_inbox([_item("bad"), _item("good")])
            tx.set_inbox_aside("bad")
        with storage.transaction() as tx:
            assert [item.key for item in tx.inbox(10)] == ["good"]
            assert tx.delete_inbox(["bad"]) == 0
            tx.put_inbox([_item("bad")])
            assert tx.delete_inbox(["good"]) == 1
            assert tx.inbox_span() == 0
            tx.prune_inbox(AT)
            tx.put_inbox([_item("bad")])
            assert tx.inbox(10) == [], "the one that was set aside is there still"
            tx.prune_inbox(AT + timedelta(seconds=1))
            tx.put_inbox([_item("bad")])
            assert tx.inbox(10) == [_item("bad")]

    def test_the_progress_of_running_lives_is_told(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            fill(tx)
            lives = [tx.insert_guard_life("production", "checkout", "{}") for _ in range(3)]
            for life in lives:
                tx.save_guard_state(life, 0, "{}")
            events = [
                tx.append_guard_event(lives[0], 1.0, "{}", has_units=units)
                for units in (True, False, True)
            ]
            last = tx.append_guard_event(lives[1], 1.0, "{}", has_units=False)
            tx.end_guard_life(lives[2], AT, "killed")
        with storage.read() as reader:
            assert reader.guard_progress() == [
                GuardProgress(lives[0], 0, events[-1]),
                GuardProgress(lives[1], 0, last),
            ]
        with storage.transaction() as tx:
            tx.save_guard_state(lives[0], events[1], "{}")
            tx.save_guard_state(lives[1], last, "{}")
        with storage.read() as reader:
            assert reader.guard_progress() == [
                GuardProgress(lives[0], events[1], events[-1]),
                GuardProgress(lives[1], last, last),
            ]

    def test_what_was_told_of_blindness_is_kept_until_it_is_over(self, storage: Storage) -> None:
        with storage.transaction() as tx:
            fill(tx)
            tx.put_blind_told("production", "checkout")
            tx.put_blind_told("production", "checkout")
            tx.put_blind_told("production", "search")
        with storage.read() as reader:
            assert reader.blind_told() == {("production", "checkout"), ("production", "search")}
        with storage.transaction() as tx:
            tx.delete_blind_told({("production", "checkout"), ("staging", "checkout")})
            assert tx.blind_told() == {("production", "search")}
            tx.delete_environment("production")
            assert tx.blind_told() == set()
