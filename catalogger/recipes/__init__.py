"""WHAT a family needs: the schema of a recipe, the look-up, and the library of recipe files.

Recipes are data.  This room knows nothing of checkpoints or MLflow.
"""

from catalogger.recipes.lookup import NamedRecipe, all_recipes, library, load_recipe
from catalogger.recipes.schema import Recipe

__all__ = ["NamedRecipe", "Recipe", "all_recipes", "library", "load_recipe"]
