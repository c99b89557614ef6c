"""The ViT as a Keras 3 model: `vit.py` is the model, the other files are its layers."""
