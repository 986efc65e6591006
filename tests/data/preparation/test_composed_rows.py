"""Texts are stored composed (NFC), and compared in that form."""

from unicodedata import normalize

from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import RowKind, evaluation_row, preference_row
from siqvl.data.shards import load_prepared
from siqvl.recipe import DataPrep


def nfd(text: str) -> str:
    return normalize("NFD", text)


def test_rows_that_read_equal_are_duplicates_and_stored_composed(tmp_path, made_source):
    about = {"source": "made"}
    rows = [
        preference_row("1", [], "Où?", "pâté", "thé", **about),
        preference_row("2", [], nfd("Où?"), nfd("pâté"), nfd("thé"), **about),
        preference_row("3", [], "Où?", "pâté", nfd("pâté"), **about),  # no pair at all
    ]
    data = DataPrep(max_quarantined=0.5)
    out = tmp_path / "pairs"
    manifest = prepare([made_source(rows)], RowKind.PREFERENCE, out, data=data, seed=0)
    assert (manifest.rows, manifest.left_out) == (1, {"duplicate": 1})
    assert manifest.quarantined == {"chosen equals rejected": 1}
    rows = [evaluation_row("1", [], nfd("Où?"), [nfd("thé")], benchmark="b", split="test", **about)]
    prepare([made_source(rows)], RowKind.EVALUATION, tmp_path / "asked", data=data, seed=0)
    (row,) = load_prepared(tmp_path / "asked", RowKind.EVALUATION)[0].to_list()
    assert (row["question"], row["answers"]) == ("Où?", ["thé"])
