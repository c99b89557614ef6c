"""The lines of a program that runs an artifact in its plain engine, one format a file."""
