"""The command ``nst assets``."""

from __future__ import annotations

import sys

import click

from .. import assets as door


@click.group()
def assets() -> None:
    """Networks and pictures from outside: list, fetch, verify."""


@assets.command("list")
def assets_list() -> None:
    """Show every asset: in the cache or not, size, licence, source."""
    click.echo(f"cache: {door.cache_dir()}")
    cached = door.cached()
    for asset in map(door.info, door.names()):
        mark, origin = "cached" if asset.name in cached else "-", asset.sources[0].title
        click.echo(f"{asset.name:<32} {mark:<7} {asset.bytes / 2**20:8.1f} MiB  {asset.licence:<34} {origin}")


@assets.command("fetch")
@click.argument("names", nargs=-1, required=True)
@click.option("--count", type=click.IntRange(1), default=60, show_default=True, help="faces: how many.")
@click.option("--size", type=click.IntRange(1), default=256, show_default=True, help="faces: pixels a side.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="faces: another, others.")
def assets_fetch(names: tuple[str, ...], count: int, size: int, seed: int) -> None:
    """Fetch the named assets into the cache, and verify them.

    The name "faces" draws a folder of portraits that are nobody's; it goes on where it was interrupted.
    """
    for name in names:
        if name != "faces":
            door.info(name)  # a mistyped name is told before anything is downloaded
    for name in names:
        if name == "faces":
            from ..faces import generated
            from ..nets import hardware

            hardware.keep_freed_memory()
            click.echo(f"{name}: {generated.cached(count, size, seed)}")
        else:
            click.echo(f"{name}: {door.fetch(name)}")


@assets.command("verify")
@click.argument("names", nargs=-1)
def assets_verify(names: tuple[str, ...]) -> None:
    """Hold cached files to their digests; with no NAMES, all that are in the cache."""
    results = door.verify(names or None)
    for name, good, message in results:
        click.echo(f"{'ok  ' if good else 'BAD '} {name:<32} {message}")
    if not results:
        click.echo("The cache is empty; `nst assets fetch vgg19` fills it.")
    sys.exit(0 if all(good for _, good, _ in results) else 1)
