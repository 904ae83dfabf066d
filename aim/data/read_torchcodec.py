"""Reads video files with torchcodec, which needs FFmpeg's shared libraries on the system."""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from aim.data.video import BadVideo, Pick, in_span, picked, scaled
from aim.errors import UserError
