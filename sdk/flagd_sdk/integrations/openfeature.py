"""A provider for the OpenFeature SDK (`pip install flagd-release[openfeature]`).

    api.set_provider(FlagReleaseProvider(flags))

`docs/openfeature.md` tells which requirement of the specification is met how. Nothing here has to
do with OpenFeature's own flagd, which is another product.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final, NamedTuple

from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent, ProviderEventDetails
from openfeature.exception import ErrorCode, ProviderFatalError, ProviderNotReadyError
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType, Reason
from openfeature.hook import Hook
from openfeature.provider import AbstractProvider, Metadata
from openfeature.track import TrackingEventDetails

from flagd_sdk.client import FlagClient
from flagd_sdk.core.bucketing import TARGETING_KEY
from flagd_sdk.core.types import ContextMapping
from flagd_sdk.core.types import Reason as ResolvedReason
from flagd_sdk.errors import ConfigurationError
from flagd_sdk.flag_state import ClientStatus, FlagsChanged
from flagd_sdk.notices import Notices

NAME: Final = "flagd-release"
_CLOSE_TIMEOUT_S = 5.0

_STALE = "the flag server is out of reach; the last known values stay in use"
_REFUSED = "the flag server refuses the token, and no flags are known"
_NOT_READY = "no flags have come from the server yet"

# What the SDK is told of each status.
_EVENTS: Final[Mapping[ClientStatus, tuple[ProviderEvent, str | None, ErrorCode | None]]] = {
    ClientStatus.READY: (ProviderEvent.PROVIDER_READY, None, None),
    ClientStatus.STALE: (ProviderEvent.PROVIDER_STALE, _STALE, None),
    ClientStatus.ERROR: (ProviderEvent.PROVIDER_ERROR, _REFUSED, ErrorCode.PROVIDER_FATAL),
    ClientStatus.NOT_READY: (
        ProviderEvent.PROVIDER_ERROR,
        _NOT_READY,
        ErrorCode.PROVIDER_NOT_READY,
    ),
}


class TrackedEvent(NamedTuple):
    """Something that happened to a user, with the variants that they had.

    Attributes:
        context: the merged evaluation context, completed by the open scope's.
        value, attributes: of the tracking event's details.
        variants: flag → variant, of all flags served so far in the open scope; empty where there
            is none, or where the context is another unit's.
    """

    name: str
    context: ContextMapping
    value: float | None
    attributes: Mapping[str, object]
    variants: Mapping[str, str | None]


class FlagReleaseProvider(AbstractProvider):
    """Answers OpenFeature's evaluations from a `FlagClient`, in process.

    An evaluation inside a scope of that client, for the scope's own unit, is an exposure, which the
    guard watches; any other counts as unscoped.
    """

    def __init__(
        self,
        client: FlagClient | Callable[[], FlagClient],
        *,
        init_timeout_s: float = 5.0,
        hooks: Sequence[Hook] = (),
        on_track: Callable[[TrackedEvent], object] | None = None,
    ) -> None:
        """Take a client, or a function that makes one.

        Args:
            client: one that the application shares and closes; or what makes one as the provider
                is initialised, which is then closed as it is shut down.
            init_timeout_s: how long to wait for the first flags where disk and bootstrap have none.
            hooks: run with each evaluation, as the provider's own.
            on_track: takes what `track` is called with; without it, tracking does nothing.
        """
        super().__init__()
        self._make_client = None if isinstance(client, FlagClient) else client
        self._client = client if isinstance(client, FlagClient) else None
        self._init_timeout_s = init_timeout_s
        self._hooks = list(hooks)
        self._on_track = on_track
        self._notices = Notices(monotonic)
        self._subscriptions: tuple[Callable[[], None], ...] = ()
        self._heard = threading.Event()  # flags, or that there will be none
        self._told: ClientStatus | None = None  # to the SDK; None while it is not initialised
        self._first_sequence = 0  # of the flag set that it was initialised with

    def get_metadata(self) -> Metadata:
        return Metadata(NAME)

    def get_provider_hooks(self) -> list[Hook]:
        return self._hooks

    # --- from NOT_READY to READY and back ------------------------------------------------------

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        """Wait for flags, unless some are known, for no longer than the timeout.

        With flags from disk or bootstrap it is ready at once, and tells at the next failure to
        reach the server that they are stale.

        Raises:
            ProviderFatalError: the token is refused, or the client can't be made.
            ProviderNotReadyError: no flags came in time; they are still asked for.
        """
        client = self._client or self._connected()
        self._unsubscribe()
        self._heard.clear()
        self._subscriptions = (client.on_status(self._hear), client.on_change(self._hear_change))
        if client.status is ClientStatus.NOT_READY:
            self._heard.wait(self._init_timeout_s)
        self._first_sequence = client.flag_set.sequence
        status = client.status
        if status is ClientStatus.ERROR:
            self._told = status
            raise ProviderFatalError(_REFUSED)
        if status is ClientStatus.NOT_READY:
            self._told = status
            raise ProviderNotReadyError(f"{_NOT_READY}, for {self._init_timeout_s:g} s")
        # Whatever was found, the SDK takes the end of this function for PROVIDER_READY.
        self._told = ClientStatus.READY

    def shutdown(self) -> None:
        """Emit no more events, and close the client if it was made here, within its time."""
        self._unsubscribe()
        self._told = None
        client = self._client
        if self._make_client is not None and client is not None:
            self._client = None
            client.close(_CLOSE_TIMEOUT_S)

    def _connected(self) -> FlagClient:
        assert self._make_client is not None  # there is a client or what makes one
        try:
            self._client = client = self._make_client()
        except ConfigurationError as error:
            raise ProviderFatalError(str(error)) from error
        return client

    def _unsubscribe(self) -> None:
        for unsubscribe in self._subscriptions:
            unsubscribe()
        self._subscriptions = ()

    # --- events, on the client's thread --------------------------------------------------------

    def _hear(self, status: ClientStatus) -> None:
        if status is not ClientStatus.NOT_READY:
            self._heard.set()
        if self._told is None or status is self._told:
            return
        self._told = status
        event, message, code = _EVENTS[status]
        self.emit(event, ProviderEventDetails(message=message, error_code=code))

    def _hear_change(self, change: FlagsChanged) -> None:
        # To get the first flags is no change of flags.
        if self._told is not None and change.sequence != self._first_sequence:
            details = ProviderEventDetails(
                flags_changed=sorted(change.keys), metadata={"sequence": change.sequence}
            )
            self.emit(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, details)

    def emit(self, event: ProviderEvent, details: ProviderEventDetails) -> None:
        # The SDK may detach meanwhile, and at the interpreter's exit it takes no events any more.
        with suppress(AttributeError, RuntimeError):
            super().emit(event, details)

    # --- evaluation: never raises, never blocks; the asynchronous variants are the inherited ----

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        return self._resolve(flag_key, default_value, False, evaluation_context)

    def resolve_string_details(
        self,
        flag_key: str,
        default_value: str,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[str]:
        return self._resolve(flag_key, default_value, "", evaluation_context)

    def resolve_integer_details(
        self,
        flag_key: str,
        default_value: int,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[int]:
        return self._resolve(flag_key, default_value, 0, evaluation_context)

    def resolve_float_details(
        self,
        flag_key: str,
        default_value: float,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[float]:
        return self._resolve(flag_key, default_value, 0.0, evaluation_context)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        return self._resolve(flag_key, default_value, {}, evaluation_context)

    def _resolve(
        self, key: str, default: Any, of_type: object, evaluation_context: EvaluationContext | None
    ) -> FlagResolutionDetails[Any]:
        """Evaluate a flag of the type asked for, whatever the type of the caller's default."""
        client = self._client
        if client is None:
            return _failure(default, ErrorCode.PROVIDER_NOT_READY, _NOT_READY)
        try:
            context = _mapping_of(evaluation_context)
        except Exception as error:  # the host's edge: a context's values may run any code
            message = f"reading the context raised {type(error).__name__}"
            return _failure(default, ErrorCode.INVALID_CONTEXT, message)
        typed = default if type(default) is type(of_type) else of_type
        details = client.merged_details(key, typed, context)
        status = client.status
        if details.error_code is not None:
            code = ErrorCode(details.error_code.value)
            _, why, unready = _EVENTS[status]
            if code is ErrorCode.FLAG_NOT_FOUND and unready is not None:
                return _failure(default, unready, why)
            return _failure(default, code, details.error_message, details.flag_metadata)
        metadata = {**details.flag_metadata, "flagSetId": client.flag_set.environment}
        reason = details.reason
        if status is ClientStatus.STALE:
            metadata["reason"] = reason.value
            reason = ResolvedReason.STALE
        return FlagResolutionDetails(
            value=details.value,
            reason=Reason(reason.value),
            variant=details.variant,
            flag_metadata=metadata,
        )

    # --- tracking ------------------------------------------------------------------------------

    def track(
        self,
        tracking_event_name: str,
        evaluation_context: EvaluationContext | None = None,
        tracking_event_details: TrackingEventDetails | None = None,
    ) -> None:
        """Hand an event to `on_track`, with the variants that its user was served. Never raises."""
        if self._on_track is None:
            return
        try:
            context: ContextMapping = _mapping_of(evaluation_context)
            scope = None if self._client is None else self._client.current_scope
            merged = None if scope is None else scope.merged_with(context)
            served = {} if scope is None or merged is None else dict(scope.served)
            event = TrackedEvent(
                tracking_event_name,
                context if merged is None else merged,
                None if tracking_event_details is None else tracking_event_details.value,
                {} if tracking_event_details is None else tracking_event_details.attributes,
                {flag: resolution.variant for flag, resolution in served.items()},
            )
            self._on_track(event)
        except Exception:  # the host's code
            self._notices.crash("track", "A tracking event could not be handed on")


def _failure(
    default: Any, code: ErrorCode, message: str | None, metadata: Mapping[str, Any] | None = None
) -> FlagResolutionDetails[Any]:
    return FlagResolutionDetails(
        value=default,
        error_code=code,
        error_message=message,
        reason=Reason.ERROR,
        flag_metadata=metadata or {},
    )


_PLAIN: Final = frozenset((str, bool, int, float))


def _mapping_of(context: EvaluationContext | None) -> dict[str, object]:
    if context is None:
        return {}
    mapping = {
        name: value if type(value) in _PLAIN else _understood(value)
        for name, value in context.attributes.items()
    }
    if context.targeting_key:
        mapping[TARGETING_KEY] = context.targeting_key
    return mapping


def _understood(value: object) -> object:
    """Return a value as operators know it: any sequence as a list, a datetime with its zone.

    One without a zone is in UTC (specification, types, "Datetime").
    """
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return list(_elements(value))
    return value


def _elements(values: Sequence[object]) -> Iterator[object]:
    for value in values:
        yield value if type(value) in _PLAIN else _understood(value)
