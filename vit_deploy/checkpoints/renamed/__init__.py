"""ViTs of programs whose parts have names of their own: one file a dialect, one reader for all."""
