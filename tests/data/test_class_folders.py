import os
import unicodedata
from pathlib import Path

import pytest

from aim.data.class_folders import ClassFolders, splits_named
from aim.data.list_files import ListFiles
from aim.data.lists import Lists, Video
from tests.data.test_lists import FILES, write
from tests.messages import named, refused

FOLDERS = ClassFolders(0.5)


def made(root: Path, *files: str) -> Lists:
    """The lists of a folder of empty files."""
    for name in files:
        write(root / name, "")
    return FOLDERS(root)


def test_class_folders_are_split_reproducibly_and_nothing_is_written(tmp_path: Path) -> None:
    for name, count in (("jump", 10), ("run fast", 5), ("rare", 1)):
        for i in range(count):
            write(tmp_path / name / f"{i}.MP4", "")
    write(tmp_path / "jump" / "notes.txt", "")
    write(tmp_path / ".hidden" / "x.mp4", "")
    before = sorted(tmp_path.rglob("*"))
    lists = ClassFolders(val_share=0.2)(tmp_path)
    assert lists == ClassFolders(val_share=0.2)(tmp_path)
    assert lists.classes == ["jump", "rare", "run fast"]
    assert [sum(v.label == i for v in lists.val) for i in range(3)] == [2, 0, 1]
    assert len(lists.train) + len(lists.val) == 16
    assert not {v.path for v in lists.train} & {v.path for v in lists.val}
    assert sorted(tmp_path.rglob("*")) == before


def test_a_new_video_moves_no_other_between_the_halves(tmp_path: Path) -> None:
    for name in "ab":
        for i in range(40):
            write(tmp_path / name / f"{i}.mp4", "")
    before = {v.path for v in ClassFolders(0.25)(tmp_path).val}
    write(tmp_path / "a" / "new.mp4", "")
    after = {v.path for v in ClassFolders(0.25)(tmp_path).val}
    assert len(before ^ after) <= 2


def test_train_and_val_folders_and_list_files_are_taken_as_they_are(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in "ab":
            write(tmp_path / split / name / f"{split}.mp4", "")
    lists = ClassFolders(0.5)(tmp_path)
    assert lists.val == [Video("val/a/val.mp4", 0), Video("val/b/val.mp4", 1)]
    write(tmp_path / "train.txt", "x.mp4 0\n")
    write(tmp_path / "val.txt", "y.mp4 1\n")
    write(tmp_path / "classes.txt", "p\nq\n")
    assert ClassFolders(0.5)(tmp_path).classes == ["p", "q"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a/1.mp4"], ["1", "folders"]),
        (["a/1.mp4", "b/2\n.mp4"], ["b/2", "UTF-8"]),
        (["a/1.mp4", "b/caf\udce9.mp4"], ["b/caf\\udce9.mp4", "UTF-8"]),
        (["train/a/1.mp4", "train/b/1.mp4", "val/c/1.mp4"], ["classes", "train", "c"]),
        (["a/1.mp4", "b/1.mp4"], ["validation", "val"]),
    ],
)
def test_folders_that_make_no_data_set_are_refused(tmp_path: Path, files: list[str], expected: list[str]) -> None:
    for name in files:
        write(tmp_path / name, "")
    with refused(*expected):
        ClassFolders(0.5)(tmp_path)


@pytest.mark.parametrize("held_out", ["val", "validation", "valid", "test"])
def test_the_folder_beside_train_has_several_names(tmp_path: Path, held_out: str) -> None:
    for name in ("train/a/1.mp4", "train/b/2.mp4", f"{held_out}/a/3.mp4", f"{held_out}/b/4.mp4"):
        write(tmp_path / name, "")
    lists = ClassFolders(0.2)(tmp_path)
    assert lists.classes == ["a", "b"]
    assert [video.path for video in lists.val] == [f"{held_out}/a/3.mp4", f"{held_out}/b/4.mp4"]


def test_a_third_list_is_for_the_test_alone(tmp_path: Path) -> None:
    for name, text in (("classes", "a\nb\n"), ("train", "1.mp4 0\n"), ("val", "2.mp4 1\n")):
        write(tmp_path / f"{name}.txt", text)
    lists = FILES(tmp_path)
    assert (lists.third, lists.test, list(lists.parts)) == (None, lists.val, ["train", "val"])
    write(tmp_path / "test.txt", "3.mp4 1\n")
    lists = FILES(tmp_path)
    assert lists.test == lists.parts["test"] == [Video("3.mp4", 1)]
    assert ClassFolders(0.5)(tmp_path) == lists
    assert ListFiles("train.txt", "val.txt", "classes.txt", test=None)(tmp_path).third is None
    assert ListFiles("train.txt", "test.txt", "classes.txt")(tmp_path).third is None  # it validates
    changed = lists.mapped(lambda videos: videos * 2)
    assert [len(videos) for videos in changed.parts.values()] == [2, 2, 2]
    write(tmp_path / "test.txt", "3.mp4\n")
    with refused("test.txt:1", "'3.mp4'", "rename"):
        FILES(tmp_path)


@pytest.mark.parametrize("held_out", ["val", "valid", "validation"])
def test_a_folder_test_beside_that_of_the_validation_is_a_third_list(tmp_path: Path, held_out: str) -> None:
    for split in ("train", held_out, "test"):
        for name in "ab":
            write(tmp_path / split / name / "1.mp4", "")
    lists = ClassFolders(0.5)(tmp_path)
    assert lists.val == [Video(f"{held_out}/a/1.mp4", 0), Video(f"{held_out}/b/1.mp4", 1)]
    assert lists.test == [Video("test/a/1.mp4", 0), Video("test/b/1.mp4", 1)]
    write(tmp_path / "test" / "c" / "1.mp4", "")
    with refused("test", "c"):
        ClassFolders(0.5)(tmp_path)


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("Train", "Test", ""),
        ("training", "VALIDATION", ""),
        ("TRAIN", "Dev", "testing"),
        ("train", "valid", "Test"),
        ("set1_train", "set1-val", ""),
        ("TrainVideos", "TestVideos", ""),
        ("train_split", "eval_split", "test_split"),
    ],
)
def test_split_folders_are_known_by_their_usual_names_in_any_case(
    tmp_path: Path, train: str, val: str, test: str
) -> None:
    folders = [name for name in (train, val, test) if name]
    lists = made(tmp_path, *(f"{folder}/{name}/1.mp4" for folder in folders for name in "ab"))
    assert lists.classes == ["a", "b"]
    assert [video.path for part in lists.parts.values() for video in part[:1]] == [
        f"{name}/a/1.mp4" for name in folders
    ]
    named(lists.split, *folders)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["train/a/1.mp4", "train/b/1.mp4"], ["train", "val", "validation", "valid", "dev", "test", "data.root="]),
        (["Val/a/1.mp4", "test/b/1.mp4"], ["Val", "test", "train"]),
        (["car/1.mp4", "bus/1.mp4", "train/1.mp4"], ["train", "val"]),
        (["train/a/1.mp4", "Training/a/1.mp4", "val/a/1.mp4"], ["train", "Training"]),
        (["train/Jump/1.mp4", "train/b/1.mp4", "val/jump/1.mp4"], ["val", "jump", "Jump"]),
    ],
)
def test_half_of_a_split_is_refused_with_what_was_found(tmp_path: Path, files: list[str], expected: list[str]) -> None:
    with refused(*expected):
        made(tmp_path, *files)


def test_what_is_left_is_counted_and_named(tmp_path: Path) -> None:
    files = ["a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4", "b/3.xyz", "c/readme", "loose.mp4", "a/._1.mp4", "notes.txt"]
    hidden = ["a/.ipynb_checkpoints/1-checkpoint.mp4", "a/deep/.x/3.mp4", ".git/4.mp4"]
    for i in range(4):
        (tmp_path / "c").mkdir(exist_ok=True)
        (tmp_path / "c" / f"{i}.mp4").symlink_to(tmp_path / "absent" / f"{i}.mp4")
    (tmp_path / "c" / "itself.mp4").symlink_to(tmp_path / "c" / "itself.mp4")
    lists = made(tmp_path, *files, *hidden, "b/train/4.mp4")
    assert (lists.classes, len(lists.train) + len(lists.val)) == (["a", "b"], 5)
    text = "\n".join(lists.notes)
    named(text, "5", "(c/0.mp4, c/1.mp4,", "4", "(.git, a/._1.mp4,", "2", "(1 .xyz,", "1", "(loose.mp4)", "b/train")
    named(text, str(tmp_path / "c"))


def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    write(tmp_path / "disk" / "3.mp4", "")
    write(tmp_path / "root" / "a" / "1.mp4", "")
    (tmp_path / "root" / "a" / "more").symlink_to(tmp_path / "disk")
    (tmp_path / "root" / "b").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "a" / "here").symlink_to(tmp_path / "root" / "a")
    lists = made(tmp_path / "root", "a/2.mp4")
    paths = sorted(video.path for video in (*lists.train, *lists.val))
    assert paths == ["a/1.mp4", "a/2.mp4", "a/more/3.mp4", "b/3.mp4"]
    named("\n".join(lists.notes), "a/here", "a/more/back", "b/back")


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.scandir

    def scandir(path: Path) -> object:
        if path == tmp_path / "a" / "closed":
            raise PermissionError
        return original(path)

    made(tmp_path, "a/1.mp4", "a/closed/2.mp4", "b/1.mp4", "b/2.mp4")
    monkeypatch.setattr(os, "scandir", scandir)
    named("\n".join(FOLDERS(tmp_path).notes), "1 (a/closed)")


def test_nothing_is_said_of_a_folder_that_is_all_taken(tmp_path: Path) -> None:
    assert made(tmp_path, "a/1.mp4", "a/2.mp4", "b/sub/1.mp4", "b/sub/2.mp4").notes == ()


def test_names_are_the_same_however_accents_are_written(tmp_path: Path) -> None:
    one, other = (unicodedata.normalize(form, "café") for form in ("NFD", "NFC"))
    lists = made(tmp_path / "split", *(f"{part}/1.mp4" for part in (f"train/{one}", "train/b", f"val/{other}")))
    assert (lists.classes, lists.val) == (["b", one], [Video(f"val/{other}/1.mp4", 1)])
    named("\n".join(lists.notes), "val", other)
    lists = made(tmp_path / "flat", *(f"{name}/{i}.mp4" for i in range(2) for name in (one, other, "b")))
    assert len(lists.classes) == 2
    named("\n".join(lists.notes), other)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["train.txt", "classes.txt"], ["val.txt", "train.txt", "classes.txt", "data.val=FILE"]),
        (["Val.txt"], ["train.txt", "classes.txt", "Val.txt"]),
        (["train.txt", "valid.txt"], ["classes.txt", "train.txt", "valid.txt"]),
    ],
)
def test_a_list_without_its_partner_is_refused(tmp_path: Path, files: list[str], expected: list[str]) -> None:
    for name in files:
        write(tmp_path / name, "a\n" if name == "classes.txt" else "a/1.mp4 0\n")
    with refused(*expected):
        made(tmp_path, "a/1.mp4", "b/1.mp4")


def test_classes_of_other_names_than_the_folders_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "classes.txt", "b\na\n")
    assert made(tmp_path, "a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4").classes == ["a", "b"]
    write(tmp_path / "classes.txt", "b\nc\n")
    with refused("classes.txt", "a", "c"):
        FOLDERS(tmp_path)


def test_a_table_beside_the_folders_is_offered(tmp_path: Path) -> None:
    write(tmp_path / "annotations.csv", "path,start,end,label\na/1.mp4,0,1,jump\n")
    write(tmp_path / "sizes.csv", "path,bytes\na/1.mp4,0\n")
    (note,) = made(tmp_path, "a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4").notes
    named(note, "annotations.csv", "data.train=annotations.csv")


def test_a_table_with_a_split_goes_before_the_folders(tmp_path: Path) -> None:
    write(tmp_path / "all.csv", "video,class,split\na/1.mp4,jump,train\nb/1.mp4,jump,val\n")
    lists = made(tmp_path, "a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4")
    assert (lists.classes, lists.train, lists.val) == (["jump"], [Video("a/1.mp4", 0)], [Video("b/1.mp4", 0)])
    named(lists.split, str(tmp_path / "all.csv"))


def test_a_table_beside_folders_that_are_no_classes_is_taken(tmp_path: Path) -> None:
    write(tmp_path / "all.csv", "video;class\n1.mp4;jump\n2.mp4;run\n3.mp4;jump\n4.mp4;run\n")
    lists = made(tmp_path, *(f"videos/{i}.mp4" for i in range(1, 5)))
    assert lists.classes == ["jump", "run"]
    assert [len(part) for part in (lists.train, lists.val)] == [2, 2]


def test_folders_whose_names_may_be_one_class_are_said(tmp_path: Path) -> None:
    lists = made(tmp_path, *(f"{name}/{i}.mp4" for name in ("Push", "push", "pull") for i in (1, 2)))
    assert lists.classes == ["Push", "pull", "push"]
    named(lists.notes[0], "Push", "push")


def test_a_word_of_a_split_in_one_class_makes_no_split(tmp_path: Path) -> None:
    names = ("test_drive", "train_arriving", "validation")
    assert splits_named(names[:2]) == {}
    assert splits_named(names) == {"validation": "val"}
