"""The normalisation of answers that VQA's evaluation compares (visualqa.org/evaluation).

Constants and rules, oddities included, are those of `vqaEval.py` in GT-Vision-Lab/VQA: its pattern
for full stops was meant to look behind as well, but does not, so that only a full stop before a
digit stays; and its upper-case contractions (`Im`) never apply, because words are lower-cased
first, which is why they are left out here.

One thing is as the published definition has it, not the code: both sides are always normalised.
The code skips that where all annotators agree, and so calls `Yes.` wrong where ten wrote `yes`
(`official: true`).
"""

from __future__ import annotations

import re
from functools import lru_cache

NUMBERS = {
    **{"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4"},
    **{"five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"},
}
ARTICLES = frozenset({"a", "an", "the"})
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_FULL_STOP = re.compile(r"\.(?!\d)")
_DIGITS_COMMA = re.compile(r"\d,\d")

#: Pairs of neighbours: as it is written, as it should be.
_SPELLINGS = """
aint ain't arent aren't cant can't couldve could've couldnt couldn't couldn'tve couldn't've
couldnt've couldn't've didnt didn't doesnt doesn't dont don't hadnt hadn't hadnt've hadn't've
hadn'tve hadn't've hasnt hasn't havent haven't hed he'd hed've he'd've he'dve he'd've hes he's
howd how'd howll how'll hows how's isnt isn't itd it'd itd've it'd've it'dve it'd've itll it'll
let's let's maam ma'am mightnt mightn't mightnt've mightn't've mightn'tve mightn't've mightve
might've mustnt mustn't mustve must've neednt needn't notve not've oclock o'clock oughtnt oughtn't
ow's'at 'ow's'at 'ows'at 'ow's'at 'ow'sat 'ow's'at shant shan't shed've she'd've she'dve she'd've
she's she's shouldve should've shouldnt shouldn't shouldnt've shouldn't've shouldn'tve
shouldn't've somebody'd somebodyd somebodyd've somebody'd've somebody'dve somebody'd've somebodyll
somebody'll somebodys somebody's someoned someone'd someoned've someone'd've someone'dve
someone'd've someonell someone'll someones someone's somethingd something'd somethingd've
something'd've something'dve something'd've somethingll something'll thats that's thered there'd
thered've there'd've there'dve there'd've therere there're theres there's theyd they'd theyd've
they'd've they'dve they'd've theyll they'll theyre they're theyve they've twas 'twas wasnt wasn't
wed've we'd've we'dve we'd've weve we've werent weren't whatll what'll whatre what're whats what's
whatve what've whens when's whered where'd wheres where's whereve where've whod who'd whod've
who'd've who'dve who'd've wholl who'll whos who's whove who've whyll why'll whyre why're whys why's
wont won't wouldve would've wouldnt wouldn't wouldnt've wouldn't've wouldn'tve wouldn't've yall
y'all yall'll y'all'll y'allll y'all'll yall'd've y'all'd've y'alld've y'all'd've y'all'dve
y'all'd've youd you'd youd've you'd've you'dve you'd've youll you'll youre you're youve you've
"""
_WORDS = _SPELLINGS.split()
CONTRACTIONS = dict(zip(_WORDS[::2], _WORDS[1::2], strict=True))


@lru_cache(maxsize=65_536)  # the same few answers come again and again
def normalise(answer: str) -> str:
    """Brings an answer to the form that is compared: `A dog, two cats.` -> `dog 2 cats`."""
    text = _without_punctuation(on_one_line(answer))
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def on_one_line(answer: str) -> str:
    """Does what is done to every answer, line breaks and tabs being spaces."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def _without_punctuation(text: str) -> str:
    """A mark beside a space, or any mark where a comma parts digits, goes; others become spaces."""
    parted = _DIGITS_COMMA.search(text) is not None
    bare = text
    for mark in PUNCTUATION:
        gone = parted or f"{mark} " in text or f" {mark}" in text
        bare = bare.replace(mark, "" if gone else " ")
    return _FULL_STOP.sub("", bare)
