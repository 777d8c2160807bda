"""An application that asks OpenFeature and is watched by the guard.

FLAGD_TOKEN=fr_sdk_production_… python -m examples.integrations.openfeature_app
"""

import os
import signal
from queue import SimpleQueue

from openfeature import api
from openfeature.event import EventDetails, ProviderEvent
from openfeature.track import TrackingEventDetails

from flagd_sdk import FlagClient
from flagd_sdk.integrations.openfeature import FlagReleaseProvider, TrackedEvent


def send_to_analytics(event: TrackedEvent) -> None:
    """Stand in for whatever collects your conversions: they carry what their user was served."""
    print(f"{event.name}: {event.value:g} with {dict(event.variants)}", flush=True)


def serve(flags: FlagClient, visitor: str) -> None:
    with flags.scope({"targetingKey": visitor}):  # one unit of work; what raises in it is counted
        client = api.get_client()
        is_new = client.get_boolean_value("new-checkout", False)
        print("the new checkout" if is_new else "the old checkout", flush=True)
        client.track("bought", tracking_event_details=TrackingEventDetails(9.5))


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    url = os.environ.get("FLAGD_URL", "http://127.0.0.1:8013")
    changes: SimpleQueue[EventDetails] = SimpleQueue()
    api.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, changes.put)
    with FlagClient(url, os.environ["FLAGD_TOKEN"], service="shop") as flags:
        api.set_provider_and_wait(
            FlagReleaseProvider(flags, init_timeout_s=30.0, on_track=send_to_analytics)
        )
        try:
            while True:
                serve(flags, "ann")
                print("changed:", ", ".join(changes.get().flags_changed or ()), flush=True)
        except KeyboardInterrupt:
            pass
        finally:
            api.shutdown()


if __name__ == "__main__":
    main()
