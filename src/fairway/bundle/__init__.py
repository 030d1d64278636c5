"""One self-contained ``train_gpt.py`` from the package and a recipe, and readable source back from it."""
