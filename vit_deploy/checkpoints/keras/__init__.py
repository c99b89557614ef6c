"""The dialects of Keras models."""
