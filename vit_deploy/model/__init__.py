"""Where is the Keras side? `vit.py` is the model, the other files are the layers it is made of."""
