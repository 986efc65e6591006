"""Words that the tiny tokenizer shall know beside those of the generated world.

Without them a byte-level BPE that learnt its merges from the generated world alone would spell any
other sentence letter by letter, and training on somebody's own text would take several times as
long. Common English words, and what one says about pictures; the roles of a chat are among them.
"""

from __future__ import annotations

from collections.abc import Iterator

ROLES = ("system\n", "user\n", "assistant\n")
#: Lines of a merge's worth: a word has to occur more than once to be learnt.
REPEATS = 40

COMMON = """
the of and a to in is you that it he was for on are with as his they be at one have this from or
had by not but some what there we can out other were all your when up use how said an each she
which do their if will way about many then them would like so these her long make thing see him
two has look more day could go come did my no most who over know than call first may down side
been now find any new part take get place made where after back little only round man year came
show every good give our under name very through just form much great think say help low line
before turn cause same mean differ move right boy old too does tell set three want air well also
play small end put home read hand large add even land here must big high such follow act why ask
men change went light kind off
"""
PICTURES = """
image picture pictures photo shown shows shape shapes object objects circle circles square squares
triangle triangles rectangle rectangles pentagon pentagons hexagon hexagons polygon polygons grid
grids row rows column columns cell cells ring arm arms corner corners side sides edge line lines
spiral red orange yellow green blue purple black white grey gray brown pink dark light darker
lighter top bottom left right middle center inside outside between around above below across
adjacent opposite small medium large smaller larger smallest largest big bigger biggest long short
height width length size sizes color colors colored number numbers numbered count counts sum
product value values digit missing denoted mark question pattern observe based hence thus likely
should therefore because clockwise anti direction alternate increasing decreasing becomes become
same different distinct arranged arrangement overlap overlaps overlapping contains contain formed
reflected progress change step steps think then answer options option choose correct wrong true
false yes no none both either zero one two three four five six seven eight nine ten first second
third fourth last next final north south east west northwest northeast southwest southeast
"""


def lines() -> Iterator[str]:
    """What the tokenizer learns these words from: each as it stands in a sentence."""
    words = (COMMON + PICTURES).split()
    for _ in range(REPEATS):
        yield from ROLES * 10
        for word in dict.fromkeys(words):
            yield f" {word}"
