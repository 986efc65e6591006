"""Published sets as fixtures: their layout, invented content, and the rows that come out of them.

What a row has to be is written down here by hand.
"""

import base64
import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from siqvl.recipe import Source
from tests.data.made_pictures import picture

PAGE = Path(__file__).parents[3] / "docs" / "data.md"
Said = tuple[list[bytes], str, str]  # pictures, what is asked, what is answered


def color(number: int) -> bytes:
    return picture(f"#{number * 2654435761 % 2**24:06x}")


def put(path: Path, content: bytes | str | Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes | str):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def put_csv(path: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as stream:
        lines = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        lines.writeheader()
        lines.writerows(rows)


def daquar(root: Path) -> dict[str, list[Said]]:
    found = {}
    for split, first in (("train", 0), ("eval", 6)):
        rows = []
        for number in range(first, first + 6):
            put(root / f"daquar/images/image{number}.png", color(number))
            answer = "comforter, pillow" if number % 2 else "garbage_bin"
            rows.append({"question": f"what is beside object {number}", "answer": answer})
            rows[-1]["image_id"] = f"image{number}"
        put_csv(root / f"daquar/dataset/data_{split}.csv", rows)
        found[split] = [
            ([color(first + at)], row["question"], row["answer"]) for at, row in enumerate(rows)
        ]
    # the text version lies beside it, and is no table
    put(root / "daquar/all_qa_pairs.txt", "what is on the desk in the image1 ?\nlamp\n")
    return {"train": found["train"], "test": found["eval"]}


def nlvr(root: Path) -> dict[str, list[Said]]:
    lines, found = [], []
    for number in range(3):
        identifier, directory, label = f"{number}-0", str(number), ["true", "false"][number % 2]
        for k in range(6):
            file = f"nlvr/dev/images/{directory}/dev-{identifier}-{k}.png"
            put(root / file, color(10 * number + k))
            asked = f'Is it true? "There are {number} black blocks."'
            found.append(([color(10 * number + k)], asked, label))
        row = {"sentence": f"There are {number} black blocks.", "identifier": identifier}
        row |= {"directory": directory, "label": label, "evals": {"r1": "true"}}
        lines.append(row | {"structured_rep": [[{"x": 1, "type": "square"}], [], []]})
        put(root / f"nlvr/test/images/{directory}/test-{identifier}-0.png", color(99))
    put(root / "nlvr/dev/dev.json", "".join(json.dumps(line) + "\n" for line in lines))
    put(root / "nlvr/test/test.json", "".join(json.dumps(line) + "\n" for line in lines))
    return {"dev": found}


def tabmwp(root: Path) -> dict[str, list[Said]]:
    problems, chosen, free = {}, [], []
    for number in range(8):
        pid, asked = str(100 + number), f"How many are in row {number}?"
        put(root / f"tabmwp/tables/{pid}.png", color(number))
        row: dict[str, Any] = {"question": asked, "choices": None, "answer": f"{number},500"}
        row |= {"unit": "$" if number == 2 else None, "table_title": None, "table": "a | b"}
        row |= {"ques_type": "free_text", "ans_type": "integer_number", "solution": "Add."}
        if number % 2:
            row |= {"choices": ["yes", "no", "2"], "answer": ["yes", "2"][number % 4 == 1]}
            row["ques_type"] = "multi_choice"
            chosen.append(([color(number)], f"{asked}\nOptions: yes, no, 2", row["answer"]))
        else:
            free.append(([color(number)], asked, f"{number},500" + (" $" if number == 2 else "")))
        problems[pid] = row | {"split": "dev1k"}
    put(root / "tabmwp/problems_dev1k.json", problems)
    return {"multi_choice": chosen, "free_text": free}


def sroie(root: Path) -> dict[str, list[Said]]:
    found = []
    questions = {
        "company": "Which company issued this receipt?",
        "date": "What is the date of this receipt?",
        "total": "What is the total of this receipt?",
    }
    for number in range(4):
        row = {"company": f"MADE UP {number} SDN BHD", "date": "15/01/2019", "address": "1, A ROAD"}
        row["total"] = f"{number}.00"
        if number == 1:
            row["date"] = ""
        if number == 2:
            del row["total"]
        put(root / f"sroie/data/key/{number:03d}.json", row)
        put(root / f"sroie/data/img/{number:03d}.jpg", picture("red", (8 + number, 8), "JPEG"))
        image = picture("red", (8 + number, 8), "JPEG")
        found += [([image], asked, row[name]) for name, asked in questions.items() if row.get(name)]
    return {"train": found}


def visonlyqa(root: Path) -> dict[str, list[Said]]:
    parts = {
        "test/real/geometry__angle": "test",
        "test/synthetic/syntheticgeometry__angle": "test",
        "val/synthetic/syntheticgeometry__angle": "validation",
        "train/syntheticgeometry__angle": "train",
    }
    found: dict[str, list[Said]] = {"train": [], "validation": [], "test": []}
    for at, (part, split) in enumerate(parts.items()):
        lines = []
        for number in range(3):
            # pictures of all parts are called alike
            put(root / f"visonlyqa/dataset/{part}/images/{number}.png", color(10 * at + number))
            row = {"image_path": f"{Path(part).name}/images/{number}.png", "id": f"{at}_{number}"}
            row |= {"question": f"How many degrees, {number}?", "answer": "90"}
            row |= {"response_options": ["30", "90", "120"], "question_type": "multiple_choice"}
            row |= {"prompt_reasoning": "Think.", "task_category": "angle"}
            lines.append(row if at == 3 else row | {"prompt_no_reasoning": "Say it."})
            asked = f"How many degrees, {number}?\nOptions: 30, 90, 120"
            found[split].append(([color(10 * at + number)], asked, "90"))
        text = "".join(json.dumps(line) + "\n" for line in lines)
        put(root / f"visonlyqa/dataset/{part}.jsonl", text)
    return found


def scienceqa(root: Path) -> dict[str, list[Said]]:
    problems, found = {}, []
    for number in range(9):
        split, key = ("train", "val", "test")[number % 3], str(number + 1)
        row: dict[str, Any] = {
            "question": f"Which, {number}?",
            "choices": ["Ohio", "Utah, in part"],
        }
        row |= {"answer": number // 3 % 2, "hint": "", "image": None, "split": split}
        if number < 6:
            row["image"] = "image.png"
            put(root / f"scienceqa/images/{split}/{key}/image.png", color(number))
        problems[key] = row | {"lecture": "Long.", "solution": f"Because {number}."}
        if split == "train":
            asked = f"Which, {number}?\nOptions:\nA. Ohio\nB. Utah, in part"
            answer = row["choices"][row["answer"]]
            found.append(([color(number)] if number < 6 else [], asked, answer))
    put(root / "scienceqa/problems.json", problems)
    return {"train": found}


def mmmu(root: Path) -> dict[str, list[Said]]:
    rows, found = [], []
    for number in range(6):
        row: dict[str, Any] = {f"image_{at}": None for at in range(1, 8)}
        row |= {"id": f"validation_Art_{number}", "options": str(["old", "new"])}
        row |= {"question": f"<image 1> Which, {number}?", "answer": "AB"[number % 2]}
        row["image_1"] = {"bytes": color(number), "path": None}
        asked, images = f"Which, {number}?", [color(number)]
        if number == 3:
            row["question"] = "Is <image 2> newer than <image 1>?"
            row["image_2"] = {"bytes": color(33), "path": None}
            asked, images = "Is <image> newer than <image>?", [color(33), color(3)]
        rows.append(row)
        found.append((images, f"{asked}\nOptions:\nA. old\nB. new", ["old", "new"][number % 2]))
    path = root / "mmmu/Art/validation-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return {"validation": found}


def vlmevalkit(root: Path) -> dict[str, list[Said]]:
    image = base64.b64encode(color(1)).decode()
    rows = [
        {"index": 0, "image": image, "question": "Which color?", "A": "red", "B": "blue"},
        {"index": 1000000, "image": "0", "question": "Which color?", "A": "blue", "B": "red"},
    ]
    answers = [{"answer": "A", "category": "color"}, {"answer": "B", "category": "color"}]
    put_csv(
        root / "vlmevalkit/Made_DEV.tsv",
        [row | answer for row, answer in zip(rows, answers, strict=True)],
        "\t",
    )
    return {
        "benchmark": [
            ([color(1)], "Which color?\nOptions:\nA. red\nB. blue", "red"),
            ([color(1)], "Which color?\nOptions:\nA. blue\nB. red", "red"),
        ]
    }


LAYOUTS: dict[str, Callable[[Path], dict[str, list[Said]]]] = {
    "DAQUAR": daquar,
    "NLVR": nlvr,
    "TabMWP": tabmwp,
    "SROIE": sroie,
    "VisOnlyQA": visonlyqa,
    "ScienceQA": scienceqa,
    "MMMU": mmmu,
    "VLMEvalKit": vlmevalkit,
}


def gallery() -> dict[str, list[Source]]:
    """The sources of the gallery, by the name of their set."""
    gallery = PAGE.read_text(encoding="utf-8").partition("### Gallery")[2]
    found = re.findall(r"\*\*(\w+)\*\*.*?```yaml\n(.*?)```", gallery, re.DOTALL)
    return {
        name: [Source.model_validate(one) for one in yaml.safe_load(text)["sources"]]
        for name, text in found
    }
