"""Which option a text means: a table of outputs that were judged by hand, without the code."""

import time
from itertools import permutations
from string import ascii_uppercase

import pytest

from siqvl.evaluation.scoring.meant_option import place_meant, places_right

ANIMALS = ("cat", "dog", "cow", "hot dog")
COLORS = ("red", "blue", "dark red", "teal")
YES_NO = ("yes", "no")
ZH_ANIMALS = ("猫", "狗", "奶牛", "热狗")
TREES = ("oak", "elm", "ash", "fir", "yew", "bay", "fig", "box", "tea")
#: Output, options, and the letter of the one that a reader takes it for; "" for none, or for doubt.
JUDGED = [
    # a letter
    ("B", COLORS, "B"),
    ("b", COLORS, "B"),
    ("(B)", COLORS, "B"),
    ("(b).", COLORS, "B"),
    ("B.", COLORS, "B"),
    ("B)", COLORS, "B"),
    ("**B**", COLORS, "B"),
    (" A ", COLORS, "A"),
    ("a", COLORS, "A"),
    ("E", COLORS, ""),
    # an option
    ("Blue.", COLORS, "B"),
    ("dark  red", COLORS, "C"),
    ("`teal`", COLORS, "D"),
    ("Hot dog", ANIMALS, "D"),
    ("green", COLORS, ""),
    # a letter set off
    ("B. blue", COLORS, "B"),
    ("B: blue", COLORS, "B"),
    ("B) because it is", COLORS, "B"),
    ("B - blue", COLORS, "B"),
    ("**B.** blue", COLORS, "B"),
    ("(A) because it is not blue", COLORS, "A"),
    ("A. The wall is painted.", COLORS, "A"),
    ("B. red", COLORS, ""),
    ("A: blue", COLORS, ""),
    ("E. green", COLORS, ""),
    ("A\n\nIt is not a cow", ANIMALS, "A"),
    ("C\n\nIt is not a cat", ANIMALS, "C"),
    ("B\nThe tail tells it.", ANIMALS, "B"),
    ("dog\n\nA cat has other ears.", ANIMALS, "B"),
    ("A. cat B. dog C. cow D. hot dog", ANIMALS, ""),
    ("C. cow\nD. hot dog", ANIMALS, ""),
    ("B dog", ANIMALS, "B"),
    ("[B]", ANIMALS, "B"),
    # said to be the answer
    ("**Final Answer:** **(B)**", ANIMALS, "B"),
    ("The answer is $\\boxed{\\text{B}}$", ANIMALS, "B"),
    ("The picture shows a dog and a cat. Answer: dog", ANIMALS, "B"),
    ("B is incorrect. The answer is: D.", ANIMALS, "D"),
    ("Based on the picture, the animal is B (dog).", ANIMALS, "B"),
    ("The right one is C.", ANIMALS, "C"),
    ("None of the above", ANIMALS, ""),
    ("Answer: B", COLORS, "B"),
    ("answer: c", COLORS, "C"),
    ("The answer is (b).", COLORS, "B"),
    ("The answer is **B**", COLORS, "B"),
    ("**Answer:** D, not A", COLORS, "D"),
    ("The answer is A because the wall is painted.", COLORS, "A"),
    ("The answer is A because it is not a cow.", ANIMALS, "A"),
    ("The answer is D because it is not a cow.", ANIMALS, "D"),
    ("The correct answer is option C.", ANIMALS, "C"),
    ("The correct option is B, which barks.", ANIMALS, "B"),
    ("The best choice would be (D).", ANIMALS, "D"),
    ("The answer is a dog.", ANIMALS, "B"),
    ("The answer is A dog.", ANIMALS, "B"),
    ("The answer is hot dog", ANIMALS, "D"),
    ("The answer is: the cow", ANIMALS, "C"),
    ("The answer is B. dog", ANIMALS, "B"),
    ("The answer is B. cat", ANIMALS, ""),
    ("The answer is a red ball", COLORS, "A"),
    ("B is the correct answer.", ANIMALS, "B"),
    ("The dog is the right answer, not the cat.", ANIMALS, "B"),
    ("Cats purr (A) and cows moo (C). The answer is B.", ANIMALS, "B"),
    ("Figure (A) shows a farm.\nThe answer is C.", ANIMALS, "C"),
    ("A and C are too small. The answer is D.", ANIMALS, "D"),
    ("The answer is D. A and C are too small.", ANIMALS, "D"),
    ("The answer is A. Wait, it has horns. The answer is C.", ANIMALS, "C"),
    ("The answer is not A. The answer is B.", ANIMALS, "B"),
    ("So the answer is \\boxed{C}", ANIMALS, "C"),
    ("LECTURE: a dog (B) is a pet. SOLUTION: cows give milk. The answer is C.", ANIMALS, "C"),
    ("The answer is A or the answer is B.", COLORS, ""),
    ("The answer is B or C.", COLORS, ""),
    ("The answer is either.", COLORS, ""),
    ("The answer is E.", COLORS, ""),
    # chosen
    ("I choose option C because", COLORS, "C"),
    ("I choose option A here", ANIMALS, "A"),
    ("I choose option B here", ANIMALS, "B"),
    ("I would go with D", ANIMALS, "D"),
    ("Option A is wrong, so I pick B.", ANIMALS, "B"),
    ("It must be (C) in my view", ANIMALS, "C"),
    ("It could be (A) or (C)", ANIMALS, ""),
    # mentioned
    ("It is a dark red ball.", COLORS, "C"),
    ("A blue ball", COLORS, "B"),
    ("A hot dog on a plate", ANIMALS, "D"),
    ("It is a dog, not a cat.", ANIMALS, "B"),
    ("It is not a cow.", ANIMALS, ""),
    ("red or blue", COLORS, ""),
    ("reddish", COLORS, ""),
    ("I think B", COLORS, "B"),
    ("I think it is A.", COLORS, "A"),
    ("It must be A because the others are warm", COLORS, "A"),
    ("B, so blue", COLORS, "B"),
    ("B, so red", COLORS, ""),
    ("B, I think.", COLORS, "B"),
    ("A or B", COLORS, ""),
    ("A, B and D", COLORS, ""),
    ("A dog in a T-shirt", COLORS, ""),
    ("I cannot tell", COLORS, ""),
    ("", COLORS, ""),
    # numbers, letters and sentences as options
    ("3", ("13", "3"), "B"),
    ("3.", ("13", "3"), "B"),
    ("There are 13.", ("13", "3"), "A"),
    ("3.5", ("13", "3"), ""),
    ("B", ("13", "3"), "B"),
    ("about 5", ("13", "3"), ""),
    ("A", ("B", "A"), "B"),
    ("The answer is A.", ("B", "A"), "B"),
    ("vitamin C", ("vitamin C", "vitamin A", "vitamin B"), "A"),
    ("The answer is vitamin A.", ("vitamin C", "vitamin A", "vitamin B"), "B"),
    ("Dog", ("dog", "Dog"), "B"),
    ("DOG", ("dog", "Dog"), ""),
    ("'yes'", ("yes", "'yes'"), "B"),
    ("A dog runs.", ("A dog runs.", "A dog sleeps."), "A"),
    # signs, sums and units
    ("−5", ("5", "-5"), "B"),
    ("-5", ("5", "−5"), "B"),
    ("The answer is −5.", ("5", "-5"), "B"),
    ("The answer is -5.", ("5", "3"), ""),
    ("-5", ("5", "3"), ""),
    ("The answer is .5", ("5", "3"), ""),
    ("3 – 5", ("3-5", "5"), "A"),
    ("3–5", ("5", "3-5"), "B"),
    ("The answer is 3:15.", ("3", "15"), ""),
    ("The answer is 5^2.", ("5", "25"), ""),
    ("The answer is 2 + 3 = 5.", ("2", "5"), "B"),
    ("10cm", ("10 cm", "20 cm"), "A"),
    ("50 %", ("5%", "50%"), "B"),
    # articles, quotes and hyphens
    ("sun", ("the sun", "the moon"), "A"),
    ("The answer is sun.", ("The moon", "The sun"), "B"),
    ("The answer is 'B'.", ANIMALS, "B"),
    ("a dark-red ball", COLORS, "C"),
    ("The answer is a - b.", ("$a b$", "$a + b$"), ""),
    ("The answer is x - 1.", ("x", "x + 1"), ""),
    # letters as options, in another case
    ("The answer is b.", ("b", "a"), "A"),
    ("(b)", ("b", "a"), "A"),
    # said not to be the answer
    ("B is not the answer.", ANIMALS, ""),
    ("B isn't correct.", ANIMALS, ""),
    ("B is incorrect.", ANIMALS, ""),
    ("The answer cannot be B.", ANIMALS, ""),
    ("The answer can't be A.", ANIMALS, ""),
    ("I would not choose B.", ANIMALS, ""),
    ("I wouldn't pick option B.", ANIMALS, ""),
    ("The picture doesn't show a dog but a cat.", ANIMALS, "A"),
    ("It isn't really red, but blue.", COLORS, "B"),
    ("Neither a dog nor a cat.", ("dog", "cat", "neither"), "C"),
    ("There is no dog.", ("dog", "no dog"), "B"),
    ("The answer is most likely C, since A is bright.", COLORS, "C"),
    ("The right one among the options A-D is C.", COLORS, "C"),
    ("B. blue B. blue B. blue", COLORS, "B"),
    ("D. H. Lawrence", ("Kafka", "D. H. Lawrence", "Mann", "Woolf"), "B"),
    ("The answer is D. H. Lawrence.", ("Kafka", "D. H. Lawrence", "Mann", "Woolf"), "B"),
    # an option is the first sentence
    ("Yes. There is no car on the left.", YES_NO, "A"),
    ("Yes, there is no car on the left.", YES_NO, "A"),
    ("No. I would say yes if it were blue.", YES_NO, "B"),
    ("Yes. No.", YES_NO, ""),
    ("Yes. So the answer is no.", YES_NO, "B"),
    ("**Dog.** A cat has other ears.", ANIMALS, "B"),
    ("Dog. Cat. Cow.", ANIMALS, ""),
    ("dog, cat and cow", ANIMALS, ""),
    ("1. Count the balls. 2. There are 3.", ("1", "2", "3"), ""),
    # in writing that puts no spaces between words
    ("答案是B", ZH_ANIMALS, "B"),
    ("答案：C。", ZH_ANIMALS, "C"),
    ("正确答案为A，不是B。", ZH_ANIMALS, "A"),
    ("（B）", ZH_ANIMALS, "B"),
    ("B。狗", ZH_ANIMALS, "B"),
    ("B、猫", ZH_ANIMALS, ""),
    ("故选D", ZH_ANIMALS, "D"),
    ("不是A，是B。", ZH_ANIMALS, "B"),
    ("图中是狗。", ZH_ANIMALS, "B"),
    ("这是一个热狗", ZH_ANIMALS, "D"),
    ("猫和狗", ZH_ANIMALS, ""),
    ("共有12个球", ("2", "12"), "B"),
    ("正解はAです。", ZH_ANIMALS, "A"),
    ("정답은 B입니다.", ZH_ANIMALS, "B"),
    ("고양이입니다.", ("개", "고양이"), "B"),
    # a pronoun
    ("I would say B.", TREES, "B"),
    ("I must say it is the fig.", TREES, "G"),
    ("I is correct.", TREES, "I"),
]


@pytest.mark.parametrize(("text", "options", "letter"), JUDGED)
def test_the_option_a_text_means(text: str, options: tuple[str, ...], letter: str) -> None:
    place = place_meant(text, options)
    assert ("" if place is None else ascii_uppercase[place]) == letter


@pytest.mark.parametrize("run", ["\n", " *", " A ) * ", "A or ", "A is correct. "])
def test_a_model_that_repeats_itself_costs_no_minutes(run: str) -> None:
    """20,000 line ends took 20 s, at the square of their number."""
    begin = time.process_time()
    place_meant("A" + run * (60_000 // len(run)) + "x", ANIMALS)
    assert time.process_time() - begin < 8


def test_a_listed_letter_is_a_place_also_where_options_are_letters() -> None:
    assert place_meant("A", ["B", "A"], by_letter=True) == 0
    assert place_meant("The answer is A.", ["B", "A"], by_letter=True) == 0
    assert place_meant("A. B", ["B", "A"], by_letter=True) == 0


@pytest.mark.parametrize(
    "text",
    [
        "{letter}",
        "({letter})",
        "{letter}. {option}",
        "{letter}\n\nIt is not a {other}",
        "The answer is {letter} because it is no {other}.",
        "The answer is {letter}.",
        "A {other} is ({wrong}). The answer is {letter}.",
        "I choose option {letter} here",
        "It has to be {letter}, I am sure.",
        "The answer is {option}.",
        "It is the {option}, not the {other}.",
        "{letter} is correct.",
        "<answer>{letter}</answer>",
        "{letter}</s>",
        "{letter} it is",
        "{letter} looks right",
        "{letter} would be the answer",
        "{letter} best describes the picture",
        "{letter} shows what is asked for",
        "答案是{letter}。",
        "正解は{letter}です",
    ],
)
def test_it_does_not_matter_where_the_right_option_stands(text: str) -> None:
    for order in permutations(("cat", "dog", "cow")):
        place = order.index("dog")
        other = order[place - 1]
        said = text.format(
            letter=ascii_uppercase[place],
            wrong=ascii_uppercase[order.index(other)],
            **{"option": "dog", "other": other},
        )
        assert place_meant(said, order) == place, (said, order)


def test_the_right_places() -> None:
    assert places_right(["dog"], ["Dog", "dog"]) == {1}
    assert places_right(["'a'"], ["a", "'a'"]) == {1}
    assert places_right(["DOG."], ["cat", "dog"]) == {1}
    assert places_right(["dog"], ["dog", "cat", "dog"]) == {0, 2}
    assert places_right(["fox"], ["dog", "cat"]) == set()


def test_without_options_nothing_is_meant() -> None:
    assert place_meant("A", []) is None
