"""Bytes of every recipe's bundle after each step, as brotli packs them, and seconds of the whole.

python benchmarks/bench_bundle.py [RECIPE ...]
"""

import sys
import time

import brotli

from fairway.artifact.bundle import bundle
from fairway.bundle.facts import Facts
from fairway.bundle.index import build
from fairway.bundle.layout import Layout
from fairway.bundle.make import body_of, fold_all, main_of, make_bundle, program_of
from fairway.bundle.members import closed_members, member_names, pass_by_place
from fairway.bundle.names import rename
from fairway.bundle.settings import shrink
from fairway.bundle.shake import shake
from fairway.bundle.strip import strip_annotations
from fairway.recipes import recipe

NAMES = ("pr1413", "pr1533", "pr1557", "pr1776", "pr2140", "frontier")


def packed(source: str) -> int:
    return len(brotli.compress(source.encode()))


def steps(name: str) -> list[int]:
    made = recipe(name)
    program = program_of(made)
    sizes = [packed(Layout().source(body_of(program)))]
    fold_all(program, made)
    shrink(program, Facts(build(program), made))
    shake(program, [main_of(program)])
    sizes.append(packed(Layout().source(body_of(program))))
    pass_by_place(program, Facts(build(program), made))
    members = dict(member_names(closed_members(program, Facts(build(program), made)), set()))
    strip_annotations(program)
    shake(program, [main_of(program)])
    rename(program)
    sizes.append(packed(Layout(members).source(body_of(program))))
    began = time.process_time()
    sizes.append(len(make_bundle(made).content))
    return [*sizes, round(time.process_time() - began)]


def main() -> None:
    print(f"whole packages as an archive: {len(bundle()):,} bytes")
    print("recipe        shaken    folded   renamed      file   CPU s   (C sources are in the file alone)")
    for name in sys.argv[1:] or NAMES:
        *sizes, seconds = steps(name)
        print(f"{name:<10}" + "".join(f"{size:>10,}" for size in sizes) + f"{seconds:>8}")


if __name__ == "__main__":
    main()
