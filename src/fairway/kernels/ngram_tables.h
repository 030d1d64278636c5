/* What the three scans share: constants, pair counts, and when a context may speak.
 *
 * A scan reads text[0 .. position + pushed) and has digested text[0 .. position). "The context that ends at e" is made of
 * tokens below e; it proposes a hint for text[e]. For each e in position + 1 .. position + pushed the token text[e - 1] is
 * counted under the context that ends at e - 1, and only then is the context that ends at e looked up. Tokens further
 * ahead only choose which lines of the tables are fetched early: a scan waits for memory and for little else.
 *
 * All memory belongs to the caller, who makes the tables large enough for the pushed tokens before each call. Unused entries
 * are all zero. The meaning of every scan is defined by src/fairway/score/hints_plain.py.
 */
#ifndef FAIRWAY_NGRAM_TABLES_H
#define FAIRWAY_NGRAM_TABLES_H

#include <stdint.h>

/* Positions between asking for a line of memory and using it, and the size of rings that hold what is known ahead. */
enum { AHEAD = 16, ENDS = 2 * AHEAD };

/* PR #1145, #1420: coefficients, multiplier of a context key in a pair key, and slot multiplier. */
static const uint64_t COEFFICIENTS[32] = {
    36313,   27191,   51647,   81929,   131071,  196613,  262147,  393241,  524309,  655373,  786433,
    917521,  1048583, 1179653, 1310729, 1441801, 1572869, 1703941, 1835017, 1966087, 2097169, 2228243,
    2359319, 2490389, 2621471, 2752549, 2883617, 3014687, 3145757, 3276833, 3407903, 3538973,
};
static const uint64_t PAIR_MULTIPLIER = 1000003;
static const uint64_t SLOT_MULTIPLIER = 0x9E3779B97F4A7C15u;

static inline uint64_t pair_key(uint64_t context, uint64_t token, uint64_t coefficient) {
    return context * PAIR_MULTIPLIER ^ token * COEFFICIENTS[coefficient % 32];
}

static inline void fetch(const void *line) { __builtin_prefetch(line, 1); }

/* A growing table of counts, open addressing by the high bits of the spread key. */
typedef struct {
    uint64_t key;
    uint64_t count;
} Pair;

typedef struct {
    Pair *pairs;
    uint64_t bits;
    uint64_t used;
} Pairs;

static inline uint64_t home_of(uint64_t key, uint64_t bits) { return key * SLOT_MULTIPLIER >> (64 - bits); }

/* The entry of a key, claimed if new; the caller raises its count above zero. */
static inline Pair *pair_of(Pairs *table, uint64_t key) {
    uint64_t last = (UINT64_C(1) << table->bits) - 1, slot = home_of(key, table->bits);
    while (table->pairs[slot].count && table->pairs[slot].key != key) slot = (slot + 1) & last;
    if (!table->pairs[slot].count) {
        table->pairs[slot].key = key;
        table->used++;
    }
    return &table->pairs[slot];
}

/* When a context may speak and how loudly. */
typedef struct {
    uint64_t length; /* tokens of the context; 0 for contexts made of words */
    uint64_t minimum_count;
    double threshold;
} Rule;

typedef struct {
    double strength, within_strength, word_strength, agreement;
    uint64_t scaled; /* the token experts' strength is multiplied by their confidence */
} Strengths;

#endif
