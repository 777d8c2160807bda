"""What the workers of `celery_app.py` and who sends them tasks have in common."""

import uuid
from pathlib import Path
from time import monotonic_ns
from typing import Any

from celery import Celery
from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps

FLAG = "new-checkout"
_POLLING_INTERVAL_S = 0.02


class PaymentError(Exception):
    """The new checkout can't charge."""


class _Channel(filesystem.Channel):
    def _put(self, queue: str, payload: Any, **_: Any) -> None:
        """Put a message whole where workers look: kombu's own is there before it is written."""
        path = Path(self.data_folder_out, f"{monotonic_ns()}_{uuid.uuid4()}.{queue}.msg")
        unfinished = path.with_suffix(".part")
        unfinished.write_text(dumps(payload))
        unfinished.rename(path)


class Transport(filesystem.Transport):
    Channel = _Channel


TRANSPORT_ALIASES["files"] = f"{__name__}:Transport"


def celery_on_files(folder: Path) -> Celery:
    """Return an application whose broker and results are files in a folder."""
    messages, control = folder / "messages", folder / "control"
    messages.mkdir(exist_ok=True)
    control.mkdir(exist_ok=True)
    app = Celery("shop", broker="files://", backend=f"file://{folder}", set_as_current=False)
    app.conf.update(
        broker_transport_options={
            "data_folder_in": str(messages),
            "data_folder_out": str(messages),
            "control_folder": str(control),
            "polling_interval": _POLLING_INTERVAL_S,
        },
        worker_prefetch_multiplier=1,
    )
    return app
