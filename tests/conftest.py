"""Settings that hold for the whole suite."""

from hypothesis import settings

# A busy machine is no fault of the code: what takes too long is ended by pytest's own timeout.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
