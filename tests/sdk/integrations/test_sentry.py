"""What the real Sentry SDK sends, captured where it would leave the process."""

import logging
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sentry_sdk
from flask import Flask
from sentry_sdk.envelope import Envelope
from sentry_sdk.feature_flags import add_feature_flag
from sentry_sdk.integrations.flask import FlaskIntegration
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport

from flagd_sdk import FlagClient
from flagd_sdk.integrations.flask import FlaskFlags
from flagd_sdk.integrations.sentry import FlagdIntegration
from tests.sdk.fakes import SilentTransport, flag, flag_set, text_flag

CONTEXT = {"targetingKey": "u1"}
MANY = [f"many-{number:03}" for number in range(120)]


class PaymentError(Exception):
    pass


class Outbox(Transport):
    """Sends nothing and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.events += [item.payload.json for item in envelope.items]

    def all_contexts(self) -> list[dict[str, Any]]:
        """Return those of the errors that were sent."""
        return [event["contexts"] for event in self.events if event.get("level") == "error"]

    def contexts(self) -> dict[str, Any]:
        """Return those of the one error that was sent."""
        (contexts,) = self.all_contexts()
        return contexts


def client(*documents: dict[str, Any]) -> FlagClient:
    return FlagClient(
        "http://server",
        "t",
        transport=SilentTransport(),
        cache_dir=None,
        bootstrap=flag_set(*documents),
    )


@pytest.fixture
def flags() -> Iterator[FlagClient]:
    many = [flag(key, on=100_000) for key in MANY]
    with client(flag("on", on=100_000), flag("off", on=0), text_flag(), *many) as made:
        yield made


@pytest.fixture
def outbox(flags: FlagClient) -> Iterator[Outbox]:
    box = Outbox()
    with sentry_sdk.isolation_scope():
        sentry_sdk.init(
            dsn="http://key@localhost/1",
            transport=box,
            integrations=[FlagdIntegration(flags), FlaskIntegration()],
            default_integrations=False,
            traces_sample_rate=1.0,
        )
        yield box
        sentry_sdk.get_client().close()
        sentry_sdk.get_global_scope().set_client(None)


def results(contexts: dict[str, Any]) -> dict[str, bool]:
    return {item["flag"]: item["result"] for item in contexts["flags"]["values"]}


def test_an_error_in_a_unit_of_work_carries_what_was_served(
    flags: FlagClient, outbox: Outbox
) -> None:
    with flags.scope(CONTEXT):
        flags.is_enabled("on")
        flags.is_enabled("off")
        flags.value("colour", "")
        flags.is_enabled("absent")
        sentry_sdk.capture_exception(PaymentError())
    contexts = outbox.contexts()
    assert contexts["flags"] == {
        "values": [{"flag": "on", "result": True}, {"flag": "off", "result": False}]
    }
    assert contexts["flag variants"] == {"on": "on", "off": "off", "colour": "a"}


def test_of_nested_units_the_innermost_counts_where_they_differ(
    flags: FlagClient, outbox: Outbox
) -> None:
    with client(flag("on", on=0), flag("other", on=0)) as other, flags.scope(CONTEXT):
        flags.is_enabled("on")
        flags.is_enabled("many-000")
        with other.scope(CONTEXT), flags.scope(CONTEXT) as inner:
            other.is_enabled("other")
            other.is_enabled("on")
            flags.is_enabled("off")
            inner.served["on"] = inner.flag_set.resolve("off", CONTEXT)
            sentry_sdk.capture_message("wrong", level="error")
    assert results(outbox.contexts()) == {"on": False, "many-000": True, "off": False}


def test_nothing_served_adds_nothing(flags: FlagClient, outbox: Outbox) -> None:
    with flags.scope(CONTEXT):
        flags.is_enabled("on")
    with flags.scope(CONTEXT):
        sentry_sdk.capture_exception(PaymentError())
    assert not {"flags", "flag variants"} & outbox.contexts().keys()


def test_flags_without_booleans_are_told_as_variants_only(
    flags: FlagClient, outbox: Outbox
) -> None:
    with flags.scope(CONTEXT):
        flags.value("colour", "")
        sentry_sdk.capture_exception(PaymentError())
    assert "flags" not in outbox.contexts()
    assert outbox.contexts()["flag variants"] == {"colour": "a"}


def test_as_many_as_sentry_takes_the_latest(flags: FlagClient, outbox: Outbox) -> None:
    with flags.scope(CONTEXT):
        for key in MANY:
            flags.is_enabled(key)
        sentry_sdk.capture_exception(PaymentError())
    assert list(results(outbox.contexts())) == MANY[-100:]
    assert list(outbox.contexts()["flag variants"]) == MANY[-100:]


def test_what_the_application_told_sentry_itself_stays(flags: FlagClient, outbox: Outbox) -> None:
    add_feature_flag("theirs", True)
    add_feature_flag("on", False)
    with flags.scope(CONTEXT):
        flags.is_enabled("on")
        sentry_sdk.capture_exception(PaymentError())
    assert results(outbox.contexts()) == {"theirs": True, "on": True}


def escaping(flags: FlagClient) -> None:
    with flags.scope(CONTEXT):
        flags.is_enabled("on")
        with flags.scope(CONTEXT):
            flags.is_enabled("off")
            raise PaymentError


def wrapped(flags: FlagClient) -> None:
    try:
        escaping(flags)
    except PaymentError as error:
        raise RuntimeError("no order") from error


def caught(flags: FlagClient) -> None:
    with flags.scope(CONTEXT):
        flags.is_enabled("on")
        flags.is_enabled("off")
        try:
            raise PaymentError
        except PaymentError as error:
            flags.fail(error)
            kept = error
    raise kept


@pytest.mark.parametrize("work", [escaping, wrapped, caught])
def test_an_error_captured_after_its_unit_of_work_carries_it_still(
    flags: FlagClient, outbox: Outbox, work: Callable[[FlagClient], None]
) -> None:
    try:
        work(flags)
    except Exception as error:
        sentry_sdk.capture_exception(error)
    assert results(outbox.contexts()) == {"on": True, "off": False}


def test_an_exception_raised_anew_forgets_where_it_was_raised_before(
    flags: FlagClient, outbox: Outbox
) -> None:
    one = PaymentError()
    for key in ("off", "on"):
        try:
            with flags.scope(CONTEXT):
                flags.is_enabled(key)
                raise one
        except PaymentError:
            pass
    sentry_sdk.capture_exception(one)
    assert results(outbox.contexts()) == {"on": True}


def test_an_exception_is_pickled_without_what_it_carries(flags: FlagClient, outbox: Outbox) -> None:
    try:
        escaping(flags)
    except PaymentError as error:
        pickled = pickle.dumps(error)
    assert b"flagd_sdk" not in pickled
    assert vars(pickle.loads(pickled)) == {"__flagd_served__": None}


def test_exceptions_that_allow_no_attributes_are_left_alone(
    flags: FlagClient, outbox: Outbox
) -> None:
    class FrozenError(Exception):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("no")

        def __setattr__(self, name: str, value: Any) -> None:
            raise RuntimeError("no")

    with flags.scope(CONTEXT) as scope:
        flags.is_enabled("on")
        flags.fail(FrozenError())
    assert len(scope.failures) == 1


def test_without_the_integration_exceptions_carry_nothing() -> None:
    with client(flag("on", on=100_000)) as flags:
        with pytest.raises(PaymentError) as raised:
            escaping(flags)
        assert vars(raised.value) == {}


def test_an_error_in_flask_carries_its_requests_flags(flags: FlagClient, outbox: Outbox) -> None:
    """Twice, as nothing holds the second capture back here, which is outside of the request."""
    app = Flask("shop")
    app.config["PROPAGATE_EXCEPTIONS"] = True
    FlaskFlags(flags, lambda request: CONTEXT, app)

    @app.get("/")
    def order() -> str:
        flags.is_enabled("on")
        flags.is_enabled("off")
        raise PaymentError

    with pytest.raises(PaymentError):
        app.test_client().get("/")
    told = [results(contexts) for contexts in outbox.all_contexts()]
    assert told == [{"on": True, "off": False}] * 2


def test_transactions_carry_no_flags(flags: FlagClient, outbox: Outbox) -> None:
    with flags.scope(CONTEXT), sentry_sdk.start_transaction(name="t"):
        flags.is_enabled("on")
    (transaction,) = outbox.events
    assert transaction["type"] == "transaction"
    assert "flags" not in transaction["contexts"]


def test_logged_errors_carry_flags_too(flags: FlagClient, outbox: Outbox) -> None:
    sentry_sdk.init(
        dsn="http://key@localhost/1",
        transport=outbox,
        integrations=[FlagdIntegration(flags), LoggingIntegration()],
        default_integrations=False,
    )
    with flags.scope(CONTEXT):
        flags.is_enabled("on")
        logging.getLogger("shop").error("no stock")
    assert results(outbox.contexts()) == {"on": True}
