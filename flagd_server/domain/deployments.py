"""What an artefact may be called: by its digest, so that a name means the same bytes for good."""

import re

_IMAGE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._:/-]{0,254})@(sha256:[0-9a-f]{64})")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_EXPECTED = "expected name@sha256:<64 hexadecimal digits>"


def check_image(image: str) -> str | None:
    """Return what is wrong with an image's reference, None where it names one artefact for good."""
    name, at, digest = image.partition("@")
    # A colon before the last slash is a registry's port.
    tag = name.rpartition("/")[2].partition(":")[2]
    if tag == "latest":
        return f"{_EXPECTED}; the tag latest names another image tomorrow"
    if not at:
        return f"{_EXPECTED}, got no digest: a tag can be moved to another image"
    if not _DIGEST.fullmatch(digest):
        return f"{_EXPECTED}, got the digest {digest[:80]!r}"
    if not _IMAGE.fullmatch(image):
        return f"{_EXPECTED}, got the name {name[:80]!r}"
    return None


def digest_of(image: str) -> str:
    """Return `sha256:…` of a reference that was checked."""
    return image.rpartition("@")[2]
