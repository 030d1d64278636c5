/* The growth of a table of pair counts, which two of the scans share. */
#include "ngram_tables.h"

/* Copy all pair counts into a larger table. */
void ngram_grow_pairs(const Pair *old, uint64_t old_bits, Pair *pairs, uint64_t bits) {
    Pairs table = {pairs, bits, 0};
    for (uint64_t i = 0; i < UINT64_C(1) << old_bits; i++)
        if (old[i].count) pair_of(&table, old[i].key)->count = old[i].count;
}
