"""Composed texts, and names that are equal in that form."""

from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siqvl.composed_text import alike, composed, other_forms

NFC, NFD = (normalize(form, "été") for form in ("NFC", "NFD"))


@given(st.text())
def test_composed_is_nfc(text: str) -> None:
    assert composed(text) == normalize("NFC", text)


def test_the_name_as_it_is_written_comes_first() -> None:
    assert NFC != NFD
    assert alike(NFD, [NFC, "other", NFD]) == [NFD, NFC]
    assert alike(NFC, [NFD, "other"]) == [NFD]
    assert alike(NFC, ["ete", "other"]) == []


@pytest.mark.parametrize(
    ("path", "others"),
    [
        ("a/b.png", set()),
        (f"{NFC}.png", {f"{NFD}.png"}),
        (f"{NFC}/{NFD}.png", {f"{NFC}/{NFC}.png", f"{NFD}/{NFD}.png", f"{NFD}/{NFC}.png"}),
        (NFC[:1] + NFD[2:], {NFC, NFD}),  # composed in one place, and not in another
        ("/".join([NFC] * 9), {"/".join([NFD] * 9)}),
    ],
)
def test_every_part_of_a_path_has_two_forms(path: str, others: set[str]) -> None:
    found = other_forms(path)
    assert set(found) == others
    assert len(found) == len(others)
