"""Which models are compared?"""

from __future__ import annotations

from dataclasses import dataclass

from vit_deploy.core.config import ViTConfig


@dataclass(frozen=True)
class Size:
    """A model that every way of exporting builds for itself, with random weights.

    Args:
        name: of the results' file.
        scale: key of `SCALE_CONFIGS`.
        image_size: (height, width) in pixels.
        patch_size: (height, width) in pixels.
        num_classes: outputs of the head.
    """

    name: str
    scale: str
    image_size: tuple[int, int] = (224, 224)
    patch_size: tuple[int, int] = (16, 16)
    num_classes: int = 1000

    @property
    def config(self) -> ViTConfig:
        """The function, for those who build it in Python."""
        return ViTConfig.from_scale(
            self.scale, image_size=self.image_size, patch_size=self.patch_size, num_classes=self.num_classes
        )

    @property
    def arguments(self) -> list[str]:
        """The same for the command line."""
        height, width = self.image_size
        rows, columns = self.patch_size
        sizes = ["--image-size", f"{height}x{width}", "--patch-size", f"{rows}x{columns}"]
        return [self.scale, *sizes, "--num-classes", str(self.num_classes)]


SIZES = {
    size.name: size
    for size in (
        Size("pico", "pico"),
        Size("tiny", "tiny"),
        Size("base", "base"),
        Size("large", "large"),
        Size("quick", "pico", image_size=(32, 48), patch_size=(16, 8), num_classes=10),
    )
}
