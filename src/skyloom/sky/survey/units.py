"""One spelling for each unit of pixel values, whatever the header writes."""

# Spellings met in real headers, in lower case. Left out on purpose: an upper-case MJY, which may be milli or mega.
_UNITS = {
    "jy/beam": "Jy/beam",
    "jy/bm": "Jy/beam",
    "jy beam-1": "Jy/beam",
    "jy beam^-1": "Jy/beam",
    "beam-1 jy": "Jy/beam",
    "jy/pixel": "Jy/pixel",
    "jy/pix": "Jy/pixel",
    "jy": "Jy",
    "ujy/beam": "uJy/beam",
    "ujy": "uJy",
    "njy": "nJy",
    "k": "K",
    "adu": "adu",
    "count": "count",
    "counts": "count",
    "electron": "electron",
    "electrons": "electron",
}


def normalised_unit(unit: object) -> str | None:
    """Return the one spelling of a unit that skyloom uses; unknown units are returned as found, empty ones as None."""
    text = " ".join(str(unit).split()) if unit is not None else ""
    if text.startswith("m") and text[1:].lower() in _UNITS and text[1:2] in "Jj":
        return "m" + _UNITS[text[1:].lower()]
    return _UNITS.get(text.lower(), text) or None
