"""All families of trunks: one is added as a file here and an entry below."""

from aim.models import eva, swin, video_vit, vit
from aim.models.family import Family

FAMILIES: tuple[Family, ...] = (vit.FAMILY, eva.FAMILY, swin.FAMILY, video_vit.FAMILY)
