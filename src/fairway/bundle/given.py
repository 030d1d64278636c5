"""What the bundler fills in: the recipe, and the C sources that it needs. The package's own values are never read."""

from fairway.config import Recipe

RECIPE: Recipe = Recipe(name="none", summary="replaced when a bundle is made")
"""The resolved recipe."""
C_SOURCES: dict[str, str] = {}
"""Text of the C files that the recipe needs, by name."""
