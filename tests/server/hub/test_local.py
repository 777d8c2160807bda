import gc
import socket
import threading
import time
import tracemalloc

from flagd_server.hub.base import Subscription
from flagd_server.hub.local import LocalHub
from tests.contract.hub_contract import HubContract, Snapshots, flag_event, wait_until


class TestLocalHub(HubContract):
    def make_hub(self, snapshots, heartbeat_s):
        return LocalHub(snapshots, heartbeat_s=heartbeat_s)


def test_no_thread_runs_before_it_is_needed():
    before = set(threading.enumerate())  # those of other tests may be ending meanwhile
    hub = LocalHub(Snapshots())
    assert set(threading.enumerate()) <= before
    assert hub.is_alive
    hub.close()
    assert not hub.is_alive


def test_tells_when_it_has_no_room_left():
    hub = LocalHub(Snapshots(), max_streams=1)
    assert hub.has_room
    stream = hub.stream(Subscription("production", "t1"))
    wait_until(lambda: not hub.has_room, "the stream")
    stream.close()
    wait_until(lambda: hub.has_room, "the end of the stream")
    hub.close()


def test_the_return_of_many_readers_is_spread_over_more_time():
    asked = []
    hub = LocalHub(
        Snapshots(),
        heartbeat_s=0.3,
        uniform=lambda low, high: asked.append((low, high)) or high,
    )
    streams = [hub.stream(Subscription("production", "t1")) for _ in range(3)]
    wait_until(lambda: hub.statistics().streams == 3, "three streams")
    assert set(asked) == {(500.0, 1_000)}, "a few readers are not kept waiting"
    hub._streams = 1_000  # stands for as many readers
    wait_until(lambda: asked[-1] == (4_000.0, 8_000), "a heartbeat that says so")
    hub._streams = 100_000
    hub.close(timeout_s=0.0)
    # No reader is kept away for longer. `close` has waited for a second, not for the thread.
    wait_until(lambda: asked[-3:] == [(10_000.0, 20_000)] * 3, "three farewells")
    for stream in streams:
        stream.close()


def test_a_fault_inside_the_hub_closes_the_streams_and_not_the_hub(caplog):
    hub = LocalHub(Snapshots())
    broken = hub.stream(Subscription("production", "t1"))
    hub.publish("production", 5, None)  # type: ignore[arg-type]
    assert b"event: flags" in b"".join(broken)  # it ends
    assert "every stream is closed" in caplog.text
    assert hub.is_alive
    again = hub.stream(Subscription("production", "t1"))
    received = b""
    while b"event: flags" not in received:
        received += next(again)
    again.close()
    hub.close()


def test_an_event_out_of_order_is_refused_and_logged(caplog):
    hub = LocalHub(Snapshots())
    hub.publish("production", 5, flag_event(5))
    hub.publish("production", 5, flag_event(5))
    wait_until(lambda: "out of order" in caplog.text, "the log entry")
    assert hub.statistics().published == 1
    hub.close()


def test_a_publisher_beside_a_busy_thread_is_not_held_up_stream_by_stream():
    """With `socket.send` each of the 300 sends may wait a switch interval (5 ms) for its turn."""
    hub = LocalHub(Snapshots())
    pairs = [socket.socketpair() for _ in range(300)]
    for _, far in pairs:
        hub.attach(far, Subscription("production", "t1"))
    wait_until(lambda: hub.statistics().streams == len(pairs), "the streams")
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            sum(range(10_000))

    busy = threading.Thread(target=burn)
    busy.start()
    try:
        fastest_s = float("inf")
        for sequence in range(10, 15):
            started_at = time.perf_counter()
            hub.publish("production", sequence, flag_event(sequence))
            marker = b"id: %d\n" % sequence
            near = pairs[-1][0]
            near.settimeout(10.0)
            data = b""
            while marker not in data:
                data = data[-64:] + near.recv(65536)
            fastest_s = min(fastest_s, time.perf_counter() - started_at)
        assert fastest_s < 0.25  # 300 × 5 ms would be 1.5 s
    finally:
        stop.set()
        busy.join()
        hub.close()
        for near, _ in pairs:
            near.close()


def test_a_stream_costs_less_than_two_kilobytes():
    """Python objects only; that the process keeps to it as well is measured by the benchmark."""
    hub = LocalHub(Snapshots())
    pairs = [socket.socketpair() for _ in range(400)]
    hub.attach(pairs[0][1], Subscription("production", "t1", "i-0"))
    wait_until(lambda: hub.statistics().streams == 1, "a stream")
    gc.collect()
    tracemalloc.start()
    for number, (_, far) in enumerate(pairs[1:]):
        hub.attach(far, Subscription("production", "t1", f"i-{number}"))
    wait_until(lambda: hub.statistics().streams == len(pairs), "the streams")
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / (len(pairs) - 1) < 2048
    hub.close()
    for near, _ in pairs:
        near.close()
