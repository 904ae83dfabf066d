from pathlib import Path

from aim.engine.telling import bad_list


def test_names_that_would_be_misread_are_read_as_they_were_written(tmp_path: Path) -> None:
    bad = {"a\tb.mp4": "not a video", ' "x".mp4': "an empty file", "a b.mp4": "torn\tin two", "line\nbreak.mp4": ""}
    assert bad_list.read(tmp_path) == {}
    bad_list.write(tmp_path, bad)
    assert bad_list.read(tmp_path) == bad
    (tmp_path / bad_list.NAME).write_text("old name.mp4\tno frame\ncut of", encoding="utf-8")
    assert bad_list.read(tmp_path) == {"old name.mp4": "no frame"}
