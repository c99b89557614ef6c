"""TensorFlow as the runtime of SavedModels."""
