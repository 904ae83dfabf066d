"""Reads video files with torchcodec, which needs FFmpeg's shared libraries on the system."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aim.data.readers.drawing import display_matrix, first_frame, is_quarter_turn
from aim.data.readers.interface import BadVideo, Choice, Pick, Source, url
from aim.data.readers.packets import Clock, family, is_start, is_whole, may_turn, order_doubt, video_packets
from aim.data.readers.pyav import opened
from aim.ground.errors import UserError


@dataclass(frozen=True)
class TorchCodec:
    """Reads MP4, MOV, Matroska and WebM; all others are BadVideo.

    torchcodec finds frames by their time stamps, which FFmpeg makes up for other containers: frames of an AVI file with
    reordered frames come out wrong. Raises UserError if torchcodec or its FFmpeg can't be loaded.
    """

    def __call__(self, path: Source, pick: Pick, *, span: tuple[float, float] | None = None) -> Tensor:
        """See `video.Reader`."""
        decoder_class = _decoder_class()
        with opened(path) as (container, stream):
            if family(container) not in ("mov", "matroska"):
                raise BadVideo(f"{path}: torchcodec can't be trusted with {container.format.name}; use reader=pyav")
            pts, starts, times = list[int](), list[bool](), list[int]()
            turned, clock = False, Clock(stream)
            for packet in video_packets(container, stream):
                if packet.pts is None or not is_whole(packet, stream):
                    raise BadVideo(f"{path}: a packet is broken or has no time stamp; use reader=pyav")
                if packet.is_keyframe and not is_start(packet, stream):
                    raise BadVideo(f"{path}: torchcodec can't be trusted with H.264's open groups; use reader=pyav")
                turned = turned or (not pts and may_turn(packet, stream))
                clock(packet.pts * clock.base, packet.duration)
                pts.append(packet.pts)
                starts.append(packet.is_keyframe)
                if not packet.is_discard:
                    times.append(packet.pts)
            if len(set(pts)) < len(pts) or clock.broke:
                raise BadVideo(f"{path}: time stamps that are equal, fall back or jump ahead; use reader=pyav")
            if pts and stream.codec_context.name == "h264":
                doubt = order_doubt(container, stream, np.array(pts), np.array(starts))
                if doubt:
                    raise BadVideo(f"{path}: torchcodec can't be trusted with it: {doubt}; use reader=pyav")
            frame = first_frame(container, stream)
            matrix = frame and display_matrix(frame)
            if matrix and (turned or not is_quarter_turn(matrix)):
                raise BadVideo(f"{path}: torchcodec doesn't turn or mirror frames as the file asks; use reader=pyav")
            base, stream_index = clock.base, stream.index
        try:
            decoder = decoder_class(url(path), stream_index=stream_index, num_ffmpeg_threads=1, seek_mode="exact")
            if len(decoder) != len(times):
                raise BadVideo(f"{path}: torchcodec counts {len(decoder)} frames of {len(times)}; use reader=pyav")
            unique, back = np.unique(Choice(path, pick, span)(np.array(times, np.float64) * base), return_inverse=True)
            frames: Tensor = decoder.get_frames_at(unique.tolist()).data
        except (RuntimeError, ValueError, IndexError) as error:
            if isinstance(error, BadVideo):
                raise
            raise BadVideo(f"{path}: torchcodec: {str(error).splitlines()[0]}") from error
        return frames[torch.from_numpy(back)]


def _decoder_class() -> Any:
    try:
        from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined]
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(
            "reader=torchcodec: torchcodec or FFmpeg's shared libraries can't be loaded; install both "
            '(pip install "aim-video[torchcodec]", apt-get install ffmpeg) or use reader=pyav'
        ) from error
    return VideoDecoder
