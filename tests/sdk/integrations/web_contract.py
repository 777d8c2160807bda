"""What each web integration must do. A framework's tests inherit it; nothing is overridden."""

import logging
from collections.abc import Mapping

import pytest

from tests.sdk.integrations.callers import Answer
from tests.sdk.integrations.pages import Context, Counted, Pages, ann


class Site:
    """The pages as one framework serves them."""

    def __init__(self, pages: Pages, context: Context) -> None:
        raise NotImplementedError

    def get(self, path: str, leave_after: int | None = None) -> Answer:
        """Request a page; the client may go after some chunks."""
        raise NotImplementedError


class WebContract:
    site: type[Site]

    def open(self, counted: Counted, context: Context = ann) -> tuple[Site, Pages]:
        pages = Pages(counted)
        return self.site(pages, context), pages

    def test_a_request_is_one_exposure(self, counted: Counted) -> None:
        site, _ = self.open(counted)
        assert site.get("/plain").text == "on"
        assert site.get("/plain").text == "on"
        assert counted.cells == {"on": (2, 0)}
        assert counted.unscoped == {}

    def test_an_exception_fails_it_once_whoever_answers_it(self, counted: Counted) -> None:
        site, _ = self.open(counted)
        assert site.get("/raises").status == 500
        assert counted.cells == {"on": (1, 1)}
        assert counted.kinds == {("on", "error:PaymentError"): 1}

    def test_a_status_of_500_and_above_fails_it(self, counted: Counted) -> None:
        site, _ = self.open(counted)
        assert site.get("/unavailable").status == 503
        assert counted.kinds == {("on", "error:503"): 1}

    def test_what_was_told_already_is_not_told_again_by_the_status(self, counted: Counted) -> None:
        site, _ = self.open(counted)
        assert site.get("/told").status == 502
        assert counted.cells == {"on": (1, 1)}
        assert counted.kinds == {("on", "error:PaymentError"): 1}

    def test_an_exception_linked_to_one_flag_fails_that_flag_alone(self, counted: Counted) -> None:
        site, _ = self.open(counted)
        assert site.get("/linked").status == 500
        assert counted.cells == {"on": (1, 1), "late": (1, 0)}
        assert counted.kinds == {("on", "error:PaymentError"): 1}

    @pytest.mark.parametrize("page", ["missing", "not-modified"])
    def test_other_statuses_are_no_failures(self, counted: Counted, page: str) -> None:
        site, _ = self.open(counted)
        assert site.get(f"/{page}").status in (404, 304)
        assert counted.cells == {"on": (1, 0)}

    def test_an_inner_scope_is_its_own_unit(self, counted: Counted) -> None:
        site, _ = self.open(counted)
        assert site.get("/nested").status == 200
        assert counted.cells == {"on": (1, 0), "late": (1, 1)}

    def test_a_streamed_body_belongs_to_its_request_up_to_the_last_byte(
        self, counted: Counted
    ) -> None:
        site, pages = self.open(counted)
        assert site.get("/stream").chunks == [b"first", b"last"]
        assert pages.reports == [{}], "nothing is counted before the end"
        assert counted.cells == {"on": (1, 0), "late": (1, 0)}
        assert counted.unscoped == {}

    def test_an_exception_in_the_middle_of_the_body_fails_it(self, counted: Counted) -> None:
        site, _ = self.open(counted)
        assert site.get("/stream-raises").text == "first"
        assert counted.cells == {"on": (1, 1), "late": (1, 1)}
        assert counted.kinds == {
            ("on", "error:PaymentError"): 1,
            ("late", "error:PaymentError"): 1,
        }

    def test_a_client_that_goes_is_no_failure(self, counted: Counted) -> None:
        site, _ = self.open(counted)
        answer = site.get("/endless", leave_after=2)
        assert answer.chunks == [b"more", b"more"]
        assert answer.escaped is None
        assert counted.cells == {"on": (1, 0), "late": (1, 0)}

    def test_the_context_is_asked_for_once_and_only_if_a_flag_is(self, counted: Counted) -> None:
        asked = []

        def context(request: object) -> Mapping[str, object]:
            asked.append(request)
            return {"targetingKey": "ann"}

        site, _ = self.open(counted, context)
        site.get("/no-flag")
        assert asked == []
        site.get("/stream")
        assert len(asked) == 1

    def test_a_context_that_cannot_be_had_breaks_nothing_and_is_told_once(
        self, counted: Counted, caplog: pytest.LogCaptureFixture
    ) -> None:
        def context(_: object) -> Mapping[str, object]:
            raise LookupError("no such user")

        site, _ = self.open(counted, context)
        with caplog.at_level(logging.ERROR, "flagd_sdk"):
            texts = [site.get("/plain").text for _ in range(3)]
        assert texts == ["on", "on", "on"]
        assert counted.cells == {"on": (3, 0)}
        (told,) = [str(record.exc_text) for record in caplog.records if record.exc_text]
        assert "LookupError: no such user" in told
