/*
 * The merge engine: of all neighbouring symbols that may merge, the pair of lowest rank merges first, the leftmost of
 * equals, until none is left. BPE ranks pairs by their place in the merge list, SentencePiece ranks the token they make by
 * its score. Short words rescan their pairs (fewest instructions); longer ones keep a heap: O(n log n) for any text.
 */
#include "tokens/vocab_internal.h"

#define SCAN_MAX 20 /* symbols; above, the heap is faster */
#define NO_SYMBOL UINT32_MAX

/* Rank of the pair of neighbours (a, b), or NO_RANK; *id is the token they make. */
static uint32_t pair_rank(const vocab *v, const char *text, const symbol *a, const symbol *b, token_id *id)
{
    if (v->kind == VOCAB_SPM) {
        size_t n = (size_t)a->n + b->n;
        if (n > v->longest)
            return NO_RANK;
        token_id found = vocab_find_hashed(v, text + a->start, n, vocab_hash(v, text + a->start, n));
        *id = found;
        return found == TOKEN_NONE ? NO_RANK : v->ranks[found];
    }
    if (a->id < 0 || b->id < 0)
        return NO_RANK;
    uint64_t key = ((uint64_t)(uint32_t)a->id << 32 | (uint32_t)b->id) * 0x9E3779B97F4A7C15u;
    for (uint32_t i = (uint32_t)(key >> 32) & v->merge_mask;; i = (i + 1) & v->merge_mask) {
        const merge_slot *m = &v->merges[i];
        if (m->result == TOKEN_NONE)
            return NO_RANK;
        if (m->left == a->id && m->right == b->id) {
            *id = m->result;
            return m->rank;
        }
    }
}

/* n <= SCAN_MAX symbols without holes: ranks[i] is that of the pair (i, i + 1). */
static uint32_t merge_short(const vocab *v, const char *text, symbol *s, uint32_t n)
{
    uint32_t ranks[SCAN_MAX];
    token_id ids[SCAN_MAX];
    for (uint32_t i = 0; i + 1 < n; i++)
        ranks[i] = pair_rank(v, text, &s[i], &s[i + 1], &ids[i]);
    for (;;) {
        uint32_t best = NO_RANK, at = 0;
        for (uint32_t i = 0; i + 1 < n; i++) {
            if (ranks[i] < best) {
                best = ranks[i];
                at = i;
            }
        }
        if (best == NO_RANK)
            return n;
        s[at].n += s[at + 1].n;
        s[at].id = ids[at];
        n--;
        memmove(&s[at + 1], &s[at + 2], (n - at - 1) * sizeof *s);
        if (at + 1 < n) {
            memmove(&ranks[at + 1], &ranks[at + 2], (n - at - 1) * sizeof *ranks);
            memmove(&ids[at + 1], &ids[at + 2], (n - at - 1) * sizeof *ids);
            ranks[at] = pair_rank(v, text, &s[at], &s[at + 1], &ids[at]);
        }
        if (at > 0)
            ranks[at - 1] = pair_rank(v, text, &s[at - 1], &s[at], &ids[at - 1]);
    }
}

static bool before(const candidate *a, const candidate *b)
{
    return a->rank < b->rank || (a->rank == b->rank && a->left < b->left);
}

static void heap_push(encoder *e, candidate c)
{
    size_t i = e->heap_n++;
    while (i > 0 && before(&c, &e->heap[(i - 1) / 2])) {
        e->heap[i] = e->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    e->heap[i] = c;
}

static candidate heap_pop(encoder *e)
{
    candidate top = e->heap[0], last = e->heap[--e->heap_n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= e->heap_n)
            break;
        if (child + 1 < e->heap_n && before(&e->heap[child + 1], &e->heap[child]))
            child++;
        if (!before(&e->heap[child], &last))
            break;
        e->heap[i] = e->heap[child];
        i = child;
    }
    e->heap[i] = last;
    return top;
}

static void consider(encoder *e, const char *text, uint32_t left)
{
    const symbol *s = e->symbols;
    if (left == NO_SYMBOL || s[left].next == NO_SYMBOL)
        return;
    const symbol *right = &s[s[left].next];
    token_id id;
    uint32_t rank = pair_rank(e->v, text, &s[left], right, &id);
    if (rank != NO_RANK)
        heap_push(e, (candidate){rank, left, s[left].n + right->n});
}

static uint32_t merge_long(encoder *e, const char *text, uint32_t n)
{
    symbol *s = e->symbols;
    e->heap_n = 0;
    for (uint32_t i = 0; i < n; i++) {
        s[i].prev = i ? i - 1 : NO_SYMBOL;
        s[i].next = i + 1 < n ? i + 1 : NO_SYMBOL;
    }
    for (uint32_t i = 0; i + 1 < n; i++)
        consider(e, text, i);
    while (e->heap_n) {
        candidate c = heap_pop(e);
        symbol *left = &s[c.left];
        if (left->n == 0 || left->next == NO_SYMBOL)
            continue;
        symbol *right = &s[left->next];
        if (left->n + right->n != c.n)
            continue; /* one of the two has grown since */
        token_id id = TOKEN_NONE;
        if (pair_rank(e->v, text, left, right, &id) == NO_RANK)
            continue;
        left->id = id;
        left->n += right->n;
        right->n = 0;
        left->next = right->next;
        if (right->next != NO_SYMBOL)
            s[right->next].prev = c.left;
        consider(e, text, left->prev);
        consider(e, text, c.left);
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++)
        if (s[i].n)
            s[kept++] = s[i];
    return kept;
}

dil_status merge_symbols(encoder *e, const char *text, uint32_t n)
{
    uint32_t kept = n <= SCAN_MAX ? merge_short(e->v, text, e->symbols, n) : merge_long(e, text, n);
    for (uint32_t i = 0; i < kept; i++) {
        const symbol *s = &e->symbols[i];
        if (s->id >= 0) {
            DIL_TRY(encoder_emit(e, s->id));
            continue;
        }
        for (uint32_t k = 0; k < s->n; k++) { /* a character without a token: its bytes */
            token_id id = e->v->byte_ids[(unsigned char)text[s->start + k]];
            if (id == TOKEN_NONE)
                id = e->v->unk;
            if (id != TOKEN_NONE)
                DIL_TRY(encoder_emit(e, id));
        }
    }
    return DIL_OK;
}
