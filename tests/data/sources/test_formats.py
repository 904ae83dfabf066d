import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from aim.data.lists import Video
from aim.data.sources.charades import Charades
from aim.data.sources.detected import Auto
from aim.data.sources.diving48 import Diving48
from aim.data.sources.epic_kitchens import EpicKitchens
from aim.data.sources.hmdb51 import HMDB51
from aim.data.sources.kinetics import Kinetics
from aim.data.sources.mmaction2 import MMAction2
from aim.data.sources.something_something import SomethingSomething
from aim.data.sources.ucf101 import UCF101
from aim.ground import config
from tests.messages import refused

AUTO = Auto(split=1, val_share=0.5)
HEADER = "label,youtube_id,time_start,time_end,split\n"


def write(path: Path, content: Any = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def kinetics(root: Path, folder: str = "annotations") -> None:
    write(
        root / folder / "train.csv", HEADER + 'zumba,-aB_c-12345,3,13,train\n"air, drumming",0123456789a,10,20,train\n'
    )
    write(root / folder / "val.csv", HEADER + "zumba,_zzzzzzzzzz,100,110,validate\n")
    write(root / folder / "test.csv", "youtube_id,time_start,time_end,split\nqqqqqqqqqqq,0,10,test\n")


@pytest.mark.parametrize(
    "folders", [("train", "val"), ("train/air drumming", "val/zumba"), ("k400/videos_train", "k400")]
)
def test_kinetics_finds_videos_by_name_in_any_layout(tmp_path: Path, folders: tuple[str, str]) -> None:
    kinetics(tmp_path)
    write(tmp_path / folders[0] / "0123456789a_000010_000020.mp4")
    write(tmp_path / folders[1] / "_zzzzzzzzzz_000100_000110.mkv")
    lists = AUTO(tmp_path)
    assert lists == Kinetics()(tmp_path)
    assert lists.classes == ["air, drumming", "zumba"]
    assert lists.train == [
        Video("train/-aB_c-12345_000003_000013.mp4", 1),  # missing: where CVDF has it
        Video(f"{folders[0]}/0123456789a_000010_000020.mp4", 0),
    ]
    assert lists.val == [Video(f"{folders[1]}/_zzzzzzzzzz_000100_000110.mkv", 1)]


def test_replacements_of_corrupted_kinetics_files_go_first(tmp_path: Path) -> None:
    kinetics(tmp_path, ".")
    for folder in ("train", "replacement/replacement_for_corrupted_k400"):
        write(tmp_path / folder / "0123456789a_000010_000020.mp4")
    found = Kinetics()(tmp_path).train[1].path
    assert found == "replacement/replacement_for_corrupted_k400/0123456789a_000010_000020.mp4"


def test_a_link_to_a_folder_is_followed_once(tmp_path: Path) -> None:
    kinetics(tmp_path / "root")
    write(tmp_path / "disk" / "0123456789a_000010_000020.mp4")
    (tmp_path / "root" / "train").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "loop").symlink_to(tmp_path / "root")
    assert Kinetics()(tmp_path / "root").train[1].path == "train/0123456789a_000010_000020.mp4"


def test_kinetics_says_which_csv_is_missing_or_odd(tmp_path: Path) -> None:
    kinetics(tmp_path)
    write(tmp_path / "val_old.csv", HEADER + "x,y,1,2,z\n")
    with refused("val", "annotations/val.csv", "val_old.csv"):
        Kinetics()(tmp_path)
    (tmp_path / "val_old.csv").unlink()
    (tmp_path / "annotations" / "val.csv").write_text(HEADER + "yoga,_zzzzzzzzzz,1,11,validate\n")
    with refused("CSV", "yoga"):
        Kinetics()(tmp_path)
    (tmp_path / "annotations" / "val.csv").unlink()
    with refused("annotations/val.csv", "data/README.md"):
        Kinetics()(tmp_path)


@pytest.mark.parametrize("prefix", ["something-something-v2-", "labels/"])
def test_something_something_takes_brackets_out_of_templates(tmp_path: Path, prefix: str) -> None:
    write(tmp_path / f"{prefix}labels.json", {"Holding something": "1", "Closing something": "0", "Été": "2"})
    write(tmp_path / f"{prefix}train.json", [{"id": "7", "template": "Holding [something]", "label": "holding a pen"}])
    write(tmp_path / f"{prefix}validation.json", [{"id": "8", "template": "Été"}, {"id": "9", "template": "Été"}])
    write(tmp_path / "20bn-something-something-v2" / "7.webm")
    write(tmp_path / "more" / "9.mp4")
    lists = AUTO(tmp_path)
    assert lists.classes == ["Closing something", "Holding something", "Été"]
    assert lists.train == [Video("20bn-something-something-v2/7.webm", 1)]
    assert lists.val == [Video("20bn-something-something-v2/8.webm", 2), Video("more/9.mp4", 2)]
    write(tmp_path / f"{prefix}train.json", [{"id": "7", "template": "Dropping [something]"}])
    with refused("'Dropping [something]'"):
        SomethingSomething()(tmp_path)


def test_diving48_takes_the_second_version_alone(tmp_path: Path) -> None:
    write(tmp_path / "Diving48_train.json", [{"vid_name": "a", "label": 1}])
    write(tmp_path / "Diving48_vocab.json", [["Back", "15som", "05Twis", "FREE"], ["Inward", "Dive", "NoTwis", "PIKE"]])
    with refused("Diving48_V2_train.json"):
        AUTO(tmp_path)
    entries = [{"vid_name": "_8Vy_00000", "label": 1, "start_frame": 0, "end_frame": 132}]
    write(tmp_path / "Diving48_V2_train.json", entries)
    write(tmp_path / "Diving48_V2_test.json", [{"vid_name": "b", "label": 0}])
    write(tmp_path / "rgb" / "_8Vy_00000.mp4")
    lists = AUTO(tmp_path)
    assert lists.classes == ["Back 15som 05Twis FREE", "Inward Dive NoTwis PIKE"]
    assert (lists.train, lists.val) == ([Video("rgb/_8Vy_00000.mp4", 1)], [Video("rgb/b.mp4", 0)])
    write(tmp_path / "Diving48_V2_test.json", [{"vid_name": "b", "label": 2}])
    with refused("Diving48_V2_test.json", "2", "classes"):
        Diving48()(tmp_path)


def test_ucf101_has_three_splits(tmp_path: Path) -> None:
    lists = tmp_path / "ucfTrainTestlist"
    write(lists / "classInd.txt", "1 Archery\n2 YoYo\n")
    for split in (1, 2, 3):
        write(lists / f"trainlist0{split}.txt", f"YoYo/v_YoYo_g0{split}_c01.avi 2\nArchery/v_Archery_g01_c01.avi 1\n")
        write(lists / f"testlist0{split}.txt", "Archery/v_Archery_g02_c01.avi\n")
    write(tmp_path / "UCF-101" / "YoYo" / "v_YoYo_g02_c01.avi")
    found = UCF101(split=2)(tmp_path)
    assert found.classes == ["Archery", "YoYo"]
    assert found.train == [Video("UCF-101/YoYo/v_YoYo_g02_c01.avi", 1), Video("Archery/v_Archery_g01_c01.avi", 0)]
    assert found.val == [Video("Archery/v_Archery_g02_c01.avi", 0)]
    assert AUTO(tmp_path) == UCF101(split=1)(tmp_path) != found
    with refused("split=4", "1", "2", "3"):
        config.build({"split": 4}, UCF101)


def test_hmdb51_leaves_out_what_is_in_neither_half(tmp_path: Path) -> None:
    splits = tmp_path / "testTrainMulti_7030_splits"
    for split in (1, 3):
        write(splits / f"wave_test_split{split}.txt", "a(1)_f_nm.avi 1 \nb.avi 2 \nc.avi 0 \n")
        write(splits / f"brush_hair_test_split{split}.txt", f"b.avi {1 if split == 1 else 2} \n")
    for folder in ("brush_hair", "wave"):  # one name, two videos
        write(tmp_path / "hmdb51" / folder / "b.avi")
    assert AUTO(tmp_path) == HMDB51(split=1)(tmp_path)
    assert HMDB51(split=1)(tmp_path).train == [Video("hmdb51/brush_hair/b.avi", 0), Video("wave/a(1)_f_nm.avi", 1)]
    assert HMDB51(split=3)(tmp_path).val == [Video("hmdb51/brush_hair/b.avi", 0), Video("hmdb51/wave/b.avi", 1)]
    with refused("*_test_split2.txt"):
        HMDB51(split=2)(tmp_path)


def test_mmaction2_lists_name_their_classes_by_label_map_folder_or_number(tmp_path: Path) -> None:
    write(tmp_path / "k_train_list_videos.txt", "wave hands/a b.mp4 0\njump/c.mp4 1\n")
    write(tmp_path / "k_val_list_videos.txt", "jump/d.mp4 1\nwave hands/e 120 0\n")
    write(tmp_path / "videos_train" / "wave hands" / "a b.mp4")
    lists = AUTO(tmp_path)
    assert lists.train == [Video("videos_train/wave hands/a b.mp4", 0), Video("jump/c.mp4", 1)]
    assert lists.val == [Video("jump/d.mp4", 1), Video("wave hands/e", 0)]
    assert lists.classes == ["wave hands", "jump"]
    write(tmp_path / "label_map_k.txt", "waving\njumping\n")
    assert MMAction2()(tmp_path).classes == ["waving", "jumping"]
    (tmp_path / "label_map_k.txt").unlink()
    write(tmp_path / "k_val_list_videos.txt", "jump/d.mp4 0\n")
    assert MMAction2()(tmp_path).classes == ["0", "1"]
    write(tmp_path / "k_val_list_videos.txt", "jump/d.mp4\n")
    with refused("k_val_list_videos.txt:1", "'jump/d.mp4'"):
        MMAction2()(tmp_path)


def test_mmaction2_takes_the_listed_file_and_no_other_of_its_name(tmp_path: Path) -> None:
    write(tmp_path / "my_train_list.txt", "p1/c/001.mp4 0\np2/c/001.mp4 1\nA/002.mp4 0\nsome_class/003.mp4 1\n")
    write(tmp_path / "my_val_list.txt", "C/002.mp4 2\n")
    for name in ("p1/c/001.mp4", "p2/c/001.mp4", "C/002.mp4", "some class/003.webm"):
        write(tmp_path / name)
    lists = MMAction2()(tmp_path)
    assert lists.train[:2] == [Video("p1/c/001.mp4", 0), Video("p2/c/001.mp4", 1)]
    assert lists.train[2] == Video("A/002.mp4", 0)  # missing: the other 002 is another video
    assert lists.train[3] == Video("some class/003.webm", 1)
    assert lists.val == [Video("C/002.mp4", 2)]


def test_hmdb51_takes_no_video_of_another_class(tmp_path: Path) -> None:
    write(tmp_path / "run_test_split1.txt", "b c.avi 1\n")
    write(tmp_path / "wave_test_split1.txt", "d.avi 2\n")
    write(tmp_path / "wave/b c.avi")
    assert HMDB51(split=1)(tmp_path).train == [Video("run/b c.avi", 0)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("zumba,a,,10\n", ["train", "CSV", "'time_start': ''"]),
        ("zumba,a\n", ["train", "CSV", "'time_start'"]),
        ("", ["CSV", "video", "data/README.md"]),
    ],
)
def test_a_kinetics_csv_with_bad_rows_is_an_error(tmp_path: Path, rows: str, expected: list[str]) -> None:
    for split in ("train", "val"):
        write(tmp_path / f"{split}.csv", "label,youtube_id,time_start,time_end\n" + rows)
    with refused(*expected):
        Kinetics()(tmp_path)


def test_auto_takes_annotations_before_our_lists_before_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(4):
            write(tmp_path / name / f"{i}.mp4")
    assert len(AUTO(tmp_path).val) == 4
    for name, text in (("train", "a/0.mp4 0\n"), ("val", "b/0.mp4 1\n"), ("classes", "a\nb\n")):
        write(tmp_path / f"{name}.txt", text)
    assert AUTO(tmp_path).val == [Video("b/0.mp4", 1)]
    kinetics(tmp_path)
    assert AUTO(tmp_path).classes == ["air, drumming", "zumba"]
    write(tmp_path / "classInd.txt", "1 a\n")
    with refused("kinetics", "ucf101", "format=NAME"):
        AUTO(tmp_path)


def test_a_folder_of_nothing_known_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "readme.txt")
    with refused("format=NAME", "annotations"):
        AUTO(tmp_path)
    with refused("data.root=", "nowhere", "data/README.md"):
        AUTO(tmp_path / "nowhere")


@pytest.mark.parametrize("line", ["a/1.mp4 1 3", "a/1.mp4 1,3", "b/frames 120 1 3"])
def test_several_labels_in_a_list_of_mmaction2_are_refused(tmp_path: Path, line: str) -> None:
    write(tmp_path / "b" / "frames.mp4")
    write(tmp_path / "x_train_list.txt", f"a/0.mp4 0\n{line}\n")
    write(tmp_path / "x_val_list.txt", "a/2.mp4 0\n")
    with refused("x_train_list.txt:2", f"'{line}'", "1", "3"):
        AUTO(tmp_path)


def test_several_labels_in_other_annotations_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "ucf" / "classInd.txt", "1 a\n2 b\n")
    for part in ("train", "test"):
        write(tmp_path / "ucf" / f"{part}list01.txt", "a/1.avi 1 2\n")
    with refused("trainlist01.txt", "'a/1.avi 1 2'"):
        UCF101(1)(tmp_path / "ucf")
    write(tmp_path / "Diving48_vocab.json", [["a"], ["b"]])
    for part in ("train", "test"):
        write(tmp_path / f"Diving48_V2_{part}.json", [{"vid_name": "x", "label": [0, 1]}])
    with refused("Diving48_V2_train.json", "[0, 1]"):
        Diving48()(tmp_path)


def test_hidden_annotations_are_left(tmp_path: Path) -> None:
    kinetics(tmp_path)
    for folder in ("annotations", ".old"):
        write(tmp_path / folder / "._train.csv", HEADER)
    write(tmp_path / ".old" / "train.csv", HEADER)
    assert Kinetics()(tmp_path).classes == ["air, drumming", "zumba"]


def test_a_file_is_found_however_its_accents_are_written(tmp_path: Path) -> None:
    listed, there = (unicodedata.normalize(form, "\u00e9") for form in ("NFC", "NFD"))
    write(tmp_path / "x_train_list.txt", f"a/{listed}.mp4 0\nb/1.mp4 1\n")
    write(tmp_path / "x_val_list.txt", "a/2.mp4 0\n")
    write(tmp_path / "videos" / "a" / f"{there}.mp4")
    assert MMAction2()(tmp_path).train[0].path == f"videos/a/{there}.mp4"


def charades(root: Path) -> None:
    head = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
    write(root / "Charades_v1_classes.txt", "c000 Holding some clothes\nc001 Putting clothes, somewhere\n")
    write(
        root / "Charades" / "Charades_v1_train.csv",
        head + 'AB12C,XYZ1,Bedroom,6,7,Yes,"A person, ""sits""",bed,Sits.,c001 11.90 21.20;c000 0.00 12.60,24.83\n'
        "0BH84,XYZ2,Kitchen,6,7,No,Empty.,,Nothing.,,30.10\n",
    )
    write(root / "Charades" / "Charades_v1_test.csv", head + "ZZZZ9,XYZ3,Bath,5,7,Yes,S.,a,D.,c000 5.00 9.00,12.0\n")


def test_charades_has_several_labels_a_video_or_none_and_actions_as_parts(tmp_path: Path) -> None:
    charades(tmp_path)
    write(tmp_path / "Charades_v1_480" / "0BH84.mp4")
    lists = AUTO(tmp_path)
    assert lists.classes == ["Holding some clothes", "Putting clothes, somewhere"]
    assert [(video.path, video.labels) for video in lists.videos] == [
        ("Charades_v1_480/AB12C.mp4", (0, 1)),
        ("Charades_v1_480/0BH84.mp4", ()),
        ("Charades_v1_480/ZZZZ9.mp4", (0,)),
    ]
    parts = Charades(parts=True)(tmp_path)
    assert [video[1:4] for video in parts.train] == [(1, 11.9, 21.2), (0, 0.0, 12.6)]
    write(tmp_path / "Charades" / "Charades_v1_test.csv", "id,actions\nZZZZ9,c157 0 1\n")
    with refused("Charades_v1_test.csv", "ZZZZ9", "c157"):
        AUTO(tmp_path)


def test_epic_kitchens_has_verbs_nouns_or_both(tmp_path: Path) -> None:
    head = (
        "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
        "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
    )
    row = "{0}_1,P01,{0},00:00:01.089,00:00:00.14,00:01:03.37,8,202,take plate,take,1,plate,0,"
    row += "\"['plate', 'cup']\",\"[0, 1]\"\n"
    write(tmp_path / "EPIC_100_train.csv", head + row.format("P01_01"))
    write(tmp_path / "EPIC_100_validation.csv", head + row.format("P01_11"))
    write(tmp_path / "EPIC_100_verb_classes.csv", "id,key,instances,category\n1,take,['take'],a\n0,put,['put'],a\n")
    write(tmp_path / "EPIC_100_noun_classes.csv", "id,key,instances,category\n0,plate,['plate'],a\n")
    write(tmp_path / "EPIC_100_noun_classes_v2.csv", "id,key,instances,category\n0,plate,['plate'],a\n")
    write(tmp_path / "raw" / "P01_01.MP4")
    lists = AUTO(tmp_path)
    assert (lists.classes, lists.train) == (["put", "take"], [Video("raw/P01_01.MP4", 1, 0.14, 63.37)])
    assert lists.val == [Video("P01/videos/P01_11.MP4", 1, 0.14, 63.37)]
    assert EpicKitchens("noun")(tmp_path).classes == ["plate"]
    both = EpicKitchens("both")(tmp_path)
    assert (both.classes, both.train[0].labels) == (["verb put", "verb take", "noun plate"], (1, 2))
    write(tmp_path / "EPIC_100_noun_classes.csv", "id,key\n1,plate\n")
    with refused("EPIC_100_noun_classes.csv"):
        EpicKitchens("noun")(tmp_path)
