import pytest

from flagd_sdk.ctl.splits import split_of

VARIANTS = ("on", "off")
OFF = {"variant": "off"}


def weights(*texts: str, variants: tuple[str, ...] = VARIANTS) -> dict[str, int]:
    made: dict[str, int] = split_of(texts, variants, "off", OFF)["split"]["weights"]
    return made


def test_the_off_variant_gets_the_rest() -> None:
    assert weights("5") == {"on": 5_000, "off": 95_000}
    assert weights("on=0.001") == {"on": 1, "off": 99_999}
    assert weights("5%") == {"on": 5_000, "off": 95_000}
    assert weights("a=5", "b=10", variants=("a", "b", "off")) == {
        "a": 5_000,
        "b": 10_000,
        "off": 85_000,
    }


def test_everybody_and_nobody_can_be_asked_for() -> None:
    assert weights("100") == {"on": 100_000}
    assert weights("0") == {"on": 0, "off": 100_000}
    assert weights("on=40", "off=60") == {"on": 40_000, "off": 60_000}


def test_what_places_users_stays() -> None:
    present = {"split": {"bucket_by": "account", "salt": "s", "weights": {"off": 100_000}}}
    assert split_of(["5"], VARIANTS, "off", present)["split"]["bucket_by"] == "account"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["five"], "expected percent"),
        (["101"], "from 0 to 100"),
        (["-1"], "from 0 to 100"),
        (["nan"], "expected percent"),
        (["inf"], "expected percent"),
        (["0.0001"], "thousandths"),
        (["blue=5"], "none of the variants on, off"),
        (["5", "on=6"], "two shares"),
        (["on=40", "off=50"], "sum to 90"),
    ],
)
def test_what_is_no_share_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_of(texts, VARIANTS, "off", OFF)


def test_more_than_everybody_is_refused() -> None:
    with pytest.raises(ValueError, match="sum to 110 %"):
        split_of(["a=60", "b=50"], ("a", "b", "off"), "off", OFF)


def test_of_several_variants_one_has_to_be_named() -> None:
    with pytest.raises(ValueError, match="of which variant"):
        split_of(["5"], ("a", "b", "off"), "off", OFF)
