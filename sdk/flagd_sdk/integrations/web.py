"""What the web integrations share: one request as a unit of work, and how it ended.

A request begins in one place, goes on in others (whoever sends its body) and ends in a third, so
its scope is no `with` block.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextvars import ContextVar
from sys import exc_info
from threading import RLock
from types import TracebackType
from typing import Any, Final, TypeVar, cast
from weakref import ref

from flagd_sdk.client import FlagClient
from flagd_sdk.core.bucketing import TARGETING_KEY, targeting_unit
from flagd_sdk.core.model import Resolver
from flagd_sdk.core.types import ContextMapping
from flagd_sdk.notices import Notices
from flagd_sdk.scope import NO_CONTEXT, Scope, current_scope

Request = TypeVar("Request")

# Sends the first evaluation the long way, which reads the context and so has it asked for.
_NOT_YET: Final[Mapping[str, Resolver]] = {}
_FIRST_FAILING_STATUS = 500


class RequestScope(Scope):
    """A unit of work that has begun, is current only inside `running`, and ends at `end`.

    Its context is asked for at the first evaluation: by then authentication is done, whatever the
    order of middleware, and a request that needs no flag does not load a user for one.

    Attributes:
        error: an exception that the framework answered itself.
        status: of the response, where it is a failing one; else 0.
        is_client_gone: the application has learned that nobody waits for the response.
        is_complete: no code of the application is left to run for the body.
    """

    __slots__ = ("__weakref__", "error", "is_client_gone", "is_complete", "status")

    def __init__(self, flags: FlagClient, ask: Callable[[], ContextMapping]) -> None:
        """Begin.

        Args:
            ask: the developer's function; called once, at the first evaluation. Where it raises,
                the context is empty and the log says so.
        """
        owner = flags.scope().owner
        assert owner is not None  # it has not ended
        self.owner = owner
        self.context = NO_CONTEXT
        self.began_ns = 0
        self.error: Exception | None = None
        self.status = 0
        self.is_client_gone = self.is_complete = False
        before = current_scope.get()
        self.__enter__()
        current_scope.set(before)
        self.resolvers = _NOT_YET
        self.context = _Unasked(ask, owner.notices, self)

    def running(self) -> "_Running":
        """Make it current inside a `with` block, as often as needed, in any thread or task.

        An exception that leaves the block escapes from the request, and ends it.
        """
        return _Running(self)

    def merged_with(self, context: ContextMapping) -> ContextMapping | None:
        """As of any scope; but `unit`, which it compares, is known only with the context."""
        self.context.get(TARGETING_KEY)
        return super().merged_with(context)

    def fail_later(self, error: BaseException | None) -> None:
        """Note an exception that the framework answers itself; the first is the cause."""
        if self.error is None and isinstance(error, Exception) and not self.is_client_gone:
            self.error = error

    def answer(self, status: int) -> None:
        """Note the status of the response that begins."""
        if status < _FIRST_FAILING_STATUS or self.is_client_gone:
            return
        self.status = status
        # What is being handled while a failing response begins is why it fails.
        error = exc_info()[1]
        if not _gives_status(error, status):
            self.fail_later(error)

    def lose_client(self) -> None:
        """Note that nobody waits for the response: what goes wrong from now on is no failure."""
        self.is_client_gone = True

    def end(self, error: BaseException | None = None) -> None:
        """End it; later calls do nothing. It stays current where it is, as work that outlived it.

        It has failed where an exception escaped, or was answered by the framework, or the status
        says so and nothing has told why: one failure for one cause.
        """
        if self.owner is None:
            return
        cause, self.error = self.error, None  # kept, its traceback would keep this scope
        if cause is None and isinstance(error, Exception) and not self.is_client_gone:
            cause = error
        token = current_scope.set(None)
        try:
            if not self.served:  # counts nothing, so a failure need not ask for the context
                cause = None
            elif cause is None and self.status and not self.failures:
                self.fail(self.status)
            self.__exit__(None if cause is None else type(cause), cause, None)
        finally:
            current_scope.reset(token)


class _Running:
    __slots__ = ("_scope", "_token")

    def __init__(self, scope: RequestScope) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        self._token = current_scope.set(self._scope)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._scope.end(error)
        current_scope.reset(self._token)


def _gives_status(error: BaseException | None, status: int) -> bool:
    """Whether it is only a way to answer: `raise HTTPException(503)` of Starlette, of Werkzeug."""
    try:
        return status in (getattr(error, "status_code", None), getattr(error, "code", None))
    except Exception:  # the host's edge: an error's own code may raise
        return False


def running_request() -> RequestScope | None:
    """Return the request whose code is running here."""
    scope = current_scope.get()
    while scope is not None and not isinstance(scope, RequestScope):
        scope = scope.outer
    return scope


# --- its context ---------------------------------------------------------------------------------

# Those whose function runs here, or waits for what runs here. Told apart by identity.
_asking: Final[ContextVar[tuple["_Unasked", ...]]] = ContextVar("flagd_asking", default=())


class _Unasked(Mapping[str, object]):
    """Stands for a context until it is read; then asks for it and puts it into its place."""

    __slots__ = ("_ask", "_context", "_lock", "_notices", "_scope")

    def __init__(
        self, ask: Callable[[], ContextMapping], notices: Notices, scope: RequestScope
    ) -> None:
        self._ask = ask
        self._notices = notices
        self._scope = ref(scope)  # weak, or each request would wait for the garbage collector
        self._context: ContextMapping | None = None
        # Guards _context, and makes a second thread of the request wait for it; what it waits for
        # is the application's own function.
        self._lock = RLock()

    def _asked(self) -> ContextMapping:
        asking = _asking.get()
        # Also in a thread or loop that the function waits for, where the lock would never be free.
        if any(each is self for each in asking) and self._context is None:
            self._notices.tell(
                "context:flag",
                "A function that gives a request's context asks for a flag; it is evaluated "
                "with an empty context",
            )
            return NO_CONTEXT
        with self._lock:
            if self._context is not None:
                return self._context
            token = _asking.set((*asking, self))
            try:
                context = _checked(self._ask())
                unit = targeting_unit(context)
            except Exception:  # the host's edge
                self._notices.crash(
                    "context:function",
                    "The function that gives a request's context failed; requests go on with an "
                    "empty context",
                )
                context, unit = NO_CONTEXT, None
            finally:
                _asking.reset(token)
            self._context = context
            scope = self._scope()
            if scope is not None:
                scope.context = context
                scope.unit = unit
                scope.resolvers = scope.flag_set.resolvers
            return context

    def __getitem__(self, name: str) -> object:
        return self._asked()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._asked())

    def __len__(self) -> int:
        return len(self._asked())


def _checked(context: object) -> ContextMapping:
    if not isinstance(context, Mapping):
        raise TypeError(f"expected a mapping, not {type(context).__name__}")
    return context


async def awaited(
    context: Callable[[Request], Any], request: Request
) -> Callable[[], ContextMapping]:
    """Await a coroutine function's context; return a function that gives it, or raises."""
    try:
        found = await cast("Awaitable[ContextMapping]", context(request))
    except Exception as error:
        raised = error  # told once a flag is asked, as from any other function

        def fail() -> ContextMapping:
            raise raised

        return fail
    return lambda: found
