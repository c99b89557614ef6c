"""Names of the nodes that compute what follows from the size of the images, where that is open."""

from __future__ import annotations

SCOPE = "image_size"
"""What the names of these nodes begin with."""
SIDES = ("height", "width")
MUST_BE = "_must_be_a_multiple_of_"
"""After a side, the name of the node that counts its patches, and fails where there is no whole number of them."""
COUNTS = tuple(f"{side}{MUST_BE}" for side in SIDES)
