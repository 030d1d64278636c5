"""``record.json``: everything that a later comparison needs of a record, and how it is read back.

It is one of the forms that ``--against`` takes: values by seed, tokens, bytes and data, like the JSON of any published record,
and beside them the mode, the pass, the byte cap, the recipe, and for each seed a file with its costs by document, so that
the paired comparison works without the ledgers. Digests say whether these files are still those that were handed in.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairway.base.errors import DataError, RecipeError
from fairway.base.fields import Fields
from fairway.base.files import sha256_file
from fairway.base.values import from_dict
from fairway.config import Recipe
from fairway.record.figures import SeedFigures
from fairway.record.paired import DocumentCosts, read_document_costs

RECORD = "record.json"
FORMAT = "fairway-record"
VERSION = 1


def handed_in(document: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """What a record of ours says of all its seeds, as fields of a ``Result``; None for the JSON of any other record.

    Args:
        document: Content of the file.
        path: The file, for messages.

    Raises:
        DataError: another version, or a field that is missing or of the wrong type.
    """
    if document.get("format") != FORMAT:
        return None
    content = Fields(dict(document), str(path))
    if content.whole("version") != VERSION:
        raise DataError(
            f"{path} is {FORMAT} version {document['version']}; this reader knows {VERSION}, use the release it names"
        )
    try:
        recipe = from_dict(Recipe, document.get("recipe"))
    except RecipeError:
        # Of another release: its figures count all the same, only its settings cannot be told from ours.
        recipe = None
    return {
        "recipe": recipe,
        "recipe_name": content.text("recipe_name"),
        "pass_name": content.text("pass"),
        "mode": content.text("mode"),
        "partial": content.flag("partial"),
        "byte_rule": content.text("byte_rule"),
        "byte_cap": content.whole("byte_cap"),
    }


def recorded_costs(document: Mapping[str, Any], seed: SeedFigures, path: Path) -> DocumentCosts | None:
    """Costs by document of one seed, from the file beside ``record.json``; None where that file was not kept.

    Raises:
        DataError: the file is not the one that was handed in, or does not add up to the seed's bits per byte.
    """
    name, digest = (seed.further.get(field) for field in ("costs", "costs_sha256"))
    if name is None:
        return None
    if not isinstance(name, str) or Path(name).name != name:
        raise DataError(f"{path}: seed {seed.seed}: costs is {name!r}; it must name a file beside it, restore the record")
    file = path.parent / name
    if not file.exists():
        return None
    found = sha256_file(file)
    if found != digest:
        raise DataError(
            f"{file} was altered: its SHA-256 is {found[:16]}..., {path.name} names {str(digest)[:16]}...; restore it"
        )
    costs = read_document_costs(file)
    bits = costs.bits_per_byte
    stated = math.nan if seed.bits_per_byte is None else float(seed.bits_per_byte)
    if not math.isclose(stated, bits, rel_tol=1e-9) or document.get("tokens") != costs.tokens:
        raise DataError(
            f"{file} adds up to {bits:.8f} bpb over {costs.tokens:,} tokens, {path.name} states {seed.bits_per_byte} over "
            f"{document.get('tokens')}; restore both"
        )
    return costs
