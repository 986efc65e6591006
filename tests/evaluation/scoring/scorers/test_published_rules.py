"""The rules of official scripts, each on outputs judged by hand from its text.

What each does, and where ours departs, is the table of docs/evaluation.md. Scripts were read in
these states: AoiDragon/POPE f3ec6043 `evaluate.py`; MME's `calculation.py`; MMMU-Benchmark/MMMU
bb0b95a9 `mmmu/utils/eval_utils.py`; haotian-liu/LLaVA `eval_science_qa.py`, `m4c_evaluator.py`;
Yuliang-Liu/MultimodalOCR f5cbec66 `OCRBench/example.py`; lupantech/MathVista 2a249bbe
`calculate_score.py`; rrc.cvc.uab.es `infographicsvqa_eval.py`; GT-Vision-Lab/VQA `vqaEval.py`.
"""

from itertools import product

import pytest

from siqvl.evaluation.scoring.scorers import scorer
from siqvl.evaluation.scoring.scorers.ocrbench import FORMULAS

OPTIONS = ["a cat", "a dog", "a black hen", "cow"]


@pytest.mark.parametrize(
    ("said", "is_yes"),
    [
        ("Yes", True),
        ("yes.", True),
        ("Yes, there is a dog.", True),
        ("No", False),
        ("no", False),
        ("No, there is none.", False),
        ("There is no dog", False),
        ("There is not", False),
        ("The answer is no, sir", False),
        ("", True),  # whatever is no `no` is a yes
        ("NO", True),
        ("No!", True),
        ("no\n", True),
        ("There isn't", True),
        ("nothing", True),
        ("Cannot say", True),
        ("Yes. No", True),  # the first sentence counts
        (".No", True),
        ("Yes no", False),
        ("I see a dog, not a cat", False),
    ],
)
def test_pope(said: str, is_yes: bool) -> None:
    for label in ("yes", "no"):
        assert scorer("pope").score(said, [label], []) == ((label == "yes") == is_yes)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("Yes", "yes"),
        ("no", "no"),
        ("NO.", "no"),
        ("Yes, it is", "yes"),
        (" yes", "yes"),
        ("not sure", "no"),  # in its first four characters stands `no`
        ("know", "no"),
        ("eyes", "yes"),
        ("y", ""),  # lmms-eval reads a yes here
        ("n", ""),
        ("", ""),
        ("The answer is yes", ""),
        ("It is no", ""),
        ("I say yes", ""),
        ("**no**", "no"),
        ("(yes)", "yes"),
        ('"yes"', "yes"),
        ("1. Yes", ""),
    ],
)
def test_mme(said: str, read: str) -> None:
    for answer in ("Yes", "No"):
        assert scorer("mme").score(said, [answer], []) == (read == answer.lower())


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ("A", 0),
        ("D.", 3),
        ("(B)", 1),
        ("(A) or (C)", 2),  # the last one
        ("(C) or (A)", 0),
        ("It is B", 1),
        ("B or C", 2),
        ("B, C", 2),  # `B,` is not between spaces
        ("The answer is (B), not A or C.", 1),  # brackets go first
        ("b", None),
        ("B. a dog", None),  # neither between spaces nor in six words
        ("B: a dog", None),
        ("the letter is B.", 1),
        ("A dog", 0),  # the article is a letter
        ("I would say it is a dog", 1),
        ("I would say a dog or a cat", 0),
        ("It is surely an animal called Cow", 3),
        ("a dog", None),  # its text counts in six words or more
        ("", None),
        ("E", None),
        ("ABC", None),
    ],
)
def test_mmmu_with_options(said: str, place: int | None) -> None:
    for number, option in enumerate(OPTIONS):
        expected = 0.25 if place is None else float(place == number)
        assert scorer("mmmu").score(said, [option], OPTIONS) == expected


@pytest.mark.parametrize(
    ("said", "answers", "score"),
    [
        ("12", ["12"], 1),
        ("12.0", ["12"], 1),
        ("12.004", ["12"], 1),  # two digits
        ("12.006", ["12"], 0),
        ("1,200", ["1200"], 1),
        ("1200", ["1,200"], 1),
        ("1.2e3", ["1200"], 1),
        ("$12", ["12"], 1),
        ("12%", ["12"], 1),
        ("-12", ["12"], 0),
        ("The cost is 12 dollars", ["12"], 1),
        ("x = 3 so y = 12", ["12"], 1),
        ("x = 3 so y = 12", ["3"], 0),  # what follows the last lead alone
        ("It is 5\nIt is 12", ["5"], 1),  # every line has its own
        ("The result is 5. The sum is 12", ["5"], 0),
        ("5 or 12", ["5"], 1),
        ("a transformer", ["transformer"], 1),  # part of what is said
        ("Transformer.", ["transformer"], 1),
        ("trans", ["transformer"], 0),
        ("x", ["x"], 1),
        ("axe", ["x"], 0),  # one letter needs a space beside it
        ("it is the x axis", ["x"], 1),
        ("so x", ["X"], 1),
        ("", ["12"], 0),
        ("is ", ["12"], 0),
        ("24/7", ["24/7", "3.429"], 1),
        ("about 3.43", ["24/7", "3.429"], 1),
        ("x=12", ["12"], 1),
        ("x=12\ny", ["12"], 1),  # a number in what is no answer: all is said where nothing leads
    ],
)
def test_mmmu_without_options(said: str, answers: list[str], score: float) -> None:
    assert scorer("mmmu").score(said, answers, []) == score


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ("A", 0),
        ("C", 2),
        ("B. a dog", 1),
        ("B. ", 1),
        ("B.", None),
        ("B.a dog", None),
        ("B a dog", None),
        ("(B)", None),
        ("b", None),
        ("a dog", None),
        ("The answer is B.", 1),
        ("The answer is B because it barks", 1),
        ("The answer is B", None),  # a character has to follow
        ("The answer is Above", 0),
        ("The answer is A. The answer is B.", None),  # said twice
        ("the answer is B.", None),
        ("Sure. The answer is D!", 3),
        ("A. The answer is B.", 0),
        ("E", None),  # there are four
        ("", None),
        ("FAILED", None),
    ],
)
def test_scienceqa(said: str, place: int | None) -> None:
    for number, option in enumerate(OPTIONS):
        assert scorer("scienceqa").score(said, [option], OPTIONS) == (place == number)


@pytest.mark.parametrize(
    ("said", "answers", "of_text", "of_formula"),
    [
        ("CENTRE", ["centre"], 1, 0),
        ("the word is Centre.", ["CENTRE"], 1, 0),
        ("cent", ["centre"], 0, 0),
        ("to\ntal", ["to tal"], 1, 1),
        ("total 9 . 00", ["9.00"], 0, 1),
        ("x ^ { 2 }", ["x^{2}"], 0, 1),
        ("X^{2}", ["x^{2}"], 1, 0),
        ("", ["a"], 0, 0),
        ("b", ["a", "b"], 1, 1),
        ("no", [" no "], 1, 1),
        ("\uff21", ["a"], 0, 0),  # lmms-eval folds full-width letters
    ],
)
def test_ocrbench(said: str, answers: list[str], of_text: float, of_formula: float) -> None:
    assert scorer("ocrbench").score(said, answers, [], type="Doc-oriented VQA") == of_text
    assert scorer("ocrbench").score(said, answers, [], type=FORMULAS) == of_formula


@pytest.mark.parametrize(
    ("said", "kind", "answer", "score"),
    [
        ("14", "integer", "14", 1),
        ("14.9", "integer", "14", 1),  # cut
        ("15", "integer", "14", 0),
        ("1e1", "integer", "10", 1),
        ("The number is 14.", "integer", "14", 1),
        ("From 3 to 14", "integer", "14", 1),
        ("1,400", "integer", "1400", 1),
        ("-3", "integer", "-3", 1),
        ("none", "integer", "14", 0),
        ("inf", "integer", "14", 0),
        ("0.649", "float 1", "0.6", 1),
        ("0.25", "float 1", "0.3", 0),  # as Python rounds: to the even one
        ("1.452", "float 2", "1.45", 1),
        ("1.4", "float 2", "1.40", 0),  # Python writes 1.4
        ("Luca needs $1.45.", "float 2", "1.45", 1),
        ("[2007, 2008]", "list", "[2007, 2008]", 1),
        ("between [2007, 2008].", "list", "[2007, 2008]", 1),
        ("2007, 2008", "list", "[2007, 2008]", 0),
    ],
)
def test_mathvista_without_options(said: str, kind: str, answer: str, score: float) -> None:
    assert scorer("mathvista").score(said, [answer], [], type=kind) == score


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ("a dog", 1),
        ("B", 1),
        ("(B) a dog", 1),
        ("(b)", 1),
        ("It is (C), not (A)", 2),  # the first in brackets
        ("The answer is D.", 3),  # GPT would extract it
        ("It must be the hen", 2),
        ("a dot", 1),  # the nearest
        ("coward", 3),
        ("", 3),  # the shortest
        ("???", 3),
        ("(Z)", 3),
    ],
)
def test_mathvista_with_options(said: str, place: int) -> None:
    for number, option in enumerate(OPTIONS):
        assert scorer("mathvista").score(said, [option], OPTIONS) == (place == number)


@pytest.mark.parametrize(
    ("said", "options", "place"),
    [
        ("C", ["B", "C", "D", "A"], 2),  # a letter is a place, also where an option reads so
        ("(C) D", ["B", "C", "D", "A"], 2),
        ("E", ["B", "C", "E", "A"], 2),
        ("D", ["3", "4", "A", "D"], 3),
        ("A", ["3", "4", "A", "D"], 0),
        ("a", ["b", "a"], 1),
        ("f(b)", ["f(b)", "f(a)"], 1),  # in brackets
    ],
)
def test_mathvista_with_letters_as_options(said: str, options: list[str], place: int) -> None:
    for number, option in enumerate(options):
        assert scorer("mathvista").score(said, [option], options) == (place == number)


@pytest.mark.parametrize(
    ("said", "answer", "vqav2", "official", "textvqa"),
    [
        # where all annotators agree, `vqaEval.py` compares texts as they are
        ("yes", "yes", 1, 1, 1),
        ("Yes", "yes", 1, 0, 1),
        ("yes.", "yes", 1, 0, 1),
        ("two", "2", 1, 0, 1),
        ("a dog", "dog", 1, 0, 1),
        ("yes\n", "yes", 1, 1, 1),
        # MMF's drops commas and question marks first, and parts 's
        ("red,blue", "red blue", 1, 0, 0),
        ("red,blue", "redblue", 0, 0, 1),
        ("what?now", "whatnow", 0, 0, 1),
        ("bob's", "bob 's", 0, 0, 1),
        ("1,000", "1000", 1, 0, 1),
        ("1,000/b", "1000b", 1, 0, 0),
    ],
)
def test_answers_of_vqa_that_all_annotators_share(
    said: str, answer: str, vqav2: float, official: float, textvqa: float
) -> None:
    answers = [answer] * 10
    assert scorer("vqav2").score(said, answers, []) == vqav2
    assert scorer("vqav2", official=True).score(said, answers, []) == official
    assert scorer("textvqa").score(said, answers, []) == textvqa


@pytest.mark.parametrize(("given", "agreeing"), product(["Yes.", "two", "a red"], range(1, 10)))
def test_where_annotators_differ_the_official_rule_is_ours(given: str, agreeing: int) -> None:
    plain = {"Yes.": "yes", "two": "2", "a red": "red"}[given]
    answers = [plain] * agreeing + ["other"] * (10 - agreeing)
    without_one = [agreeing - 1] * agreeing + [agreeing] * (10 - agreeing)
    expected = sum(min(1, left / 3) for left in without_one) / 10
    for found in (scorer("vqav2"), scorer("vqav2", official=True), scorer("textvqa")):
        assert found.score(given, answers, []) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("said", "answer", "ours", "official"),
    [
        ("abcd", "abxy", 0, 0.5),  # exactly half
        ("abcde", "abcxy", 0.6, 0.6),
        ("abc", "abxyz", 0, 0),
        # of a distance of 2, over a length of 4 or of 6
        ("ab    cd", "ab xy", 3 / 5, 3 / 4),
        ("  ITC  ", "itc", 1, 1),
        ("", "", 1, 1),
        ("", "red", 0, 0),
    ],
)
def test_anls(said: str, answer: str, ours: float, official: float) -> None:
    assert scorer("anls").score(said, [answer], []) == pytest.approx(ours)
    assert scorer("anls", official=True).score(said, [answer], []) == pytest.approx(official)


@pytest.mark.parametrize(
    ("said", "ours", "official"),
    [("dog", 1, 1), ("Dog", 1, 0), ("dog.", 1, 0), ("dog ", 1, 0), ("a dog", 0, 0), ("", 0, 0)],
)
def test_gqa(said: str, ours: float, official: float) -> None:
    assert scorer("gqa").score(said, ["dog"], []) == ours
    assert scorer("gqa", official=True).score(said, ["dog"], []) == official
