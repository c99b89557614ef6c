"""A Typer program of two commands and nothing else, whose `--help` no program of Typer's is faster than."""

import typer

app = typer.Typer()


@app.command()
def one(name: str) -> None:
    """Print a name."""
    typer.echo(name)


@app.command()
def two(count: int = 1) -> None:
    """Print a number."""
    typer.echo(count)


if __name__ == "__main__":
    app()
