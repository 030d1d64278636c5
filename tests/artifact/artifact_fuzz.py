"""Fuzzing of the container: ``python tests/artifact/artifact_fuzz.py CASES [SEED]`` for long runs, 20,000 cases in the tests.

Each case damages one of five sound artifacts, which use every coder. Blind cases leave the checksum wrong; resealed cases make
lengths and the closing digest right again, so that the parsers behind it meet the damage. A case may end in two ways:
``ArtifactError``, or tensors and header equal to those of the artifact whose content digest the file carries.
"""

import json
import random
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace

from artifact_samples import (
    HEADER,
    binomial_codes,
    forge,
    forge_streams,
    grid_tensors,
    half_floats,
    parts_tensors,
    same,
    sample_tensors,
    walk_tensors,
    walked,
)

from fairway.artifact.container import decode, encode
from fairway.artifact.layout import DIGEST_BYTES, PREFIX, Layout, parse, seal
from fairway.artifact.manifest import pack_manifest
from fairway.artifact.records import Artifact, CodedTensor, RawTensor
from fairway.base.errors import ArtifactError

MAX_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class Victim:
    content: bytes
    layout: Layout
    artifact: Artifact


def victims() -> list[Victim]:
    other = {
        "a.weight": CodedTensor(binomial_codes(40, 10, 4, 9), half_floats(40, 9), 4),
        "b": RawTensor(half_floats(200, 3)),
        "c.weight": CodedTensor(binomial_codes(40, 10, 4, 9) * 0 + 2, half_floats(40, 9), 4),
    }
    contents = [encode(sample_tensors(), HEADER), encode(other, {"seed": 3}), encode(parts_tensors(), {"seed": 4})]
    contents += [encode(grid_tensors(), {"seed": 5}), walked(walk_tensors(), {"seed": 6})]
    return [Victim(content, parse(content), decode(content)) for content in contents]


def damage(data: bytes, other: bytes, random_: random.Random) -> bytes:
    """One to three random edits: flips, chosen bytes, cuts, repeats, insertions, splices."""
    out = bytearray(data)
    for _ in range(random_.randint(1, 3)):
        at = random_.randrange(len(out) + 1)
        span = random_.randint(1, 12)
        kind = random_.randrange(7)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << random_.randrange(8)
        elif kind == 1:
            out[at : at + 1] = bytes([random_.choice((0, 1, 0x7F, 0x80, 0xFF))])
        elif kind == 2:
            out[at : at + span] = random_.randbytes(span)
        elif kind == 3:
            del out[at : at + span]
        elif kind == 4:
            out[at:at] = out[max(0, at - span) : at]
        elif kind == 5:
            out = out[:at] if random_.random() < 0.3 else out
        else:
            start = random_.randrange(len(other) + 1)
            out[at : at + span] = other[start : start + span]
    return bytes(out)


def resealed(kind: str, victim: Victim, other: Victim, random_: random.Random) -> bytes:
    """A file with one damaged section and right lengths and checksum."""
    layout = victim.layout
    if kind == "prefix":
        body = bytearray(victim.content[:-DIGEST_BYTES])
        body[random_.randrange(8, PREFIX.size - DIGEST_BYTES)] = random_.randrange(256)
        return seal(bytes(body))
    if kind == "payload":
        payload = b"".join(stream.payload for stream in layout.streams)
        return forge(layout, payload=damage(payload, other.content, random_))
    if kind == "manifest":
        return forge(layout, manifest=damage(pack_manifest(layout.entries, layout.streams), other.layout.document, random_))
    if kind == "document":
        return forge(layout, document=damage(layout.document, other.layout.document, random_))
    streams = list(layout.streams)
    position = random_.randrange(len(streams))
    change = random_.choice(("payload", "parameters"))
    streams[position] = replace(
        streams[position], **{change: damage(getattr(streams[position], change), other.content, random_)}
    )
    return forge_streams(layout, streams)


def case(pool: list[Victim], random_: random.Random) -> tuple[str, bytes, Victim]:
    """Kind of damage, damaged file, and the artifact whose content digest it carries."""
    victim, other = random_.sample(pool, 2)
    kind = random_.choice(("blind", "blind", "blind", "splice", "prefix", "payload", "manifest", "document", "stream"))
    if kind == "blind":
        return kind, damage(victim.content, other.content, random_), victim
    if kind == "splice":
        cut = random_.randrange(len(victim.content)), random_.randrange(len(other.content))
        return kind, victim.content[: cut[0]] + other.content[cut[1] :], victim
    return kind, resealed(kind, victim, other, random_), victim


def equal(left: Artifact, right: Artifact) -> bool:
    names = list(left.tensors) == list(right.tensors)
    return names and left.header == right.header and all(same(left.tensors[name], right.tensors[name]) for name in left.tensors)


def fuzz(cases: int, seed: int) -> tuple[Counter[str], float, int]:
    """Outcomes by kind, seconds of the slowest case, and growth of the peak memory in KiB; any other error propagates."""
    random_, pool = random.Random(seed), victims()
    outcomes: Counter[str] = Counter()
    slowest, memory = 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(cases):
        kind, content, victim = case(pool, random_)
        start = time.perf_counter()
        try:
            artifact = decode(content, max_elements=MAX_ELEMENTS)
            verdict = "intact" if equal(artifact, victim.artifact) else "WRONG"
        except ArtifactError as error:
            verdict = "refused" if ";" in str(error) and "\n" not in str(error) else "UNCLEAR"
        slowest = max(slowest, time.perf_counter() - start)
        outcomes[f"{kind} {verdict}"] += 1
    return outcomes, slowest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory


if __name__ == "__main__":
    results, seconds, kib = fuzz(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    sys.stdout.write(
        json.dumps({"outcomes": dict(sorted(results.items())), "slowest_seconds": seconds, "grown_kib": kib}) + "\n"
    )
    sys.exit(any("WRONG" in name or "UNCLEAR" in name for name in results))
