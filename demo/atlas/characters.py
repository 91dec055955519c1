"""The Unicode database that ships with Python, as the atlas sees it.  No Django in here."""

import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from math import fsum, log
from pathlib import Path

# All names but those of ideographs, of which there are 90,000, are in these planes.
PLANES = (range(0x20000), range(0xE0000, 0xE1000))
BY_RULE = ("CJK ", "HANGUL SYLLABLE ", "TANGUT ", "NUSHU ", "KHITAN ")


def _named() -> Iterator[tuple[int, str]]:
    for code in chain.from_iterable(PLANES):
        name = unicodedata.name(chr(code), "")
        if name and not name.startswith(BY_RULE):
            yield code, name


NAMES = dict(_named())
CODES = list(NAMES)
PLACE = {code: place for place, code in enumerate(CODES)}
WORDS = {code: frozenset(name.replace("-", " ").split()) for code, name in NAMES.items()}
# The rarer a word, the more it says: "SNOWMAN" more than "LETTER".
WEIGHT = {
    word: log(len(NAMES) / count) for word, count in Counter(word for words in WORDS.values() for word in words).items()
}
FAMILIES = Counter(name.split()[0] for name in NAMES.values() if name.split()[0].isalpha())


def label(code: int) -> str:
    """How the atlas writes a character: ``U+2603 SNOWMAN``."""
    return f"U+{code:04X} {NAMES[code]}"


def entry(code: int) -> dict[str, object]:
    """What the database says about one character."""
    char = chr(code)
    return {
        "label": label(code),
        "path": f"/character/{code}/",
        "category": unicodedata.category(char),
        "direction": unicodedata.bidirectional(char),
        "width": unicodedata.east_asian_width(char),
        "numeric": unicodedata.numeric(char, None),
        "decomposition": tuple(unicodedata.decomposition(char).split()),
    }


def neighbours(code: int) -> list[int]:
    """The sixteen named characters around *code*."""
    start = max(0, PLACE[code] - 8)
    return [near for near in CODES[start : start + 17] if near != code][:16]


def similar(code: int) -> list[int]:
    """The eight characters with the most similar names: a look at every name there is."""
    mine = WORDS[code]
    scores = []
    for other, words in WORDS.items():
        if common := mine & words:
            # fsum, because a plain sum depends on the order, and that on the process.
            weight = fsum(WEIGHT[word] for word in common)
            scores.append((weight / (1 + len(mine) + len(words) - 2 * len(common)), -other))
    return [-other for _, other in sorted(scores, reverse=True) if -other != code][:8]


def of_family(word: str) -> list[int]:
    """The first forty characters whose name starts with *word*."""
    return [code for code, name in NAMES.items() if name.split()[0] == word][:40]


def shelf(number: int) -> list[int]:
    """The 24 characters of a shelf."""
    return CODES[400 * number : 400 * number + 24]


LARGEST = [word for word, _ in FAMILIES.most_common(24)]


def census(database: str) -> dict[str, int]:
    """How many names contain the word of each large family: a query that looks at every name again and again."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        count = "SELECT COUNT(*) FROM names WHERE name LIKE '%' || ? || '%'"
        return {word: connection.execute(count, (word,)).fetchone()[0] for word in LARGEST}


def make_database(path: Path) -> None:
    """Write the names into a database."""
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE names (code INTEGER PRIMARY KEY, name TEXT)")
        database.executemany("INSERT INTO names VALUES (?, ?)", NAMES.items())
    database.close()


def census_by_hand() -> dict[str, int]:
    """The same without a database."""
    return {word: sum(word in name for name in NAMES.values()) for word in LARGEST}


def found(text: str) -> list[int]:
    """The characters with *text* in their name."""
    return [code for code, name in NAMES.items() if text in name]
