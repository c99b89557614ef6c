"""Values and NumPy code that everything else stands on."""
