"""The ViT as a Keras 3 model: `vit.py` is its class, `passes.py` what it computes; the rest is mostly layers."""
