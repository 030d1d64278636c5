/* The cheapest path through the trellis of trellis-coded quantization (Viterbi). The Python twin is the definition: costs are
   float64, summed in the same order, and of equal costs the lower state and the lower code win. */
#include <stdint.h>

typedef struct {
    uint64_t states;
    const uint8_t *parity, *flip; /* by state */
} Trellis;

enum { SUBSETS = 4, MOST_STATES = 256 };

typedef struct {
    double cost;
    int16_t code;
} Choice;

static int64_t clamped(int64_t code, int64_t subset, int64_t limit) {
    int64_t most = limit - ((limit - subset) & 3), least = subset - ((limit + subset) & ~INT64_C(3));
    return code > most ? most : code < least ? least : code;
}

static Choice priced(double value, int64_t code, const double *prices) {
    double error = value - (double)code;
    return (Choice){error * error + prices[code], (int16_t)code};
}

/* The better of the two codes around the value that are `subset` modulo 4. */
static Choice choose(double value, int64_t below, int64_t subset, const double *prices, int64_t limit) {
    int64_t code = below - ((below - subset) & 3);
    Choice lower = priced(value, clamped(code, subset, limit), prices);
    Choice upper = priced(value, clamped(code + 4, subset, limit), prices);
    return upper.cost < lower.cost ? upper : lower;
}

static int64_t floor_within(double value, int64_t limit) {
    if (value >= (double)limit) return limit;
    if (value <= (double)-limit) return -limit;
    int64_t whole = (int64_t)value;
    return whole - (value < (double)whole);
}

/* One path. prices holds 2 * limit + 1 numbers for each class, row_class the class of each row. taken (rows * states) and
   candidates (rows * SUBSETS) are working memory. */
void trellis_encode(
    const double *values, uint64_t rows, const Trellis *trellis, const double *prices, const uint8_t *row_class, int64_t limit,
    uint8_t *taken, int16_t *candidates, int16_t *codes
) {
    const uint64_t states = trellis->states, half = states / 2;
    double costs[2][MOST_STATES];
    uint8_t subset_of[2 * MOST_STATES];
    for (uint64_t edge = 0; edge < 2 * states; edge++)
        subset_of[edge] = (uint8_t)(2 * (trellis->flip[edge >> 1] ^ (edge & 1)) + trellis->parity[edge >> 1]);
    for (uint64_t state = 0; state < states; state++) costs[0][state] = state ? 1e300 : 0.0;
    for (uint64_t row = 0; row < rows; row++) {
        const double *before = costs[row & 1], *table = prices + (2 * limit + 1) * row_class[row] + limit;
        double *after = costs[~row & 1], branch[SUBSETS];
        int64_t below = floor_within(values[row], limit);
        for (int64_t subset = 0; subset < SUBSETS; subset++) {
            Choice best = choose(values[row], below, subset, table, limit);
            branch[subset] = best.cost;
            candidates[row * SUBSETS + subset] = best.code;
        }
        for (uint64_t state = 0; state < states; state++) {
            /* Both predecessors took the input bit state & 1. */
            uint64_t low = state >> 1, high = low + half;
            double from_low = before[low] + branch[subset_of[2 * low + (state & 1)]];
            double from_high = before[high] + branch[subset_of[2 * high + (state & 1)]];
            uint8_t upper = from_high < from_low;
            after[state] = upper ? from_high : from_low;
            taken[row * states + state] = upper;
        }
    }
    uint64_t state = 0;
    for (uint64_t other = 1; other < states; other++)
        if (costs[rows & 1][other] < costs[rows & 1][state]) state = other;
    for (uint64_t row = rows; row-- > 0;) {
        uint64_t before = (state >> 1) + half * taken[row * states + state];
        codes[row] = candidates[row * SUBSETS + subset_of[2 * before + (state & 1)]];
        state = before;
    }
}
