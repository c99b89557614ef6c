"""The dialect of timm and of models that share its names."""
