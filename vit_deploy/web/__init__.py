"""Pages that run a model in a browser, and what they are made of."""
