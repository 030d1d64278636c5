/* Contexts of several lengths told apart by the hashes of PR #1557, in tables of fixed size.
 *
 * A search looks at no more than PROBES slots; what finds no room is lost. The count of the commonest continuation has 16 bits
 * and wraps. Besides the tokens' experts there may be two for words: WITHIN continues a word from its hash so far, with one
 * table each for one, two and more tokens; WORD proposes the first token of a word from the four words before it, but asks
 * under the four words before the word that was just begun, as published.
 */
#include "ngram_choose.h"

enum { PROBES = 16, MOST_EXPERTS = 34, WITHIN_TABLES = 3, WORDS = 4 };

static const uint64_t PREFIX_MULTIPLIER = 1099511628211u;
static const uint64_t LENGTH_MULTIPLIER = 0x9E3779B185EBCA87u;

typedef struct {
    uint64_t key;
    uint32_t total;
    uint16_t top, top_count;
} Context;

typedef struct {
    Context *contexts;
    Pair *pairs;
    uint64_t bits;
    Rule rule;
    uint64_t coefficient; /* of the pair key */
} Table;

/* The words of the text so far. */
typedef struct {
    uint64_t prefix, prefix_length; /* WITHIN: hash and tokens of the word being read */
    uint64_t word, word_open;       /* WORD: its other hash, and whether it has a token */
    uint64_t words[WORDS], complete;
} Words;

typedef struct {
    const uint8_t *opens;    /* per token id: the piece begins with a space */
    const uint8_t *boundary; /* per token id: the token belongs to no word */
} Flags;

/* What one expert looks up, and what it will count once the next token is known. */
typedef struct {
    uint64_t asked, counted, pair;
    uint32_t table;
    uint16_t asks, counts;
} Plan;

static void complete_word(Words *words) {
    if (words->word_open) words->words[words->complete++ % WORDS] = words->word;
    words->word = words->word_open = 0;
}

static uint64_t words_key(const Words *words) {
    uint64_t key = 0;
    for (uint64_t i = 0; i < WORDS; i++) key ^= words->words[(words->complete + i) % WORDS] * COEFFICIENTS[i];
    return key;
}

static void read_token(Words *words, const Flags *flags, uint64_t token) {
    if (flags->boundary[token]) {
        words->prefix = words->prefix_length = 0;
        complete_word(words);
        return;
    }
    int opens = flags->opens[token];
    if (opens || !words->prefix_length) words->prefix = words->prefix_length = 0;
    uint64_t coefficient = COEFFICIENTS[words->prefix_length++ % 32];
    words->prefix = words->prefix * PREFIX_MULTIPLIER ^ (token + 1) * coefficient;
    if (opens) complete_word(words);
    words->word = 31 * words->word + token;
    words->word_open = 1;
}

/* `last` and `next` are the tokens around the end of the context, -1 where there is none or it is not known yet. */
static void plan_words(
    Plan *within, Plan *word, const Words *words, const Flags *flags, int64_t last, int64_t next, uint32_t tables
) {
    uint64_t length = words->prefix_length, kind = length < WITHIN_TABLES ? length : WITHIN_TABLES;
    int inside_last = last >= 0 && !flags->boundary[last] && !flags->opens[last];
    int inside_next = next >= 0 && !flags->boundary[next] && !flags->opens[next];
    within->asks = length && inside_last;
    within->counts = length && inside_next;
    within->table = tables + (uint32_t)kind - 1;
    within->asked = within->counted = words->prefix ^ length * LENGTH_MULTIPLIER;
    word->table = tables + WITHIN_TABLES;
    word->asks = last >= 0 && flags->opens[last] && words->complete >= WORDS;
    word->asked = words_key(words);
    word->counts = 0;
    if (next < 0 || flags->boundary[next] || !flags->opens[next]) return;
    Words completed = *words;
    complete_word(&completed);
    word->counts = completed.complete >= WORDS;
    word->counted = words_key(&completed);
}

/* The hash of the last `length` tokens, newest first, for every length of the token experts. */
static void plan_tokens(Plan *plans, const Table *tables, int count, const uint16_t *text, uint64_t end, int next_known) {
    uint64_t key = 0, length = 0;
    for (int i = 0; i < count; i++) {
        int available = tables[i].rule.length <= end;
        for (; available && length < tables[i].rule.length; length++) key ^= text[end - 1 - length] * COEFFICIENTS[length];
        plans[i] = (Plan){.asked = key, .counted = key, .table = (uint32_t)i};
        plans[i].asks = available != 0;
        plans[i].counts = available && next_known;
    }
}

static void fetch_plans(Plan *plans, const Table *tables, int count, int64_t next) {
    for (int i = 0; i < count; i++) {
        if (!plans[i].asks && !plans[i].counts) continue;
        const Table *table = &tables[plans[i].table];
        uint64_t last = (UINT64_C(1) << table->bits) - 1;
        if (plans[i].asks) fetch(&table->contexts[plans[i].asked * SLOT_MULTIPLIER & last]);
        if (!plans[i].counts) continue;
        plans[i].pair = pair_key(plans[i].counted, (uint64_t)next, table->coefficient);
        fetch(&table->pairs[plans[i].pair * SLOT_MULTIPLIER & last]);
        if (plans[i].counted != plans[i].asked) fetch(&table->contexts[plans[i].counted * SLOT_MULTIPLIER & last]);
    }
}

/* The entry of a key, or the unused entry where it belongs, or NULL. */
static Context *find(const Table *table, uint64_t key) {
    uint64_t last = (UINT64_C(1) << table->bits) - 1, home = key * SLOT_MULTIPLIER;
    for (uint64_t probe = 0; probe < PROBES; probe++) {
        Context *context = &table->contexts[(home + probe) & last];
        if (!context->total || context->key == key) return context;
    }
    return 0;
}

static uint64_t count_pair(const Table *table, uint64_t key) {
    uint64_t last = (UINT64_C(1) << table->bits) - 1, home = key * SLOT_MULTIPLIER;
    for (uint64_t probe = 0; probe < PROBES; probe++) {
        Pair *pair = &table->pairs[(home + probe) & last];
        if (!pair->count) pair->key = key;
        if (pair->key == key) return ++pair->count;
    }
    return 0;
}

static void count(const Table *table, Context *context, uint64_t key, uint64_t pair, uint16_t token) {
    uint64_t token_count = count_pair(table, pair);
    if (!context) return;
    if (!context->total++) {
        context->key = key;
        context->top = token;
        context->top_count = 1;
    } else if (context->top == token) {
        context->top_count++;
    } else if (token_count > context->top_count) {
        context->top = token;
        context->top_count = token_count < UINT16_MAX ? (uint16_t)token_count : UINT16_MAX;
    }
}

static int propose(const Table *table, const Context *context, double strength, int scaled, Candidate *candidate) {
    if (!context || !context->total) return 0;
    double confidence = (double)context->top_count / (double)context->total;
    if (context->total < table->rule.minimum_count || confidence < table->rule.threshold) return 0;
    *candidate = (Candidate){context->top, scaled ? strength * confidence : strength};
    return 1;
}

/* Digest text[position .. position + pushed). Tables stand in rising order of length; those of the words, if flags are given,
 * follow: WITHIN_TABLES, then one for WORD. `words` is the state at `position` and is moved on. */
void ngram_bounded(
    const uint16_t *text, const Table *tables, int lengths, const Flags *flags, Words *words, const Strengths *strengths,
    uint64_t position, uint64_t pushed, int32_t *hints, double *hint_strengths
) {
    const int experts = lengths + (flags ? 2 : 0), scaled = (int)strengths->scaled;
    Plan ring[ENDS * MOST_EXPERTS];
    Context *found[MOST_EXPERTS];
    for (uint64_t step = 0; step <= pushed + AHEAD; step++) {
        if (step <= pushed) {
            Plan *plans = &ring[step % ENDS * experts];
            uint64_t ahead = position + step;
            int64_t next = step < pushed ? text[ahead] : -1;
            plan_tokens(plans, tables, lengths, text, ahead, next >= 0);
            if (flags) {
                if (step) read_token(words, flags, text[ahead - 1]);
                int64_t last = ahead ? text[ahead - 1] : -1;
                plan_words(&plans[lengths], &plans[lengths + 1], words, flags, last, next, (uint32_t)lengths);
            }
            fetch_plans(plans, tables, experts, next);
        }
        if (step < AHEAD) continue;
        uint64_t done = step - AHEAD, end = position + done;
        const Plan *before = &ring[(done - 1) % ENDS * experts], *now = &ring[done % ENDS * experts];
        for (int i = 0; done && i < experts; i++) {
            if (!before[i].counts) continue;
            const Table *table = &tables[before[i].table];
            Context *context = i < lengths ? found[i] : find(table, before[i].counted);
            count(table, context, before[i].counted, before[i].pair, text[end - 1]);
        }
        for (int i = 0; i < experts; i++) found[i] = now[i].asks ? find(&tables[now[i].table], now[i].asked) : 0;
        if (!done) continue;
        Candidate candidates[CANDIDATES] = {{-1, 0}, {-1, 0}, {-1, 0}};
        for (int i = lengths - 1; i >= 0; i--)
            if (propose(&tables[i], found[i], strengths->strength, scaled, &candidates[TOKEN])) break;
        if (flags) {
            const Plan *within = &now[lengths], *word = &now[lengths + 1];
            propose(&tables[within->table], found[lengths], strengths->within_strength, 0, &candidates[WITHIN]);
            propose(&tables[word->table], found[lengths + 1], strengths->word_strength, 0, &candidates[WORD]);
        }
        choose(candidates, strengths->agreement, &hints[done - 1], &hint_strengths[done - 1]);
    }
}
