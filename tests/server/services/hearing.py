"""The listener of a server that is put together by hand."""

from flagd_server.services.notices import Notices
from flagd_server.services.own_changes import OwnChanges
from flagd_server.services.propagation import Propagation
from flagd_server.services.publishing import Announcer
from flagd_server.services.snapshots import Snapshots
from flagd_server.storage.base import Storage


def listen(
    storage: Storage,
    snapshots: Snapshots,
    announcer: Announcer,
    own: OwnChanges | None = None,
) -> Notices:
    """Have changes taken over and sent; more may be asked for by the notices that are returned."""
    notices = Notices()
    own = OwnChanges() if own is None else own
    Propagation(storage, snapshots, announcer, own).subscribe(notices)
    storage.listen(notices.hear, notices.gap)
    return notices
