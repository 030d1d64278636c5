/* The choice between the experts of a scan that has several. */
#ifndef FAIRWAY_NGRAM_CHOOSE_H
#define FAIRWAY_NGRAM_CHOOSE_H

#include "ngram_tables.h"

typedef struct {
    int32_t token; /* -1: no proposal */
    double strength;
} Candidate;

enum { TOKEN, WITHIN, WORD, CANDIDATES };

/* Equal proposals strengthen each other once; the first of the largest strengths wins; no strength is no hint. */
static inline void choose(const Candidate *candidates, double agreement, int32_t *hint, double *strength) {
    *hint = -1;
    *strength = 0;
    for (int i = 0; i < CANDIDATES; i++) {
        int agreed = 0;
        for (int j = 0; j < CANDIDATES; j++) agreed |= j != i && candidates[j].token == candidates[i].token;
        double total = candidates[i].strength + (agreed ? agreement : 0);
        if (candidates[i].token >= 0 && total > *strength) {
            *hint = candidates[i].token;
            *strength = total;
        }
    }
}

#endif
