"""When a comparison starts afresh, and how its part of alpha is divided among what it starts.

Which epochs open, when and with what share may depend on anything but the sides on which units
fall; that is what lets all their streams err with at most alpha together (union bound).
"""

from flagd_sdk.core.guard.coin import Onset
from flagd_sdk.core.guard.streams import LIFE_S, Epoch

# Shares of alpha: they sum to 1 over everything that may ever be opened in a life.
ERRORS_SHARE, KINDS_SHARE = 0.30, 0.18
ANNOUNCED_ERRORS_SHARE, ANNOUNCED_KINDS_SHARE = 0.28, 0.08
CLOCK_ERRORS_SHARE, CLOCK_KINDS_SHARE = 0.12, 0.04

# At a high base rate most units have failed within hours and are spent for the streams that were
# open then; where units last longer than this, the older streams do well.
CLOCK_EPOCH_S = 3_600.0
CLOCK_EPOCHS = int(LIFE_S / CLOCK_EPOCH_S)
# Each sort has its own places, else the clock would push the announced out within hours.
ANNOUNCED_EPOCHS_KEPT = 2
CLOCK_EPOCHS_KEPT = 2

# A fault begins with a change, most likely, and the sooner after it the likelier; the clock opens
# its epochs where nothing is known to have changed, so there any time is as likely as another.
AT_ANY_TIME = Onset(first=0.1, horizon_s=CLOCK_EPOCHS_KEPT * CLOCK_EPOCH_S, fades=False)


def kept(epochs: list[Epoch]) -> list[Epoch]:
    """Return the life and the newest epochs of either sort, in the order in which they opened."""
    life, *others = epochs
    newest = {
        *[epoch for epoch in others if epoch.is_clock][-CLOCK_EPOCHS_KEPT:],
        *[epoch for epoch in others if not epoch.is_clock][-ANNOUNCED_EPOCHS_KEPT:],
    }
    return [life, *(epoch for epoch in others if epoch in newest)]
