"""Places on this machine's disk for what is on its way to a store or comes from one."""

from __future__ import annotations

import os
import stat
import tempfile
from hashlib import sha256

from layerprobe.errors import OutputError
from layerprobe.stores.urls import name_of, shown


def scratch_path(url: str) -> str:
    """Give the path of what will be uploaded to a URL: the same one each time, in `$TMPDIR`.

    Raises:
        OutputError: It cannot be made, or somebody else could write there.
    """
    owner = os.geteuid() if hasattr(os, "geteuid") else 0
    top = os.path.join(tempfile.gettempdir(), f"layerprobe-{owner}")
    folder = os.path.join(top, sha256(shown(url).rstrip("/").encode()).hexdigest()[:16])
    for place in (top, folder):
        try:
            os.makedirs(place, 0o700, exist_ok=True)
            found = os.lstat(place)
        except OSError as error:
            raise OutputError(
                f"there is no place for {shown(url)!r} before it is uploaded: {place!r}: {error.strerror}; "
                "set TMPDIR to a folder of your own."
            ) from error
        if not stat.S_ISDIR(found.st_mode) or (hasattr(os, "geteuid") and found.st_uid != owner):
            raise OutputError(f"{place!r} is somebody else's: set TMPDIR to a folder of your own.")
    return os.path.join(folder, name_of(url))
