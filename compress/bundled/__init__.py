"""Files that ship with the package: recipes, evals and the embedded model."""
