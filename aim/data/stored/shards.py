"""Videos in tar files, "shards", in WebDataset's naming, each with an index beside it.

A sample is the files of a tar with the same name up to its first dot: `a/KEY.mp4`, and its label `a/KEY.cls`. Ours are
named by the paths in the lists; in a file's name all dots but the last are written %2E. An index, `NAME.tar.tsv`,
has the range of bytes of each video, so that reading a video is reading a range of a file.
"""

import json
import logging
import re
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from aim.data.lists import Lists, Stored, Video, labels_in, spread
from aim.data.readers.interface import Part, Source
from aim.data.scanning import is_video_name
from aim.ground.errors import UserError
from aim.ground.foreign import reading

log = logging.getLogger(__name__)

AGAIN = "copy both again, or delete the wrong one, and aim.prepare makes it again"
LABEL_KEYS = ("label", "cls", "class")  # of a sample's JSON, by preference


class Entry(NamedTuple):
    """A video of a shard: its range of bytes, the time of its source in seconds, and its label, if any."""

    path: str
    offset: int
    size: int
    mtime: int
    label: str


def find(root: Path) -> list[Path]:
    """The tar files in the root or a folder of it, not deeper. Raises UserError for an index whose tar isn't there."""
    there = [path for depth in ("", "[!.]*/") for path in root.glob(f"{depth}[!.]*.tar*")]
    shards = sorted(path for path in there if path.suffix == ".tar" and path.is_file())
    if lost := {path for path in there if path.name.endswith(".tar.tsv")} - {*map(index_of, shards)}:
        raise UserError(
            f"{min(lost).with_suffix('')} is missing, though its index is there, and so are {len(lost) - 1} others; "
            "copy them, or delete their indexes too, and aim.prepare makes them again"
        )
    return shards


def index_of(shard: Path) -> Path:
    """Where the index of a shard lies."""
    return shard.with_name(f"{shard.name}.tsv")


def member_name(path: str) -> str:
    """The name in a shard of the video that lists call `path`; `unquote` reverses it."""
    pure = PurePosixPath(path)
    stem = pure.stem.replace("%", "%25").replace(".", "%2E")
    return pure.with_name(f"{stem}{pure.suffix}").as_posix()


def key_of(name: str) -> str:
    """The common part of the names of a sample's files."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def entries(shard: Path) -> list[Entry]:
    """The videos of a shard by its index, or where it has none by reading the tar's headers, which takes longer."""
    if (index := index_of(shard)).exists():
        return read_index(shard, index)
    log.warning("%s has no index and is read through; aim.prepare data.root=DIR writes it", shard)
    return scan(shard)


def format_index(size: int, found: Sequence[Entry]) -> str:
    """The text of the index of a shard of so many bytes."""
    rows = (f"{e.offset}\t{e.size}\t{e.mtime}\t{e.label}\t{_as_cell(e.path)}\n" for e in found)
    return f"bytes\t{size}\tvideos\t{len(found)}\n{''.join(rows)}"


def _as_cell(path: str) -> str:
    """A path in the last cell of a line: as it is, or as a JSON string where it would break the line."""
    return json.dumps(path) if re.search(r"[\n\r\ud800-\udfff]", path) else path


def _of_cell(text: str) -> str:
    """The path that `_as_cell` wrote; those of videos end in no quotation mark."""
    return str(json.loads(text)) if text.startswith('"') and text.endswith('"') else text


def read_index(shard: Path, index: Path) -> list[Entry]:
    """The entries of the index. Raises UserError if it's broken, or the shard isn't the one that it was made of."""
    with reading(index, "the index of a shard", AGAIN):
        head, *lines = index.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        _, size, _, count = head.split("\t")
        rows = [line.split("\t", 4) for line in lines]
        found = [
            Entry(_of_cell(path), int(offset), int(n), int(mtime), label) for offset, n, mtime, label, path in rows
        ]
        expected, complete = int(size), len(found) == int(count)
    if not complete:
        raise UserError(f"{index} is cut off: {len(found)} of {count} videos; {AGAIN}")
    if (there := shard.stat().st_size) != expected:
        raise UserError(
            f"{shard} has {there} bytes, by its index {expected}: it is cut off, or the index is another's; {AGAIN}"
        )
    for entry in (*found[:1], *found[-1:]):
        _check_header(shard, entry)
    return found


def _check_header(shard: Path, entry: Entry) -> None:
    """Raise UserError if the tar's header before a video's bytes isn't that of a file of its size."""
    with shard.open("rb") as file:
        file.seek(max(0, entry.offset - tarfile.BLOCKSIZE))
        block = file.read(tarfile.BLOCKSIZE)
    try:
        size = tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape").size
    except tarfile.HeaderError:
        size = -1
    if size != entry.size:
        raise UserError(
            f"{shard} has no video of {entry.size} bytes at byte {entry.offset}, as its index says: it is damaged, or "
            f"the index is another's; {AGAIN}"
        )


def scan(shard: Path) -> list[Entry]:
    """The videos of a tar, whoever made it. Raises UserError if it's damaged, or has a video twice."""
    labels: dict[str, str] = {}
    videos: dict[str, tarfile.TarInfo] = {}
    with (
        reading(shard, "a plain tar that is neither cut off nor damaged", "copy or make it again"),
        tarfile.open(shard, "r:") as tar,
    ):
        for member in tar:
            name = member.name.removeprefix("./")
            pure = PurePosixPath(name)
            if not member.isfile() or any(part.startswith(".") for part in pure.parts):
                continue
            if is_video_name(name):
                if name in videos:
                    raise UserError(f"{shard} holds {name} twice; make it again with one")
                videos[name] = member
            elif pure.suffix in (".cls", ".json") and (file := tar.extractfile(member)):
                label = _label(file.read(), pure.suffix, f"{shard}: {name}")
                if label and (pure.suffix == ".cls" or key_of(name) not in labels):
                    labels[key_of(name)] = label
    return [
        Entry(unquote(name), member.offset_data, member.size, int(member.mtime), labels.get(key_of(name), ""))
        for name, member in videos.items()
    ]


def _label(content: bytes, suffix: str, place: str) -> str:
    """The label that a sample's file names: a number or a name; nothing where it names none.

    Raises UserError for several.
    """
    text = content.decode(errors="replace").strip()
    if suffix == ".json":
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return ""
        names = [found[key] for key in LABEL_KEYS if found.get(key) is not None] if isinstance(found, dict) else []
        several = names[0] if names and isinstance(names[0], list) else []
        text = str(several[0] if len(several) == 1 else names[0]).strip() if names else ""
    else:
        several = labels_in(text, {})
    if len(several) > 1:
        named = " and ".join(map(str, several))
        raise UserError(f"{place} has {len(several)} labels, {named}; a video has one: keep that")
    return text.replace("\t", " ").replace("\n", " ")


class Places:
    """The places of the videos of a root's shards, by their path in the shard, or by the shard's name and that path."""

    def __init__(self, root: Path, shards: Iterable[Path]) -> None:
        self.found: dict[str, Stored] = {}
        self.qualified: dict[str, Stored] = {}  # in others' shards each may count its videos from 0
        self.twice: dict[str, str] = {}  # path -> a second shard that has it
        self.labels: dict[Stored, str] = {}  # where a sample has none, the folder of its video in the tar
        for shard in shards:
            name = shard.relative_to(root).as_posix()
            for entry in entries(shard):
                stored = Stored(name, entry.offset, entry.size)
                if self.found.setdefault(entry.path, stored) is not stored:
                    self.twice[entry.path] = name
                self.qualified[f"{name.removesuffix('.tar')}/{entry.path}"] = stored
                self.labels[stored] = entry.label or PurePosixPath(entry.path).parent.name

    def __getitem__(self, path: str) -> Stored | None:
        if path in self.twice:
            raise UserError(
                f"{path} is in two shards, {self.found[path].shard} and {self.twice[path]}; take it out of one, or "
                "move one of them away"
            )
        return self.found.get(path) or self.qualified.get(path)

    def named(self) -> dict[str, Stored]:
        """Each video by its path, or where several shards use that, by the one with the shard's name before it."""
        alone = {stored: path for path, stored in self.found.items() if path not in self.twice}
        return {alone.get(stored, path): stored for path, stored in self.qualified.items()}


def located(root: Path, lists: Lists) -> Lists:
    """The lists with the place of each video in the root's shards, where it has any and the videos are in them.

    Raises UserError for a shard that is damaged, whose index is another one's, and for a video that is in two.
    """
    if all(video.stored or (root / video.path).exists() for video in spread(lists.train)) or not (shards := find(root)):
        return lists
    places = Places(root, shards)
    return lists.mapped(lambda videos: [video._replace(stored=places[video.path]) for video in videos])


def source_of(root: Path, video: Video) -> Source:
    """The file, or part of one, that a reader opens."""
    if video.stored is None:
        return root / video.path
    shard, offset, size = video.stored
    return Part(root / shard, offset, size, video.path)
