"""CSV and TSV: what `csv`, pandas and pyarrow read we read; where a quote is missing, no row goes.

The references are Python's `csv`, pandas and pyarrow, which read files that we never wrote.
"""

import csv
import io
import random
from pathlib import Path

import pandas
import pyarrow.csv
import pytest

from siqvl.data.sources.formats import separated, text_file
from siqvl.errors import UserError
from tests.data.sources.formats.read_rows import read

HEADER = ["id", "question", "answer"]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read(path)
    assert error.value.message.startswith(str(path))
    return error.value.message


def made_text(rng: random.Random, breaks: tuple[str, ...] = ("\n", "\r\n", "\r")) -> str:
    parts = ["a", "ä", "word", '"', '""', ",", "\t", " ", "5", "'", "\\", "猫", *breaks]
    return "".join(rng.choices(parts, k=rng.choice([0, 1, 3, 8, 30])))


@pytest.mark.parametrize("seed", range(6))
def test_what_a_writer_wrote_is_what_is_read(seed: int, tmp_path: Path) -> None:
    """3,000 rows of quotes, separators and line breaks in every mixture; by `csv` and pandas."""
    rng = random.Random(seed)
    names = HEADER[: rng.choice([2, 3])]
    delimiter, ending = rng.choice([",", "\t"]), rng.choice(["\n", "\r\n", "\r"])
    quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    # until 3.13 `csv` puts quotes only around those line breaks that also end its lines
    breaks = ("\n", "\r\n", "\r") if quoting == csv.QUOTE_ALL or ending == "\r\n" else (ending,)
    rows = [{name: made_text(rng, breaks) for name in names} for _ in range(500)]
    stream = io.StringIO()
    writer = csv.DictWriter(
        stream, names, delimiter=delimiter, lineterminator=ending, quoting=quoting
    )
    writer.writeheader()
    writer.writerows(rows)
    path = written(tmp_path / ("rows.csv" if delimiter == "," else "rows.tsv"), stream.getvalue())
    assert read(path) == rows
    with open(path, newline="", encoding="utf-8") as file:
        assert [*csv.DictReader(file, delimiter=delimiter)] == rows
    frame = pandas.read_csv(path, sep=delimiter, dtype=str, keep_default_na=False)
    assert frame.to_dict("records") == rows
    frame.to_csv(path, sep=delimiter, index=False, quoting=csv.QUOTE_ALL)
    assert read(path) == rows


@pytest.mark.parametrize("seed", range(4))
def test_pyarrow_reads_the_same(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    rows = [{name: made_text(rng) for name in HEADER} for _ in range(500)]
    path = tmp_path / "rows.csv"
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.csv.write_csv(table, path)
    assert read(path) == rows
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(HEADER, pyarrow.string()), strings_can_be_null=False
    )
    found = pyarrow.csv.read_csv(path, parse_options=parse, convert_options=convert)
    assert found.to_pylist() == rows


def test_stray_quotes_on_one_line_are_text_as_for_csv(tmp_path: Path) -> None:
    lines = ['a,5" disk,b', 'c,the "big" one,d', 'e, "x",f', 'g,"h",i"', "", 'j,"k ""l""",m']
    path = written(tmp_path / "rows.csv", "id,question,answer\n" + "\n".join(lines))
    with open(path, newline="") as file:
        assert read(path) == [*csv.DictReader(file)]


@pytest.mark.parametrize("kind", ["cut", "added", "removed"])
def test_whichever_quote_is_wrong_no_row_vanishes(kind: str, tmp_path: Path) -> None:
    """Every row but the broken one comes as it was written, or the file is refused."""
    rng = random.Random(kind)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(400):
        texts = ["what", "a, b", 'so "big"', ", and", "", '"', "two\nlines", "x"]
        plain = texts[:-2] if rng.random() < 0.5 else texts
        rows = [[f"r{n}", rng.choice(plain), rng.choice(plain)] for n in range(30)]
        stream = io.StringIO()
        quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
        csv.writer(stream, quoting=quoting).writerows([HEADER, *rows])
        content = stream.getvalue()
        quotes = [place for place, character in enumerate(content) if character == '"']
        place = rng.choice(quotes or [len(content) // 2])
        broken = content[:place] + ('"' if kind == "added" else "") + content[place + 1 :]
        if kind == "added":
            broken = content[:place] + '"' + content[place:]
        if kind == "cut":
            broken = content[:place]
        path = written(tmp_path / "rows.csv", broken)
        try:
            found = read(path)
        except UserError:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        expected = [dict(zip(HEADER, row, strict=True)) for row in rows]
        if kind == "cut":
            expected = expected[: len(found)]
        same = [one for one in expected if one in found]
        assert len(same) >= len(expected) - 1
        assert len(found) == len(expected)
    assert min(outcomes.values()) > 5


UNCLOSED = "id,question,answer\n" + "\n".join(
    f'r{n},"what,a{n}' if n == 1500 else f"r{n},what {n}?,a{n}" for n in range(3_000)
)


def test_an_unclosed_quote_is_named_with_its_line(tmp_path: Path) -> None:
    message = refused(written(tmp_path / "rows.csv", UNCLOSED))
    assert "the quote that opens in line 1502 is not closed by the end of the file" in message
    assert 'double every quote that is part of a text ("")' in message


@pytest.mark.parametrize(
    ("later", "reason"),
    [
        ('x,"quoted, text",y', "what follows is not quoted as it should be"),
        ('x,", and",y', "what follows is not quoted as it should be"),
        ('x,y"', "the row has 2 fields, but the first line names 3"),
        ('x,what",y', "each of which would be a row by itself"),
    ],
)
def test_an_unclosed_quote_that_a_later_one_closes(later: str, reason: str, tmp_path: Path) -> None:
    path = written(tmp_path / "rows.csv", UNCLOSED.replace("r2000,what 2000?,a2000", later))
    message = refused(path)
    assert "the quote that opens in line 1502 takes in the lines to 2002, " in message
    assert reason in message


def test_a_stray_quote_beside_a_row_of_several_lines(tmp_path: Path) -> None:
    """The row of two lines may be one, or two rows of which a quote took the border."""
    rows = ['a,"one\ntwo",b', 'c,5" disk,d']
    for first, second in (rows, rows[::-1]):
        path = written(tmp_path / "rows.csv", f"id,question,answer\n{first}\n{second}\n")
        assert "which rows there are cannot be told" in refused(path)


def test_a_table_inside_a_field_is_a_field(tmp_path: Path) -> None:
    text = "Look at this:\n" + "\n".join(f"{n},{n},{n}" for n in range(20)) + "\nWhich is odd?"
    content = io.StringIO()
    csv.writer(content).writerows([HEADER, ["a", text, "one"]])
    path = written(tmp_path / "rows.csv", content.getvalue())
    assert [row["question"] for row in read(path)] == [text]


def test_fields_of_megabytes_are_read(tmp_path: Path) -> None:
    big, limit = "iVBORw0KGgo" * 300_000, csv.field_size_limit()
    content = f'id,image,answer\n1,{big},x\n2,"{big}",y\n3,"{big}\n{big}",z\n'
    found = read(written(tmp_path / "rows.csv", content))
    assert [row["image"] for row in found] == [big, big, f"{big}\n{big}"]
    assert csv.field_size_limit() == limit


def test_a_field_or_a_line_beyond_the_limit_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_file, "LONGEST", 2**20)
    monkeypatch.setattr(separated, "LONGEST", 2**20)
    path = written(tmp_path / "rows.csv", "id,answer\n1," + "x" * 2**20 + "\n")
    assert "line 2 is longer than 1 MiB" in refused(path)
    written(path, 'id,answer\n1,"' + ("x" * 1000 + "\n") * 1_100 + '"\n')
    assert "the quote that opens in line 2 is not closed within 1 MiB" in refused(path)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("id,answer,answer", "it names `answer` twice"),
        (",question,answer", "column 1 has no name; name it, or leave it out (pandas: `to_csv("),
        ("id,answer,", "column 3 has no name"),
        ("id, ,answer", "column 2 has no name"),
        (b"id,r\xe9ponse", "a name holds the byte 0xe9, which is no UTF-8"),
        ("id,question".encode("utf-16-le"), "UTF-16 without a byte-order mark"),
        ('id,"question', "the quote that opens in line 1 is not closed by the end"),
        ('id,"a"b"c', "text after a closing quote"),
    ],
)
def test_names_of_columns_that_cannot_be_told_apart(
    header: str | bytes, reason: str, tmp_path: Path
) -> None:
    header = header if isinstance(header, bytes) else header.encode()
    message = refused(written(tmp_path / "rows.csv", header + b"\na,b,c\n"))
    assert "line 1" in message
    assert reason in message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_encodings_with_a_mark_and_all_line_ends(
    encoding: str, ending: str, tmp_path: Path
) -> None:
    content = ending.join(["id,question,answer", "1,ä?,猫", '2,"a\nb",c', "", "3,d,e", ""])
    path = written(tmp_path / "rows.csv", content.encode(encoding))
    assert read(path) == [
        {"id": "1", "question": "ä?", "answer": "猫"},
        {"id": "2", "question": "a\nb", "answer": "c"},
        {"id": "3", "question": "d", "answer": "e"},
    ]


def test_half_a_character_of_utf16_costs_one_row(tmp_path: Path) -> None:
    text = "id,answer\n1,a\n2,\ud800\n3,c\n"
    path = written(tmp_path / "rows.csv", b"\xff\xfe" + text.encode("utf-16-le", "surrogatepass"))
    found = read(path)
    assert found[1] == "line 3: column `answer` holds half of a character, U+D800"
    assert [row["answer"] for row in (found[0], found[2])] == ["a", "c"]


def test_line_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    content = '\nid,question,answer\n\n1,"a\nb",c\n\n2,d\n3,e,f,g\n4,h,i\n'
    found = read(written(tmp_path / "rows.csv", content))
    assert found[1:3] == [
        "line 7: 2 fields, but the first line names 3",
        "line 8: 4 fields, but the first line names 3",
    ]
    assert len(found) == 4
