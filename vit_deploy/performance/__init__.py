"""How fast an artifact runs on this machine."""
