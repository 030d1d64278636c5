/* Contexts told apart by the hashes of PR #2140 (one length, 64-bit keys compared in full). */
#include "ngram_tables.h"

/* A key stays below 2^38: token ids are below 2^16 and coefficients below 2^22. */
static const uint64_t KEY = (UINT64_C(1) << 48) - 1;

typedef struct {
    uint64_t key; /* low 48 bits: hash of the context; high 16 bits: its commonest continuation */
    uint32_t total, top_count;
} Context;

typedef struct {
    Context *contexts;
    Pairs pairs;
    uint64_t bits, used;
    Rule rule;
} Hashed;

/* The oldest token has the first coefficient. */
static uint64_t context_key(const uint16_t *tokens, uint64_t length) {
    uint64_t key = 0;
    for (uint64_t i = 0; i < length; i++) key ^= (uint32_t)tokens[i] * (uint64_t)(uint32_t)COEFFICIENTS[i];
    return key;
}

static Context *find(const Hashed *table, uint64_t key) {
    uint64_t last = (UINT64_C(1) << table->bits) - 1, slot = home_of(key, table->bits);
    while (table->contexts[slot].total && (table->contexts[slot].key & KEY) != key) slot = (slot + 1) & last;
    return &table->contexts[slot];
}

static void count(Hashed *table, Context *context, uint64_t key, uint64_t pair, uint16_t token) {
    uint32_t token_count = (uint32_t)++pair_of(&table->pairs, pair)->count;
    if (!context->total) {
        table->used++;
        context->key = key;
    }
    context->total++;
    if (token_count > context->top_count) {
        context->top_count = token_count;
        context->key = (context->key & KEY) | (uint64_t)token << 48;
    }
}

/* Digest text[position .. position + pushed). Contexts lie in text[floor ..). With nothing pushed, hints[0] is the hint for the
   token after the text. */
void ngram_hashed(
    const uint16_t *text, uint64_t floor, Hashed *table, const Strengths *strengths, uint64_t position, uint64_t pushed,
    int32_t *hints, double *hint_strengths
) {
    const uint64_t length = table->rule.length, least = floor + length;
    const float threshold = (float)table->rule.threshold;
    uint64_t keys[ENDS], pairs[ENDS];
    Context *context = 0;
    for (uint64_t step = 0; step <= pushed + AHEAD; step++) {
        uint64_t ahead = position + step;
        if (step <= pushed && ahead >= least) {
            uint64_t key = keys[step % ENDS] = context_key(text + ahead - length, length);
            fetch(&table->contexts[home_of(key, table->bits)]);
            if (step < pushed) {
                pairs[step % ENDS] = pair_key(key, text[ahead], length);
                fetch(&table->pairs.pairs[home_of(pairs[step % ENDS], table->pairs.bits)]);
            }
        }
        if (step < AHEAD) continue;
        uint64_t done = step - AHEAD, end = position + done, out = pushed ? done - 1 : 0;
        if (done || !pushed) {
            hints[out] = -1;
            hint_strengths[out] = 0;
        }
        if (done) {
            uint64_t before = (done - 1) % ENDS;
            if (end > least) count(table, context, keys[before], pairs[before], text[end - 1]);
        }
        if (end < least) continue;
        context = find(table, keys[done % ENDS]);
        if ((!done && pushed) || context->total < table->rule.minimum_count || !context->total) continue;
        float confidence = (float)context->top_count / (float)context->total;
        if (confidence < threshold || strengths->strength == 0) continue;
        hints[out] = (int32_t)(context->key >> 48);
        hint_strengths[out] = strengths->scaled ? strengths->strength * (double)confidence : strengths->strength;
    }
}

/* Copy all contexts into a larger table. */
void ngram_grow_contexts(const Context *old, uint64_t old_bits, Context *contexts, uint64_t bits) {
    Hashed table = {.contexts = contexts, .bits = bits};
    for (uint64_t i = 0; i < UINT64_C(1) << old_bits; i++)
        if (old[i].total) *find(&table, old[i].key & KEY) = old[i];
}
