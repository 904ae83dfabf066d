"""Text in pictures, in fonts of this machine with its characters; if none has them, a line names the package."""

import importlib.util
import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path

from PIL import ImageDraw, ImageFont, features

from aim.ground.errors import say

FIRST = "DejaVuSans.ttf"  # which most systems have, with the Latin, Greek, Cyrillic, Hebrew and Arabic scripts
FOLDERS = (".fonts", ".local/share/fonts", "Library/Fonts")  # of a user
SHARED = ("/usr/local/share/fonts", "/usr/share/fonts", "/Library/Fonts", "/System/Library/Fonts")
STYLES = ("bold", "italic", "oblique", "light", "thin", "black", "medium", "heavy", "condensed")  # have a plain sibling
ASIAN = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH", "HALFWIDTH", "IDEOGRAPHIC"}
NOWHERE = "\U000fffff"  # in no font; gives the glyph for missing characters

Font = ImageFont.FreeTypeFont


def write(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    colour: str | tuple[int, ...],
    anchor: str = "ls",
) -> None:
    """Draw a line of text at its anchor, as Pillow names them."""
    x, y = place
    parts = runs(text)
    if len(parts) > 1:  # of different fonts: on one base line
        ascent, descent = font(parts[0][1], size).getmetrics()
        x -= {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]] * width(text, size)
        y += {"a": ascent, "m": (ascent - descent) / 2}.get(anchor[1], 0)
        anchor = "ls"
    for part, file in parts:
        pen.text((x, y), part, colour, font(file, size), anchor)
        x += font(file, size).getlength(part)


def width(text: str, size: int) -> float:
    """The size of a line of text in pixels."""
    return sum(font(file, size).getlength(part) for part, file in runs(text))


def cut(text: str, size: int, room: float, *, keep_end: bool = False) -> str:
    """A text within a width in pixels: its end is cut, or its beginning."""
    if width(text, size) <= room:
        return text
    shorter = (f"...{text[i:].lstrip()}" if keep_end else f"{text[:-i].rstrip()}..." for i in range(1, len(text)))
    return next((each for each in shorter if width(each, size) <= room), "...")


@lru_cache(4096)
def runs(text: str) -> Sequence[tuple[str, str]]:
    """The parts of a text with the font file of each; one part if a single font has all of it."""
    text = unicodedata.normalize("NFC", text)
    if any(unicodedata.bidirectional(character) in ("R", "AL") for character in text):
        check_order()
    found = {character: file_of(character) for character in text}
    whole = next(
        (file for file in dict.fromkeys([first(), *found.values()]) if all(has(file, each) for each in found)), None
    )
    if whole is not None:
        return [(text, whole)]
    files = [found[character] for character in text]
    for i, character in enumerate(text):
        if i and unicodedata.combining(character):  # a mark stays with its letter
            files[i] = files[i - 1]
    parts = groupby(zip(text, files, strict=True), lambda each: each[1])
    return [("".join(character for character, _ in part), file) for file, part in parts]


def files_of(text: str) -> list[str]:
    """The fonts for a text besides the first one."""
    return list(dict.fromkeys(file for character in sorted({*text}) if (file := file_of(character)) != first()))


@cache
def file_of(character: str) -> str:
    """The first font with a character; if none has it, the first of all, with one message per package."""
    if has(first(), character):
        return first()
    found = next((file for file in others() if has(file, character)), None)
    if found is None:
        tell(*package_of(character))
    return found or first()


def package_of(character: str) -> tuple[str, str]:
    """The kind of a character, and Debian's package of fonts for it."""
    script = unicodedata.name(character, "unknown").split(" ")[0]
    if script in ASIAN:
        return "Chinese, Japanese or Korean characters", "fonts-noto-cjk"
    if unicodedata.category(character) in ("So", "Sk", "Cn", "Co"):
        return "emoji and other symbols", "fonts-symbola"
    return f"{script.capitalize()} letters", "fonts-noto-core"


@cache
def tell(kind: str, package: str) -> None:
    """Say once that boxes are drawn."""
    say(f"no font here has {kind}: boxes are drawn for them; install the package {package}, or a like one")


@cache
def check_order() -> None:
    """Say once if right-to-left letters can't be ordered."""
    if not features.check("raqm"):
        say("text that is read from right to left is drawn in reverse order; install the package libfribidi0")


@lru_cache(65536)
def has(file: str, character: str) -> bool:
    """Whether a font has a glyph for a character; invisible ones need none."""
    hidden = unicodedata.category(character) in ("Cc", "Cf") or "\ufe00" <= character <= "\ufe0f"
    if hidden or character.isspace():
        return True
    try:
        own, lacking = (font(file, 16, plain=True).getmask(text) for text in (character, NOWHERE))
    except (OSError, ValueError):  # damaged, or only bitmaps
        return False
    return own.size != lacking.size or bytes(own) != bytes(lacking)


@lru_cache(1024)
def font(file: str, size: int, *, plain: bool = False) -> Font:
    """A font of a file; "" is Pillow's own. A `plain` one neither joins nor reorders."""
    if file:
        return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC if plain else None)
    found = ImageFont.load_default(size)
    assert isinstance(found, Font)
    return found


@cache
def first() -> str:
    """The default font of text: the system's, matplotlib's, or Pillow's own."""
    library = importlib.util.find_spec("matplotlib")
    own = Path(library.origin).parent / "mpl-data" / "fonts" / "ttf" / FIRST if library and library.origin else None
    for file in (FIRST, str(own)):
        try:
            return str(ImageFont.truetype(file, 16).path)
        except OSError:
            continue
    return ""


@cache
def others() -> Sequence[str]:
    """All other fonts of this machine, sans serif before the rest."""
    found = {str(file) for folder in folders() for file in folder.rglob("*") if file.suffix in (".ttf", ".otf", ".ttc")}
    plain = [file for file in found if not any(style in Path(file).name.lower() for style in STYLES)]
    return sorted(plain, key=lambda file: ("sans" not in Path(file).name.lower(), file))


def folders() -> Iterator[Path]:
    """This machine's font folders."""
    yield from (Path(os.environ.get("HOME", "/")) / name for name in FOLDERS)
    yield from map(Path, (*SHARED, f"{sys.prefix}/share/fonts"))
