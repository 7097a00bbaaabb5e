"""NABirds (Van Horn et al. 2015): its files have the layout of CUB-200-2011, without sentences.

classes.txt names the whole tree of birds; the classes are its 555 leaves, those that photos are listed with. Class ids
are places in the numerical order of the published ids of these, and so the same for every copy.
"""

from __future__ import annotations

from shards.sources.cub import CLASSES, CubSource


class NABirdsSource(CubSource):
    """Records and images of an NABirds folder: class samples."""

    name = "nabirds"
    layout = "a folder in the layout of nabirds"
    needed = (*CubSource.needed, CLASSES)  # its folders are called after numbers
