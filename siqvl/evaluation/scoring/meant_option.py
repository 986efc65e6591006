"""Which option of a multiple-choice question a text means: a place in their list, not words.

Texts are read as people write them, most telling first:

1. the whole text is an option or a letter: `dog`, `B`, `(b).`;
2. the last sentence that calls something the answer: `The answer is B because …`, `B is correct`;
3. the first line or sentence is an option or a letter (`Yes. There is no …`), or the text begins
   with one as in a list: `B. dog`;
4. all that is chosen or in brackets (`I pick option B`, `(B)`) is one place;
5. all options that are mentioned, and all letters that stand alone, are one place.

What contradicts itself (`B. cat` where B is the dog; `B or C`) means none, and so does whatever is
said not to be the answer. `A` and `I` are words as well: before an option's words they are read so.
Chinese, Japanese and Korean put no spaces around a letter or an option, and need none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import ascii_uppercase
from typing import Final

from siqvl.composed_text import composed

#: Writing without spaces between words: Thai, Japanese, Chinese; Korean, whose particles follow.
_UNSPACED: Final = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
#: A character of a word that ends at a space.
_W: Final = rf"[^\W{_UNSPACED}]"
_WRAPPING: Final = " \t\n*_`\"'“”‘’$"
#: Runs are bounded: a model that repeats itself must not cost a search over all of them each time.
_OPENING = r"[\s*_`\"'“‘$(\[]{0,9}"
#: What calls the text behind it the answer, and what calls that before it so.
_CALLS = re.compile(
    r"(?i:\b(?:answers?|(?:correct|right|best)\s+(?:options?|choices?|one|letter))\b[\s*_]{0,9}"
    r"(?:\b(?:is|are|was|would\s+be|should\s+be|must\s+be|has\s+to\s+be)\b|[:=]|(?=[\s(]{1,9}[A-Z]\b))"
    r"(?:\s+(?:most\s+likely|likely|probably|clearly|definitely|therefore|thus)\b)?"
    r"[\s*_]{0,9}:?|\\boxed\{"
    r"|(?:答案|正解|正[确確][选選][项項]|정답)(?:[应應]该?|就)?[是为為はが은:]?\s{0,9}:?)"
    + _OPENING
    + r"(?i:(?:the\s+)?(?:option|choice|letter)\b[\s:]{0,9})?"
    + _OPENING
)
_CALLED = re.compile(
    r"[\s*_`\"'”’)\].$]{0,9}\s(?i:is|would\s+be|must\s+be|seems)\s+(?i:the\s+|my\s+|thus\s+)*"
    r"(?i:correct|right|best|true|final\s+answer|answer)\b"
)
_CHOSEN = re.compile(
    r"(?i:\b(?:options?|choices?|letter|choose|select|pick|go\s+with|opt\s+for)\b|[选選][择擇项項]?)[\s*_:]{0,9}"
    + _OPENING
)
#: What may follow a letter that is also a word.
_ENDS = (
    rf"(?=[*_`\"'”’)\]$}}\s]{{0,9}}(?:$|[.,;:)\]!?\n—<{_UNSPACED}]|-(?!\w)"
    r"|(?:because|since|as|for|which|that|so|but|here|and|or|is|was|would|must|instead"
    r"|it|looks|seems|appears|fits|matches|shows|has|does|describes|best\s+\w{1,20}s)\b))"
)
#: `I would say` is nobody's option.
_NO_PRONOUN = r"(?!(?<=I)\s+(?:(?:would|must)\b(?!\s+be\b)|was\b))"
_LETTER = re.compile(rf"(?:([A-Z]){_NO_PRONOUN}(?!{_W}|&|['’-]\w)|([a-z])(?!\s*[-+*/^=]){_ENDS})")
_SURE = re.compile(rf"(?:([B-HJ-Z])(?!{_W}|['’&-])|([AI]){_NO_PRONOUN}{_ENDS})")
_ALONE = re.compile(rf"(?<!{_W})(?<!['’&-]){_SURE.pattern}")
_BRACKETS = re.compile(r"\(([A-Z])\)")
#: A letter set off at the beginning, as options are listed: `B. red`, `B) red`, `(B) red`.
_LISTED = re.compile(
    rf"[*_`\"'“‘]*(?:\(([A-Z])\)|([A-Z])[*_]*(?:[.):]|\s+[—-](?=\s)))(?!{_W})[*_]*\s*"
)
_NOT = re.compile(
    r"(?i)(?:\b(?:not|cannot|no|never|neither|nor|without|rather\s+than)|n[’']t)\s+"
    r"(?:(?:an?|the|be|choose|pick|select|options?|really|show)\s+)*[(*_`\"'“]*$"
    r"|(?:不是|并非|並非|而非|不[选選])[\s(*_`\"'“]*$"
)
_WRONG = re.compile(
    r"(?i)[*_`\"'”’)\].]*\s+(?:is|was|seems)\s+(?:wrong|incorrect|false|unlikely)\b|"
    r"[*_`\"'”’)\].]*\s+is(?:n[’']t|\s+not)(?:\s+(?:the|my))?\s+(?:correct|right|best|answer)\b"
)
_LOOK_BACK: Final = 60
_OR = re.compile(r"[\s*_`\"'”’)\].]{0,9}?(?:[,/&]|\b(?:or|and)\b)(?:\s*\b(?:or|and)\b)?")
#: A number is not part of another one, nor of a sum: 5 is not in `-5`, `3-5`, `0.5` or `5 * 2`.
_BEFORE_NUMBER = rf"(?<!{_W})(?<!\d[.,])(?<![\s(]\.)(?<![-/^])"
_BEHIND_NUMBER = rf"(?!{_W})(?![.,:]\d)(?!\s*[-+*/^]\s*\d)"
_OF_UNSPACED = re.compile(f"[{_UNSPACED}]")
#: Punctuation of Chinese and Japanese, and minus signs, beside what they are read as.
_READ_AS = str.maketrans("−–（）［］：；，、。．！？", "--()[]:;,,..!?")
#: What puts the answer behind it beside the one before: `… or the answer is C`.
_EITHER = re.compile(r"\bor\s+(?:else\s+)?(?:the\s+)?$")
_EMPHASIS = re.compile(r"[*_`\"'“‘]*")
_SENTENCE_ENDS = re.compile(r"[*_`\"'”’]{0,9}([.!,])[*_`\"'”’]{0,9}\s+")
_LIST_GOES_ON = re.compile(r"[*_`\"'”’]{0,9}(?:[.,;!]|$)")
_TRUTHS: Final = {"yes", "no", "true", "false"}
_ARTICLE = re.compile(r"(?i:an?|the)\s+")


def place_meant(text: str, choices: Sequence[str], *, by_letter: bool = False) -> int | None:
    """Finds the place of the option that a text means; None if it means none, or one cannot tell.

    Args:
        text: an answer.
        choices: the options, in their order.
        by_letter: the options were listed with letters. Where they are letters themselves, `B`
            then is the second one, and otherwise the one that reads `B`.
    """
    return _Text(_read(text), tuple(map(_read, choices)), by_letter).place if choices else None


def places_right(answers: Sequence[str], choices: Sequence[str]) -> set[int]:
    """Finds the places of the options that are right: those that read as an answer does.

    Case, quotes and spaces count where options differ in nothing else.
    """
    options = tuple(map(_read, choices))
    return {place for answer in answers for place in _same(_read(answer), options)}


def _read(text: str) -> str:
    """A text in NFC, in which a minus or a comma is one whatever it is written with."""
    return composed(text).translate(_READ_AS)


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _bare(text: str) -> str:
    return _spaced(text).strip(_WRAPPING).rstrip(". ").strip(_WRAPPING)


def _without_article(text: str) -> str:
    bare = _bare(text)
    found = _ARTICLE.match(bare)
    return bare[found.end() :] if found and len(bare) > found.end() + 1 else bare


def _joint(words: str) -> str:
    """What stands between words: `dark-red` is dark red, but `a - b` is not `a b`."""
    plain = all(word.isalpha() and len(word) > 1 for word in words.split())
    return r"[\s-]+" if plain else r"\s+"


def _edge_before(words: str) -> str:
    """What must not stand before an option's words."""
    if _OF_UNSPACED.match(words):
        return ""
    return rf"(?<!{_W})(?<!\d[.,])" if words[:1].isalpha() else _BEFORE_NUMBER


def _edge_behind(words: str) -> str:
    """What must not stand behind an option's words."""
    if _OF_UNSPACED.match(words[-1:]):
        return ""
    of_letters = len(words) > 1 and words[-2:].isalpha()
    return rf"(?!{_W})(?![.,]\d)" if of_letters else _BEHIND_NUMBER


_LIKENESS: tuple[Callable[[str], str], ...] = (
    str,
    _spaced,
    _bare,
    lambda text: _bare(text).lower(),
    lambda text: "".join(_without_article(text).lower().split()),
)


def _same(text: str, options: tuple[str, ...]) -> list[int]:
    """The places of the options that a text is, by the strictest comparison that finds any."""
    for form in _LIKENESS:
        like = form(text)
        found = [place for place, option in enumerate(options) if like and form(option) == like]
        if found:
            return found
    return []


@dataclass(frozen=True)
class _Target:
    """Something that a text names: a place, None where it contradicts itself; and where it ends."""

    place: int | None
    end: int


@dataclass(frozen=True)
class _Text:
    """A text, read against options."""

    text: str
    options: tuple[str, ...]
    by_letter: bool

    @property
    def place(self) -> int | None:
        for read in (self._whole, self._called, self._first, self._chosen, self._mentioned):
            found = read()
            if found is not None:
                return found.place
        return None

    def _whole(self, text: str | None = None) -> _Target | None:
        """The text, or a line of it, is an option or a letter."""
        text = self.text if text is None else text
        bare = _bare(text)
        letter = self._of_letter_or_word(bare.strip("().:[] *")) if len(bare) < 8 else None
        same = _same(text, self.options)
        if letter is not None and (self.by_letter or not same):
            return _Target(letter, len(text))
        return _Target(self._one(same), len(text)) if same else None

    def _called(self) -> _Target | None:
        """The last that is called the answer."""
        found: list[tuple[int, _Target]] = []
        for match in _CALLS.finditer(self.text):
            target = self._at(match.end())
            if target is not None:
                doubted = _EITHER.search(
                    self.text[max(0, match.start() - _LOOK_BACK) : match.start()]
                )
                found.append((match.end(), _Target(None, target.end) if doubted else target))
        for start, target in self._named() if _CALLED.search(self.text) else ():
            if _CALLED.match(self.text, target.end) and not self._is_denied(start, target.end):
                found.append((start, target))
        if not found:
            return None
        _, last = max(found, key=lambda one: one[0])
        return _Target(None, last.end) if self._is_one_of_several(last) else last

    def _first(self) -> _Target | None:
        """The first line, or what begins it as in a list."""
        first = self.text.strip().split("\n", 1)[0]
        if first != self.text and (whole := self._whole(first)):
            return whole
        text = self.text.lstrip()
        listed = _LISTED.match(text)
        if listed is None:
            return self._first_sentence(text)
        place = self._of_letter(listed[1] or listed[2])
        rest = self._words_at(text, listed.end())
        contradicts = rest is not None and rest.place != place
        ends = rest is not None and not text[rest.end :].strip(_WRAPPING + ".")
        again = _LISTED.match(text[rest.end :].lstrip(" \t\n,;.")) if rest else None
        goes_on = again is not None and self._of_letter(again[1] or again[2]) not in (None, place)
        return _Target(None if (contradicts and ends) or goes_on else place, listed.end())

    def _first_sentence(self, text: str) -> _Target | None:
        """A first sentence that is an option in words; `yes` and `no` may end at a comma."""
        opening = _EMPHASIS.match(text)
        first = self._words_at(text, opening.end() if opening else 0)
        end = _SENTENCE_ENDS.match(text, first.end) if first and first.place is not None else None
        if first is None or first.place is None or end is None:
            return None
        words = _bare(self.options[first.place]).lower()
        is_told = words in _TRUTHS if end[1] == "," else sum(map(str.isalpha, words)) > 1
        again = self._words_at(text, end.end())
        goes_on = again is not None and _LIST_GOES_ON.match(text, again.end)
        return first if is_told and not goes_on else None

    def _chosen(self) -> _Target | None:
        """What is chosen, or in brackets."""
        if self._has_several():
            return _Target(None, 0)
        places: list[int | None] = []
        for match in _CHOSEN.finditer(self.text):
            target = self._at(match.end())
            if target is not None and not self._is_denied(match.start(), target.end):
                places.append(target.place)
        for match in _BRACKETS.finditer(self.text):
            if not self._is_denied(match.start(), match.end()):
                places.append(self._of_letter(match[1]))
        return self._agreed([place for place in places if place is not None])

    def _mentioned(self) -> _Target | None:
        """Every option whose words, and every letter that stands alone, says the same."""
        found, rest = [], self.text
        for place in self._longest_first:
            hits = list(self._patterns[place].finditer(rest))
            if hits and len(self.options[place]) == 1 and self.options[place].isupper():
                continue  # a letter, which is read below
            if any(not self._is_denied(hit.start(), hit.end()) for hit in hits):
                found.append(place)
            rest = self._patterns[place].sub(lambda hit: "#" * len(hit[0]), rest)
        for match in _ALONE.finditer(rest):
            if not self._is_denied(match.start(), match.end()):
                alone = self._of_letter_or_word(match[1] or match[2])
                found += [] if alone is None else [alone]
        return self._agreed(found)

    def _agreed(self, places: list[int]) -> _Target | None:
        """The one place of all; those of options that read the same are one."""
        if not places:
            return None
        return _Target(self._one(sorted(set(places))), 0)

    def _one(self, places: list[int]) -> int | None:
        return places[0] if len({self.options[place] for place in places}) == 1 else None

    def _of_letter(self, letter: str) -> int | None:
        """The place of a letter; None if there is no such option."""
        place = ascii_uppercase.find(letter.upper()) if len(letter) == 1 else -1
        return place if 0 <= place < len(self.options) else None

    def _of_letter_or_word(self, letter: str) -> int | None:
        same = _same(letter, self.options) if len(letter) == 1 and not self.by_letter else []
        return same[0] if same else self._of_letter(letter)

    def _at(self, start: int) -> _Target | None:
        """What a text names from a place on: the words of an option, or a letter."""
        words = self._words_at(self.text, start)
        letter = _LETTER.match(self.text, start)
        if letter is None or (words is not None and words.end > letter.end()):
            return words
        place = self._of_letter_or_word(letter[1] or letter[2])
        if place is None:
            return words
        behind = re.compile(r"[*_]*[.):,\]–—-]*[*_]*\s*").match(self.text, letter.end())
        rest = self._words_at(self.text, behind.end()) if behind else None
        if rest is not None and rest.place != place and "," not in (behind[0] if behind else ""):
            return _Target(None, rest.end)
        return _Target(place, letter.end())

    def _words_at(self, text: str, start: int) -> _Target | None:
        """The longest option whose words are there, behind an article maybe."""
        article = _ARTICLE.match(text, start)
        for begin in (start, article.end() if article else start):
            for place in self._longest_first:
                if hit := self._patterns[place].match(text, begin):
                    same = _same(hit[0], self.options)
                    return _Target(self._one(same) if same else place, hit.end())
        return None

    def _named(self) -> Iterator[tuple[int, _Target]]:
        """Every letter and every option's words in the text."""
        for match in re.finditer(rf"(?<!{_W})(?<!['’&-])\w", self.text):
            if (target := self._at(match.start())) is not None:
                yield match.start(), target

    def _is_denied(self, start: int, end: int) -> bool:
        before = self.text[max(0, start - _LOOK_BACK) : start]
        return bool(_NOT.search(before) or _WRONG.match(self.text, end))

    def _is_one_of_several(self, target: _Target) -> bool:
        """Whether another one follows: `B or C`, `A, B and D`; `B or blue` may be the same."""
        match = _OR.match(self.text, target.end)
        if match is None:
            return False
        behind = re.compile(_OPENING).match(self.text, match.end())
        other = self._at(behind.end()) if behind else None
        if "or" in match[0].split() and other is None:
            return True
        return other is not None and other.place != target.place

    def _has_several(self) -> bool:
        """Whether letters are listed side by side."""
        for match in _ALONE.finditer(self.text):
            target = _Target(self._of_letter(match[1] or match[2]), match.end())
            if target.place is None:
                continue
            joint = _OR.match(self.text, match.end())
            behind = re.compile(_OPENING).match(self.text, joint.end()) if joint else None
            other = _SURE.match(self.text, behind.end()) if behind else None
            if other and self._of_letter(other[1] or other[2]) not in (None, target.place):
                return True
        return False

    @cached_property
    def _longest_first(self) -> list[int]:
        return sorted(range(len(self.options)), key=lambda place: -len(self.options[place]))

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        """The words of each option, wherever they stand whole."""
        return [
            re.compile(
                _edge_before(words)
                + (_joint(words).join(map(re.escape, words.split())) or "(?!)")
                + _edge_behind(words),
                re.IGNORECASE if len(words) > 1 or not words.isalpha() else 0,
            )
            for words in map(_without_article, self.options)
        ]
