"""Folds on a command line."""

from pathlib import Path

import pytest

from aim.ground.folds import expanded, is_fold, name_of
from aim.shell.words import quoted
from tests.data.test_lists import write
from tests.messages import refused


def test_all_folds_are_a_sweep() -> None:
    assert expanded(["data.fold=all/3", "a=1"]) == ["-m", "a=1", "data.fold=1/3,2/3,3/3"]
    assert expanded(["--multirun", "data.fold=all/2"]) == ["--multirun", "data.fold=1/2,2/2"]
    for words in (["data.fold=2/3"], ["data.folds=x", "data.fold=1"], ["data.folds=null"], ["--help"]):
        assert expanded(words) == words


def test_a_folder_says_how_many_folds_there_are(tmp_path: Path) -> None:
    for number in (2, 1, 10):
        write(tmp_path / "folds" / f"fold{number:02}_train.txt", "")
    words = [f"data.root={tmp_path}", "data.folds=folds"]
    assert expanded(words) == ["-m", *words, "data.fold=1,2,10"]
    assert expanded([*words, "data.fold=all"]) == ["-m", *words, "data.fold=1,2,10"]
    with refused("data.folds=", "fold1_train.txt", "fold1_val.txt"):
        expanded([f"data.folds={tmp_path}/nowhere"])


def test_folds_are_found_below_a_path_in_quotes(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path / "O'Brien, Pat" / "folds" / f"fold{number}.txt", "")
    words = [quoted(f"data.root={tmp_path}/O'Brien, Pat"), quoted("data.folds=folds")]
    assert expanded(words) == ["-m", *words, "data.fold=1,2"]


@pytest.mark.parametrize("word", ["all", "all/1", "all/x", "all10/"])
def test_folds_without_their_number_are_refused(word: str) -> None:
    with refused(f"data.fold={word}", "data.fold=all/10", "data.folds=DIR"):
        expanded([f"data.fold={word}"])


def test_a_fold_has_a_folder() -> None:
    assert [name_of(fold) for fold in ("3/10", 3)] == ["fold3of10", "fold3"]
    assert is_fold(Path("x/fold3of10"))
    assert not is_fold(Path("folds"))
