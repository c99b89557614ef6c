"""What trainings and hubs put around a model: folders, keys, prefixes, copies, companions and heads."""
