import pytest

from flagd_server.domain.deployments import check_image, digest_of

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    "name",
    ["shop", "registry.example:5000/team/shop", "shop:1.2", "registry:5000/shop:3f2c1ab", "latest"],
)
def test_a_digest_names_an_artefact_whatever_else_the_name_says(name: str) -> None:
    image = f"{name}@{DIGEST}"
    assert check_image(image) is None
    assert digest_of(image) == DIGEST


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (f"shop:latest@{DIGEST}", "the tag latest"),
        ("shop:latest", "the tag latest"),
        ("registry:5000/shop:latest", "the tag latest"),
        ("shop:1.2", "got no digest"),
        ("shop", "got no digest"),
        ("", "got no digest"),
        ("shop@sha256:0a", "got the digest"),
        (f"shop@sha512:{'0a' * 32}", "got the digest"),
        (f"shop@{DIGEST.upper()}", "got the digest"),
        (f"shop@{DIGEST}\n", "got the digest"),
        (f"@{DIGEST}", "got the name"),
        (f"a shop@{DIGEST}", "got the name"),
        (f"{'x' * 256}@{DIGEST}", "got the name"),
    ],
)
def test_what_can_mean_other_bytes_tomorrow_is_refused_and_told_why(image: str, why: str) -> None:
    fault = check_image(image)
    assert fault is not None
    assert why in fault
    assert "name@sha256:" in fault
