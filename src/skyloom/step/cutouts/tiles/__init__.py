"""step=cutouts for surveys whose images come as tiles with one file per band."""
