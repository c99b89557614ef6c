"""Android devices that adb reaches, and LiteRT's own program that times a file there."""
