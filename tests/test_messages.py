from pathlib import Path

import pytest

from aim.ground.errors import UserError
from tests.messages import named, refused, unnamed

TEXT = "train.batch_size=12 can't be divided among 8 ranks in /tmp/run/a.mp4; use train.batch_size=16 (1.5 GB)"


@pytest.mark.parametrize(
    "piece",
    ["train.batch_size=12", "train.batch_size", "8", "1.5", "a.mp4", "/tmp/run", "ranks", "train.batch_size=16"],
)
def test_a_piece_that_is_there_passes(piece: str) -> None:
    named(TEXT, piece)
    with refused(piece):
        raise UserError(TEXT)
    with pytest.raises(AssertionError):
        unnamed(TEXT, piece)


@pytest.mark.parametrize(
    "piece", ["train.batch_size=1", "batch_siz", "1", "5", "2", ".mp3", "tmp/run/b", "rank", "train.batch_size=160"]
)
def test_a_piece_that_is_missing_or_stands_only_within_another_word_fails(piece: str) -> None:
    unnamed(TEXT, piece)
    for pieces in ((piece,), ("a.mp4", piece), (piece, "a.mp4")):
        with pytest.raises(AssertionError, match="missing in"):
            named(TEXT, *pieces)
        with pytest.raises(AssertionError, match="missing in"), refused(*pieces):
            raise UserError(TEXT)


def test_another_error_and_none_fail() -> None:
    with pytest.raises(ValueError, match="x=1"), refused("x=1"):
        raise ValueError("x=1")
    with pytest.raises(pytest.fail.Exception), refused("x=1"):
        pass
    with refused("x=1", error=ValueError) as caught:
        raise ValueError("x=1")
    assert caught.type is ValueError


@pytest.mark.parametrize(
    "prose",
    [
        "can't be divided", "the disk is full", "among 8 ranks", "train.batch_size=12 can't", "use train.batch_size=16",
        "ranks in", "delete it", "another job, or none", " 8", "",
    ],
)  # fmt: skip
def test_english_is_no_piece(prose: str) -> None:
    for check in (named, unnamed):
        with pytest.raises(AssertionError, match=r"English|space"):
            check(f"of train.batch_size=16 {prose} {TEXT}", prose)
    with pytest.raises(AssertionError, match=r"English|space"), refused(prose):
        raise UserError(f"{prose} {TEXT}")


def test_no_piece_at_all_checks_nothing_and_is_refused() -> None:
    with pytest.raises(AssertionError, match="name the pieces"):
        named(TEXT)


@pytest.mark.parametrize(
    "code",
    ["--array=1-1", "b 4 3 32 32", "'Dropping [something]'", "input=x output=y", "/a/b.mp4 /c/d.mp4", "QuickGELU"],
)
def test_code_is_a_piece(code: str) -> None:
    named(f"give {code}, as said", code)


def test_a_path_is_a_piece(tmp_path: Path) -> None:
    named(f"{tmp_path} can't be written", f"{tmp_path}")
