"""The embedded data set: scenes of blocks in the manner of CLEVR-Change, their pictures and their captions."""

from pathlib import Path


def forget_compiled(folder: Path) -> None:
    """Deletes the machine code that numba keeps beside the sources of `folder` where one of them is newer.

    numba looks at the file of a function alone, not at those of the functions it calls: after a change of the geometry
    the pictures would still be made with the old one.
    """
    newest = max(source.stat().st_mtime for source in folder.glob("*.py"))
    for kept in folder.glob("__pycache__/*.nb[ic]"):
        try:
            if kept.stat().st_mtime < newest:
                kept.unlink()
        except FileNotFoundError:  # another process was faster
            continue


forget_compiled(Path(__file__).parent)
