"""Features of many videos by Ray Data: an actor a GPU decodes and computes as aim.features does, and writes Parquet.

    python examples/ray_features.py LIST OUT checkpoint=FILE window=2 [KEY=VALUE of aim.features ...]

LIST has a path a line. A lost worker is replaced; the same command continues (Ray's checkpoints, in OUT.done). A row of
OUT: path, feats "w d", seconds "w 2", or the error of a video that can't be read.
"""

import sys
from pathlib import Path
from typing import Any

import pyarrow
import ray
from pyarrow.csv import ParseOptions, ReadOptions
from ray.data.checkpoint import CheckpointConfig

from aim.features.verb import Settings, extracted, prepared
from aim.ground import config

VIDEOS = 8  # of a task, and of a file of OUT: the most that a lost worker's successor repeats
MATRIX = pyarrow.list_(pyarrow.list_(pyarrow.float32()))
ROW = pyarrow.schema([("path", pyarrow.string()), ("feats", MATRIX), ("seconds", MATRIX), ("error", pyarrow.string())])


class Features:
    """A model in a process of its own."""

    def __init__(self, words: list[str]) -> None:
        given = ["workers=0", *words, "input=-", "out=."]  # Ray's own processes decode
        self.settings = config.build(config.compose(given, "features"), Settings)
        self.extractor, _ = prepared(self.settings)

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        rows = list[dict[str, Any]]()
        for path, found in extracted(self.extractor, [*map(Path, batch["path"].to_pylist())], self.settings):
            row = {"error": found} if isinstance(found, str) else {k: v.tolist() for k, v in found._asdict().items()}
            rows.append({"path": str(path), **row})
        return pyarrow.Table.from_pylist(rows, ROW)


def main() -> None:
    listed, out = (Path(word).resolve() for word in sys.argv[1:3])
    ray.init()
    done = CheckpointConfig("path", f"{out}.done", delete_checkpoint_on_success=False)
    ray.data.DataContext.get_current().checkpoint_config = done
    count, gpus = len(listed.read_text().splitlines()), int(ray.cluster_resources().get("GPU", 0))
    paths = ray.data.read_csv(
        str(listed), override_num_blocks=-(-count // VIDEOS), read_options=ReadOptions(column_names=["path"]),
        parse_options=ParseOptions(delimiter="\x01", quote_char=False),
    )  # fmt: skip
    found = paths.map_batches(
        Features, fn_constructor_args=(sys.argv[3:],), batch_format="pyarrow", batch_size=VIDEOS,
        compute=ray.data.ActorPoolStrategy(size=gpus or 1), num_gpus=min(gpus, 1), num_cpus=0,  # left to read and write
    )  # fmt: skip
    found.write_parquet(str(out))


if __name__ == "__main__":
    main()
