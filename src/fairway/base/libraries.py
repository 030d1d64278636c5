"""The libraries that every run needs."""

import importlib.metadata

RUNTIME = (
    *("torch", "numpy", "sentencepiece", "constriction", "brotli", "safetensors", "huggingface-hub", "tyro", "tqdm"),
    "jaxtyping",
)
"""Names as the package index has them."""


def installed_versions() -> dict[str, str]:
    """Version of each library that is installed, by its name."""
    found = {}
    for name in RUNTIME:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
