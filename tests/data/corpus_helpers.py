"""Toy documents and toy models for the tests of this room."""

import io
import json
import random

import sentencepiece

SENTENCE = "the of and to in a is that for it as was with be by on not he his but at are this which had"
WORDS = SENTENCE.split()


def make_texts(count, seed=0):
    """Documents with sentences, indentation, tabs, blank lines, and letters beyond ASCII; all different."""
    chance = random.Random(seed)
    texts = []
    for number in range(count):
        lines = [f"Title {number} of {seed}"]
        for _ in range(chance.randint(3, 12)):
            words = " ".join(chance.choice(WORDS) for _ in range(chance.randint(2, 12)))
            lines.append(
                chance.choice(["", "    ", "\t", "        "])
                + words
                + chance.choice([".", "", " \u00e9t\u00e9 \u65e5\u672c", "  x"])
            )
            lines.extend([""] * chance.randint(0, 1))
        texts.append("\n".join(lines) + "\n")
    return texts


def train_challenge_model(texts, **changes):
    output = io.BytesIO()
    settings = {
        "model_type": "bpe",
        "vocab_size": 400,
        "hard_vocab_limit": False,
        "character_coverage": 0.999,
        "byte_fallback": True,
        "normalization_rule_name": "nmt_nfkc",
        "add_dummy_prefix": False,
        "pad_id": 0,
        "bos_id": 1,
        "eos_id": 2,
        "unk_id": 3,
        "num_threads": 1,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=output, **{**settings, **changes})
    return output.getvalue()


def write_jsonl(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return path
