"""Small invented exports of annotation tools, in the tools' formats."""

import json
from pathlib import Path

import av
import numpy as np
import pytest

from aim.data.labels import several
from aim.data.lists import Lists, Video
from aim.data.sources.cvat import CVAT
from aim.data.sources.detected import Auto
from aim.data.sources.feral import FERAL
from aim.data.sources.label_studio import LabelStudio
from aim.data.sources.table import Table
from aim.data.sources.via import VIA
from tests.data.test_lists import write
from tests.messages import named, refused

VIA_HEAD = """# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)
# Notes:
# SHAPE_ID = {"POINT":1,"RECTANGLE":2}
# FLAG_ID = {"RESERVED_FOR_FUTURE":1}
# ATTRIBUTE = {"1":{"aname":"act","anchor_id":"FILE1_Z2_XY0","type":4,"options":{"0":"hug","1":"kick"}},"2":{"aname":"who","type":1,"options":{}}}
# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata
"""  # noqa: E501
CVAT_XML = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task><id>7</id><name>first</name><size>10</size><mode>interpolation</mode><source>clip1.avi</source></task>
    <dumped>2026-01-01 10:00:00.000000+00:00</dumped>
  </meta>
  <track id="0" label="person" source="manual">
    <box frame="0" keyframe="1" outside="0" occluded="0" xtl="1.0" ytl="2.0" xbr="3.0" ybr="4.0" z_order="0">
      <attribute name="action">walk</attribute>
    </box>
    <box frame="3" keyframe="1" outside="0" occluded="0" xtl="1.0" ytl="2.0" xbr="3.0" ybr="4.0" z_order="0">
      <attribute name="action">wave</attribute>
    </box>
    <box frame="5" keyframe="1" outside="1" occluded="0" xtl="1.0" ytl="2.0" xbr="3.0" ybr="4.0" z_order="0">
      <attribute name="action">wave</attribute>
    </box>
  </track>
  <track id="1" label="dog" source="manual">
    <polygon frame="8" keyframe="1" outside="0" occluded="0" points="1,2;3,4;5,6" z_order="0"></polygon>
    <polygon frame="9" keyframe="1" outside="0" occluded="0" points="1,2;3,4;5,6" z_order="0"></polygon>
  </track>
</annotations>
"""


def film(path: Path, frames: int = 10, rate: int = 10) -> None:
    """A video of grey frames."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate)
        stream.width = stream.height = 32
        for _ in range(frames):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 99, np.uint8))))
        output.mux(stream.encode())


def parts(lists: Lists) -> list[tuple[str, float | None, float | None, list[str]]]:
    """All videos by path and time, with the names of their labels."""
    found = sorted((v.path, v.start, v.end, [lists.classes[i] for i in v.labels]) for v in lists.videos)
    return [(path, start and round(start, 3), end and round(end, 3), labels) for path, start, end, labels in found]


def test_via_segments_have_the_options_of_an_attribute(tmp_path: Path) -> None:
    for name in ("a b.mp4", "c.mp4"):
        write(tmp_path / "videos" / name, "")
    rows = [
        r'"1_aa","[""file:///home/me/a%20b.mp4""]",0,"[0.5,2.25]","[]","{""1"":""0""}"',
        r'"1_bb","[""a b.mp4""]",0,"[2,3]","[]","{""1"":""1""}"',
        r'"1_cc","[""c.mp4""]",0,"[1.5]","[2,10,20,50,80]","{}"',
        r'"1_dd","[""c.mp4""]",0,"[0,1]","[]","{""1"":""1""}"',
    ]
    file = write(tmp_path / "via.csv", VIA_HEAD + "\n".join(rows) + "\n")
    lists = VIA(0.5, None)(tmp_path)
    assert parts(lists) == [
        ("videos/a b.mp4", 0.5, 2.25, ["hug"]),
        ("videos/a b.mp4", 2.0, 3.0, ["kick"]),
        ("videos/c.mp4", 0.0, 1.0, ["kick"]),
    ]
    named(lists.notes[0], "via.csv", "1")
    assert Auto(1, 0.5)(tmp_path) == lists
    write(
        file,
        VIA_HEAD
        + rows[0].replace('""0""', '""0"",""2"":""me""')
        + "\n"
        + rows[3].replace('""1"":""1""', '""1"":""0""'),
    )
    with refused("via.csv", "act", "who", "format.attribute=NAME"):
        VIA(0.5, None)(tmp_path)
    assert parts(VIA(0.5, "act")(tmp_path))[0][3] == ["hug"]


def test_older_via_files_have_columns_of_times_and_checkboxes_have_several_labels(tmp_path: Path) -> None:
    head = VIA_HEAD.replace('"type":4', '"type":2').replace(
        "flags,temporal_coordinates,spatial_coordinates", "temporal_segment_start,temporal_segment_end"
    )
    rows = [f'"{i}","[""{i}.mp4""]",0.5,2,"{{""1"":""{value}""}}"' for i, value in enumerate(("0,1", "1", "0"))]
    write(tmp_path / "via.csv", head + "\n".join(rows))
    assert parts(several(VIA(0.5, None)(tmp_path))) == [
        ("0.mp4", 0.5, 2.0, ["hug", "kick"]),
        ("1.mp4", 0.5, 2.0, ["kick"]),
        ("2.mp4", 0.5, 2.0, ["hug"]),
    ]


def test_cvat_tracks_are_parts_by_the_times_of_their_frames(tmp_path: Path) -> None:
    film(tmp_path / "clip1.avi")
    write(tmp_path / "task1" / "annotations.xml", CVAT_XML)
    film(tmp_path / "clip2.avi")
    write(tmp_path / "task2" / "annotations.xml", CVAT_XML.replace("clip1", "clip2"))
    lists = CVAT(0.5, None)(tmp_path)
    assert parts(lists)[:2] == [("clip1.avi", 0.0, 0.5, ["person"]), ("clip1.avi", 0.8, 1.0, ["dog"])]
    assert len(lists.train) == len(lists.val) == 2
    assert Auto(1, 0.5)(tmp_path) == lists
    of_attribute = CVAT(0.5, "action")(tmp_path)
    assert parts(of_attribute)[:2] == [("clip1.avi", 0.0, 0.3, ["walk"]), ("clip1.avi", 0.3, 0.5, ["wave"])]
    (tmp_path / "clip2.avi").unlink()
    with refused("task2/annotations.xml", "clip2.avi", str(tmp_path)):
        CVAT(0.5, None)(tmp_path)
    write(tmp_path / "task2" / "annotations.xml", CVAT_XML.replace("<source>clip1.avi</source>", ""))
    with refused("task2/annotations.xml", "meta/task/source"):
        CVAT(0.5, None)(tmp_path)


def test_label_studio_spans_and_choices_are_read_of_both_exports(tmp_path: Path) -> None:
    for name in ("a.mp4", "b c.mp4", "0123abcd-d.mp4", "e.mp4"):
        write(tmp_path / name, "")

    def task(number: int, video: str, *values: dict[str, object], cancelled: bool = False) -> dict[str, object]:
        results = [{"value": value, "from_name": "x", "to_name": "video", "id": "q"} for value in values]
        return {
            "id": number, "data": {"video": video},
            "annotations": [{"id": 1, "was_cancelled": cancelled, "result": results}],
        }  # fmt: skip

    span = {"ranges": [{"start": 1, "end": 48}], "timelinelabels": ["run"]}
    box = {"labels": ["dog"], "sequence": [{"frame": 1, "x": 1, "time": 0.0}], "framesCount": 9, "duration": 1.0}
    tasks = [
        task(1, "/data/upload/1/0a1b2c3d-a.mp4", span, box),
        task(2, "/data/local-files/?d=mine/b%20c.mp4", {"choices": ["run", "jump"]}),
        task(3, "s3://bucket/0123abcd-d.mp4", {"start": 0.5, "end": 2.5, "channel": 0, "labels": ["jump"]}),
        task(4, "/data/upload/1/0a1b2c3d-e.mp4", span, cancelled=True),
    ]
    write(tmp_path / "project-1-at-2026.json", json.dumps(tasks))
    lists = several(LabelStudio(0.5, 24.0)(tmp_path))
    expected = [
        ("0123abcd-d.mp4", 0.5, 2.5, ["jump"]),
        ("a.mp4", 0.0, 2.0, ["run"]),
        ("b c.mp4", None, None, ["jump", "run"]),
    ]
    assert parts(lists) == expected
    named(lists.notes[0], "1")
    named(lists.notes[1], "format.frame_rate=24")
    assert parts(LabelStudio(0.5, 48.0)(tmp_path))[1][2] == 1.0
    least = [
        {"video": tasks[0]["data"]["video"], "id": 1, "annotator": 1, "lead_time": 9.1, "actions": [span]},
        {"video": tasks[1]["data"]["video"], "id": 2, "kind": {"choices": ["run", "jump"]}},
        {"video": tasks[2]["data"]["video"], "id": 3, "tricks": [{"start": 0.5, "end": 2.5, "labels": ["jump"]}]},
    ]  # fmt: skip
    write(tmp_path / "project-1-at-2026.json", json.dumps(least))
    assert parts(several(Auto(1, 0.5)(tmp_path))) == expected
    write(tmp_path / "project-1-at-2026.json", json.dumps([{"id": 1, "annotations": [], "data": {"text": "x"}}]))
    with refused("project-1-at-2026.json", "1"):
        LabelStudio(0.5, 24.0)(tmp_path)
    with refused("format.frame_rate=0"):
        LabelStudio(0.5, 0.0)


def test_feral_frames_with_the_same_labels_are_parts(tmp_path: Path) -> None:
    film(tmp_path / "a.avi")
    film(tmp_path / "b.avi", rate=5)
    found = {
        "class_names": {"0": "other", "1": "groom", "2": "run"}, "is_multilabel": False,
        "splits": {"train": ["a.avi"], "val": ["b.avi"], "test": [], "inference": ["c.avi"]},
        "labels": {"a.avi": [1] * 4 + [0] * 6, "b.avi": [2] * 10},
    }  # fmt: skip
    write(tmp_path / "labels.json", json.dumps(found))
    lists = FERAL(0.5)(tmp_path)
    assert parts(lists) == [
        ("a.avi", 0.0, 0.4, ["groom"]),
        ("a.avi", 0.4, 1.0, ["other"]),
        ("b.avi", 0.0, 2.0, ["run"]),
    ]
    assert [video.path for video in lists.val] == ["b.avi"]
    assert Auto(1, 0.5)(tmp_path) == lists
    several_a_frame = [[0, 1, 1]] * 2 + [[0, 0, 0]] * 8
    write(
        tmp_path / "labels.json", json.dumps(found | {"labels": {"a.avi": several_a_frame, "b.avi": [[0, 0, 1]] * 10}})
    )
    assert [labels for *_, labels in parts(several(FERAL(0.5)(tmp_path)))] == [["groom", "run"], [], ["run"]]


@pytest.mark.parametrize(
    "text",
    [
        "start,end,label\n0.5,2,hug\n2,3,kick\n",
        "Begin Time - ss.msec\tEnd Time - ss.msec\tDuration - ss.msec\tAnnotation\n0.5\t2\t1.5\thug\n2\t3\t1\tkick\n",
        "begin time,end time,class\n0:00.5,0:00:02,hug\n00:00:02.000,00:00:03.000,kick\n",
    ],
)
def test_a_table_of_times_and_labels_is_of_the_video_of_its_name(tmp_path: Path, text: str) -> None:
    for name in ("p1/take.avi", "p2/take.avi"):
        write(tmp_path / name, "")
        write((tmp_path / name).with_suffix(".csv"), text)
    lists = Table(0.5)(tmp_path)
    assert parts(lists) == [
        (path, start, end, [label])
        for path in ("p1/take.avi", "p2/take.avi")
        for start, end, label in ((0.5, 2.0, "hug"), (2.0, 3.0, "kick"))
    ]
    named(lists.notes[0], "p1/take.csv", "path='p1/take.avi'")
    (tmp_path / "p1" / "take.avi").unlink()
    with refused("p2/take.csv", "split"):  # the other is a table of nothing
        Table(0.5)(tmp_path)


def test_behaviours_as_boris_exports_them_are_a_table(tmp_path: Path) -> None:
    head = "Observation id,Observation date,Media file name,FPS,Subject,Behavior,Behavior type,Start (s),Stop (s)\n"
    rows = "o1,2026-01-01,a.mp4,25,Kim,hug,STATE,1.5,3\no2,2026-01-01,b.mp4,25,Lee,hug,STATE,0,2\n"
    lists = Table(0.5)(write(tmp_path / "events.csv", head + rows).parent)
    assert sorted(lists.videos) == [Video("a.mp4", 0, 1.5, 3.0), Video("b.mp4", 0, 0.0, 2.0)]
    assert lists.groups == {"a.mp4": "Kim", "b.mp4": "Lee"}
