"""Images of any number, read from where they lie and run through artifacts in their order."""
