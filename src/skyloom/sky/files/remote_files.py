"""Which files of an image or tile a server has, and at which address."""

from collections.abc import Sequence
from urllib.parse import quote

from skyloom.errors import ConfigError, unknown_choice
from skyloom.sky.files.remote_list import SAFE_NAME
from skyloom.sky.survey.facts import Survey


def remote_files(
    survey: Survey, names: Sequence[str], files: Sequence[str], base_url: str
) -> dict[tuple[str, str], str]:
    """Addresses of the files to fetch.

    Parameters
    ----------
    survey
        With ``tiles.remote``, `files` are kinds of files of a tile, and an image means one file per band. Without, they
        are names of files in a folder of each image's name.
    names
        Of images or tiles.
    files
        What to fetch of each.
    base_url
        Address above all.

    Returns
    -------
    dict
        (name, file name) to address; grouped by name, in the order of `files` and of the bands.

    Raises
    ------
    ConfigError
        The survey says of no such kind of file, or two files of a tile would have one name.
    """
    if survey.tiles is None:
        return {(name, file): f"{base_url}/{quote(name, safe='+')}/{quote(file, safe='+')}"
                for name in names for file in files}  # fmt: skip
    remote = survey.tiles.remote
    if not remote:
        raise ConfigError(f"survey={survey.name} does not say where its tiles can be downloaded (survey.tiles.remote).")
    for kind in files:
        if kind not in remote:
            raise unknown_choice("files", kind, remote)
    urls: dict[tuple[str, str], str] = {}
    for name in names:
        for kind in files:
            bands = [band.name for band in survey.bands] if "{band}" in remote[kind] else [""]
            for band in bands:
                path = remote[kind].replace("{tile}", name).replace("{band}", band)
                file = path.rpartition("/")[2]
                if not SAFE_NAME.fullmatch(file):
                    raise ConfigError(f"survey.tiles.remote.{kind}: {file!r} cannot be the name of a file on any disk.")
                if (name, file) in urls:
                    raise ConfigError(f"survey.tiles.remote: two files of tile {name} would be called {file}.")
                urls[name, file] = f"{base_url}/{quote(path, safe='/+')}"
    return urls
