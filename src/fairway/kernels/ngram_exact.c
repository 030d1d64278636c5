/* Exact contexts: two contexts are one if and only if their tokens are equal. No hash constant changes a result.
 *
 * A slot holds 32 bits of a hash and a reference. A context that occurred once is referred to by the position where it ended,
 * since its tokens and its continuation stand in the text there; from the second time on it has a record. Only the
 * continuations other than the commonest have pair counts, keyed by record and token.
 *
 * Contexts are stretches of text: the last `length` tokens, the word being read (WITHIN), or that word with the three before
 * it (WORD). Word stretches longer than SPAN tokens are not counted.
 */
#include <string.h>

#include "ngram_choose.h"

enum { SPAN = 64, RING = 2 * SPAN, WORDS = 4, MOST_EXPERTS = 34 };

static const uint32_t MANY = UINT32_C(1) << 31; /* the reference is a record, not a position */
static const uint64_t BASE = 0x9E3779B185EBCA87u;

typedef struct {
    uint32_t end; /* where the context ended when it was first seen */
    uint32_t total, top_count, top;
} Record;

typedef struct {
    uint64_t *slots;
    Record *records;
    Pairs pairs;
    uint64_t bits, used, record_count;
    Rule rule;
    uint64_t kind;
} Expert;

typedef struct {
    const uint16_t *text;
    const uint8_t *opens;    /* per token id: the piece begins with a space; NULL without word experts */
    const uint8_t *boundary; /* per token id: the token belongs to no word */
    uint64_t floor;          /* contexts of tokens lie in text[floor ..) */
} Text;

/* What is known of one context before its table is asked. */
typedef struct {
    uint32_t tag;
    uint32_t length; /* 0: no context */
} Stretch;

typedef struct {
    uint64_t hashes[RING]; /* of all text since the scan began, by end */
    uint64_t powers[SPAN + 1];
    uint64_t starts[WORDS]; /* of the latest words, by running number */
    uint64_t words;
} Cursor;

static int opens_word(const Text *text, uint64_t at) {
    uint16_t token = text->text[at];
    return !text->boundary[token] && (text->opens[token] || at == 0 || text->boundary[text->text[at - 1]]);
}

static void advance(Cursor *cursor, const Text *text, uint64_t end) {
    cursor->hashes[end % RING] = cursor->hashes[(end - 1) % RING] * BASE + text->text[end - 1] + 1;
    if (text->opens && opens_word(text, end - 1)) cursor->starts[cursor->words++ % WORDS] = end - 1;
}

/* The cursor at `end`, from the last SPAN tokens: no longer stretch is ever asked for. */
static void rewind_to(Cursor *cursor, const Text *text, uint64_t end) {
    uint64_t first = end > SPAN ? end - SPAN : 0;
    cursor->powers[0] = 1;
    for (int i = 0; i < SPAN; i++) cursor->powers[i + 1] = cursor->powers[i] * BASE;
    cursor->words = 0;
    cursor->hashes[first % RING] = 0;
    for (uint64_t at = first + 1; at <= end; at++) advance(cursor, text, at);
}

static uint64_t length_of(const Expert *expert, const Cursor *cursor, const Text *text, uint64_t end) {
    if (expert->kind == TOKEN) return end >= text->floor + expert->rule.length ? expert->rule.length : 0;
    uint64_t back = expert->kind == WITHIN ? 1 : WORDS;
    if (end == 0 || text->boundary[text->text[end - 1]] || cursor->words < back) return 0;
    uint64_t length = end - cursor->starts[(cursor->words - back) % WORDS];
    return length <= SPAN ? length : 0;
}

static Stretch look_ahead(const Expert *expert, const Cursor *cursor, const Text *text, uint64_t end) {
    uint64_t length = length_of(expert, cursor, text, end);
    if (!length) return (Stretch){0, 0};
    uint64_t hash = cursor->hashes[end % RING] - cursor->hashes[(end - length) % RING] * cursor->powers[length];
    uint32_t tag = (uint32_t)((hash ^ hash >> 32) * SLOT_MULTIPLIER >> 32);
    fetch(&expert->slots[tag >> (32 - expert->bits)]);
    return (Stretch){tag, (uint32_t)length};
}

static int same_context(const Expert *expert, const Text *text, uint32_t where, uint64_t end, uint64_t length) {
    uint64_t other = where & MANY ? expert->records[where & ~MANY].end : where;
    if (other < length || memcmp(text->text + other - length, text->text + end - length, 2 * length)) return 0;
    /* Equal stretches hold equally many words unless the other one's first word began earlier. */
    return expert->kind == TOKEN || opens_word(text, other - length);
}

/* The slot of a context, or the unused slot where it belongs. */
static uint64_t find(const Expert *expert, const Text *text, uint32_t tag, uint64_t end, uint64_t length) {
    uint64_t last = (UINT64_C(1) << expert->bits) - 1, slot = tag >> (32 - expert->bits);
    for (; expert->slots[slot]; slot = (slot + 1) & last) {
        uint64_t found = expert->slots[slot];
        if (found >> 32 == tag && same_context(expert, text, (uint32_t)found, end, length)) break;
    }
    return slot;
}

static void count(Expert *expert, const Text *text, uint64_t slot, uint32_t tag, uint64_t end, uint16_t token) {
    uint32_t where = (uint32_t)expert->slots[slot];
    if (!where) {
        expert->slots[slot] = (uint64_t)tag << 32 | end;
        expert->used++;
        return;
    }
    if (!(where & MANY)) {
        uint32_t id = (uint32_t)expert->record_count++;
        expert->records[id] = (Record){where, 1, 1, text->text[where]};
        where = MANY | id;
        expert->slots[slot] = (uint64_t)tag << 32 | where;
    }
    Record *record = &expert->records[where & ~MANY];
    record->total++;
    if (token == record->top) {
        record->top_count++;
        return;
    }
    uint64_t context = (uint64_t)(where & ~MANY) << 16;
    uint64_t token_count = ++pair_of(&expert->pairs, context | token)->count;
    if (token_count <= record->top_count) return;
    pair_of(&expert->pairs, context | record->top)->count = record->top_count;
    record->top = token;
    record->top_count = (uint32_t)token_count;
}

/* The proposal of one context, taken over by `candidate` if the rule lets it speak. */
static void propose(const Expert *expert, const Text *text, uint64_t slot, double strength, int scaled, Candidate *candidate) {
    uint32_t where = (uint32_t)expert->slots[slot];
    if (!where) return;
    Record once = {where, 1, 1, 0};
    const Record *record = where & MANY ? &expert->records[where & ~MANY] : &once;
    double confidence = (double)record->top_count / (double)record->total;
    if (record->total < expert->rule.minimum_count || confidence < expert->rule.threshold) return;
    candidate->token = where & MANY ? (int32_t)record->top : text->text[where];
    candidate->strength = scaled ? strength * confidence : strength;
}

/* Digest text[position .. position + pushed); experts stand in rising order of length, then WITHIN, then WORD. With nothing
   pushed, hints[0] is the hint for the token after the text. */
void ngram_exact(
    const Text *text, Expert *tables, int experts, const Strengths *strengths, uint64_t position, uint64_t pushed,
    int32_t *hints, double *hint_strengths
) {
    const double by_kind[CANDIDATES] = {strengths->strength, strengths->within_strength, strengths->word_strength};
    Cursor cursor;
    Stretch ring[ENDS * MOST_EXPERTS];
    uint64_t slots[MOST_EXPERTS];
    rewind_to(&cursor, text, position);
    for (uint64_t step = 0; step <= pushed + AHEAD; step++) {
        if (step <= pushed) {
            if (step) advance(&cursor, text, position + step);
            Stretch *ahead = &ring[step % ENDS * experts];
            for (int i = 0; i < experts; i++) ahead[i] = look_ahead(&tables[i], &cursor, text, position + step);
        }
        if (step < AHEAD) continue;
        uint64_t done = step - AHEAD, end = position + done;
        const Stretch *before = &ring[(done - 1) % ENDS * experts], *now = &ring[done % ENDS * experts];
        Candidate candidates[CANDIDATES] = {{-1, 0}, {-1, 0}, {-1, 0}};
        for (int i = 0; i < experts; i++) {
            Expert *expert = &tables[i];
            if (done && before[i].length) count(expert, text, slots[i], before[i].tag, end - 1, text->text[end - 1]);
            if (!now[i].length) continue;
            slots[i] = find(expert, text, now[i].tag, end, now[i].length);
            int scaled = expert->kind == TOKEN && strengths->scaled;
            propose(expert, text, slots[i], by_kind[expert->kind], scaled, &candidates[expert->kind]);
        }
        uint64_t out = pushed ? done - 1 : 0;
        if (done || !pushed) choose(candidates, strengths->agreement, &hints[out], &hint_strengths[out]);
    }
}

/* Copy all slots into a larger table; the bits of the tag that choose the slot are enough to place it. */
void ngram_grow_slots(const uint64_t *old, uint64_t old_bits, uint64_t *slots, uint64_t bits) {
    uint64_t last = (UINT64_C(1) << bits) - 1;
    for (uint64_t i = 0; i < UINT64_C(1) << old_bits; i++) {
        if (!old[i]) continue;
        uint64_t slot = old[i] >> 32 >> (32 - bits);
        while (slots[slot]) slot = (slot + 1) & last;
        slots[slot] = old[i];
    }
}
