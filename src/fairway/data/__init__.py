"""From text to token shards with the bytes of every token, and from shards to training batches. No torch here.

Read in this order: `documents`, `caseops`, `tokenizer`, `ledger`, `shards`, `manifest`, `build`, `dataset`, `random_windows`,
`packed_documents`.
"""
