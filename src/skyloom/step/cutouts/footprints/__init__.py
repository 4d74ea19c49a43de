"""step=cutouts match=ID: what another survey shows of the cutouts of a survey with bands."""
