"""``compress recipe``: the recipes that come with the tool."""

import click

from compressor.recipe import Recipe, shipped_recipes


@click.command(short_help="List the shipped recipes, or print one.")
@click.argument("name", required=False)
def recipe(name: str | None) -> None:
    """Print the recipe NAME (a shipped one or a file) in full, or list those that are shipped.

    Use one with "compress MODEL --recipe NAME"; change it with --set or an editor.
    """
    if name is not None:
        click.echo(Recipe.read(name).to_toml(), nl=False)
        return
    for item in shipped_recipes():
        loaded = Recipe.read(item)
        data = f" on {loaded.data.spec}" if loaded.data else ""
        click.echo(f"{item}: {loaded.arch or 'any network'}{data}")
