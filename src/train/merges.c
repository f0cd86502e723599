#include "train/merges.h"

#include "base/mem.h"
#include "base/status.h"

#define NONE UINT32_MAX

/* A word on its way from bytes to tokens: symbols[first .. first + n). */
typedef struct word {
    uint64_t count;
    size_t first;
    uint32_t n;
} word;

/* Two neighbouring tokens: how often, and a list of the words that hold them (or did: nobody takes them off). */
typedef struct pair {
    uint64_t count;
    uint32_t key;  /* left << 16 | right */
    uint32_t list; /* into nodes, or NONE */
} pair;

typedef struct node {
    uint32_t word, next;
} node;

/* In the heap a count may be too high; it is put right when it comes to the top. */
typedef struct candidate {
    uint64_t count;
    uint32_t pair;
} candidate;

typedef struct learner {
    uint16_t *symbols;
    word *words;
    size_t n_words;
    pair *pairs;
    size_t n_pairs, pairs_room;
    uint32_t *slots; /* [slot_mask + 1] numbers of pairs by key, or NONE */
    size_t slot_mask;
    node *nodes;
    size_t n_nodes, nodes_room;
    uint32_t free_nodes;
    candidate *heap;
    size_t n_heap, heap_room;
    arena *texts; /* of tokens */
    str *tokens;  /* [MERGES_MOST_TOKENS] */
    const str *taken;
    int n_taken;
    dil_error *err;
} learner;

static dil_status no_memory(learner *l) { return DIL_FAIL(l->err, DIL_NO_MEMORY, "no memory to learn merges"); }

static dil_status room_for(learner *l, void **block, size_t *room, size_t n, size_t element)
{
    if (n < *room)
        return DIL_OK;
    size_t wanted = *room ? 2 * *room : 4096;
    void *bigger = wanted < NONE ? mem_grow(*block, wanted * element, MEM_TEXT) : NULL;
    if (!bigger)
        return no_memory(l);
    *block = bigger;
    *room = wanted;
    return DIL_OK;
}

/* ---- texts of tokens ---- */

/* The joined text of a pair becomes token id's; *is_taken: it may not. */
static dil_status join(learner *l, uint32_t key, uint32_t id, bool *is_taken)
{
    str left = l->tokens[key >> 16], right = l->tokens[key & 0xFFFF];
    char *text = arena_alloc(l->texts, left.n + right.n);
    if (!text)
        return no_memory(l);
    memcpy(text, left.p, left.n);
    memcpy(text + left.n, right.p, right.n);
    l->tokens[id] = (str){text, left.n + right.n};
    *is_taken = false;
    for (int i = 0; i < l->n_taken; i++)
        *is_taken |= str_equal(l->tokens[id], l->taken[i]);
    return DIL_OK;
}

/* ---- pairs ---- */

static size_t slot_of(const learner *l, uint32_t key)
{
    size_t i = (size_t)((key * (uint64_t)0x9E3779B97F4A7C15u) >> 32) & l->slot_mask;
    while (l->slots[i] != NONE && l->pairs[l->slots[i]].key != key)
        i = (i + 1) & l->slot_mask;
    return i;
}

static dil_status grow_slots(learner *l)
{
    size_t n = l->slots ? 2 * (l->slot_mask + 1) : 1u << 16;
    uint32_t *bigger = mem_alloc(n * sizeof *bigger, MEM_TEXT);
    if (!bigger)
        return no_memory(l);
    mem_free(l->slots);
    l->slots = bigger;
    l->slot_mask = n - 1;
    memset(bigger, 0xFF, n * sizeof *bigger);
    for (size_t i = 0; i < l->n_pairs; i++)
        bigger[slot_of(l, l->pairs[i].key)] = (uint32_t)i;
    return DIL_OK;
}

static dil_status new_pair(learner *l, uint32_t key, pair **out)
{
    void *pairs = l->pairs;
    DIL_TRY(room_for(l, &pairs, &l->pairs_room, l->n_pairs, sizeof *l->pairs));
    l->pairs = pairs;
    if (2 * l->n_pairs >= l->slot_mask)
        DIL_TRY(grow_slots(l));
    l->slots[slot_of(l, key)] = (uint32_t)l->n_pairs;
    *out = &l->pairs[l->n_pairs++];
    **out = (pair){.key = key, .list = NONE};
    return DIL_OK;
}

static dil_status new_node(learner *l, uint32_t *out)
{
    if (l->free_nodes != NONE) {
        *out = l->free_nodes;
        l->free_nodes = l->nodes[*out].next;
        return DIL_OK;
    }
    void *nodes = l->nodes;
    DIL_TRY(room_for(l, &nodes, &l->nodes_room, l->n_nodes, sizeof *l->nodes));
    l->nodes = nodes;
    *out = (uint32_t)l->n_nodes++;
    return DIL_OK;
}

/* One more place in the word where left stands before right. */
static dil_status count_pair(learner *l, uint16_t left, uint16_t right, uint32_t in)
{
    uint32_t key = (uint32_t)left << 16 | right, at = l->slots[slot_of(l, key)], n;
    pair *p = at == NONE ? NULL : &l->pairs[at];
    if (!p)
        DIL_TRY(new_pair(l, key, &p));
    p->count += l->words[in].count;
    if (p->list != NONE && l->nodes[p->list].word == in)
        return DIL_OK;
    DIL_TRY(new_node(l, &n));
    l->nodes[n] = (node){in, p->list};
    p->list = n;
    return DIL_OK;
}

static void uncount_pair(learner *l, uint16_t left, uint16_t right, uint32_t in)
{
    uint32_t at = l->slots[slot_of(l, (uint32_t)left << 16 | right)];
    if (at != NONE)
        l->pairs[at].count -= l->words[in].count;
}

/* ---- the heap ---- */

static bool is_better(const learner *l, const candidate *a, const candidate *b)
{
    return a->count != b->count ? a->count > b->count : l->pairs[a->pair].key < l->pairs[b->pair].key;
}

static void sift_down(learner *l, size_t i)
{
    candidate c = l->heap[i];
    for (size_t child; (child = 2 * i + 1) < l->n_heap; i = child) {
        if (child + 1 < l->n_heap && is_better(l, &l->heap[child + 1], &l->heap[child]))
            child++;
        if (!is_better(l, &l->heap[child], &c))
            break;
        l->heap[i] = l->heap[child];
    }
    l->heap[i] = c;
}

static dil_status push(learner *l, uint32_t pair_number)
{
    void *heap = l->heap;
    DIL_TRY(room_for(l, &heap, &l->heap_room, l->n_heap, sizeof *l->heap));
    l->heap = heap;
    candidate c = {l->pairs[pair_number].count, pair_number};
    size_t i = l->n_heap++;
    for (; i > 0 && is_better(l, &c, &l->heap[(i - 1) / 2]); i = (i - 1) / 2)
        l->heap[i] = l->heap[(i - 1) / 2];
    l->heap[i] = c;
    return DIL_OK;
}

static void drop_top(learner *l)
{
    l->heap[0] = l->heap[--l->n_heap];
    if (l->n_heap > 0)
        sift_down(l, 0);
}

/* Counts only fall once a pair is in the heap, so a top whose count is right is the best of all. NONE: no pair is left. */
static uint32_t take_best(learner *l)
{
    while (l->n_heap > 0) {
        candidate *top = &l->heap[0];
        uint64_t count = l->pairs[top->pair].count;
        uint32_t best = top->pair;
        if (count == 0 || count == top->count) {
            drop_top(l);
            if (count > 0)
                return best;
            continue;
        }
        top->count = count;
        sift_down(l, 0);
    }
    return NONE;
}

/* ---- merging ---- */

/* Every left, right of the word, from its start on, becomes id; counts of the pairs around follow. */
static dil_status merge_word(learner *l, uint32_t number, uint16_t left, uint16_t right, uint16_t id)
{
    word *w = &l->words[number];
    uint16_t *s = l->symbols + w->first;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < w->n; kept++) {
        if (i + 1 >= w->n || s[i] != left || s[i + 1] != right) {
            s[kept] = s[i++];
            continue;
        }
        if (kept > 0) {
            uncount_pair(l, s[kept - 1], left, number);
            DIL_TRY(count_pair(l, s[kept - 1], id, number));
        }
        if (i + 2 < w->n) {
            uncount_pair(l, right, s[i + 2], number);
            DIL_TRY(count_pair(l, id, s[i + 2], number));
        }
        s[kept] = id;
        i += 2;
    }
    w->n = kept;
    return DIL_OK;
}

/* The merge of a pair in all words that hold it; the pairs that came up are candidates. */
static dil_status merge_pair(learner *l, uint32_t best, uint16_t id)
{
    uint16_t left = (uint16_t)(l->pairs[best].key >> 16), right = (uint16_t)l->pairs[best].key;
    size_t first_new = l->n_pairs;
    for (uint32_t at = l->pairs[best].list, next; at != NONE; at = next) {
        next = l->nodes[at].next;
        DIL_TRY(merge_word(l, l->nodes[at].word, left, right, id));
        l->nodes[at].next = l->free_nodes;
        l->free_nodes = at;
    }
    l->pairs[best].count = 0;
    l->pairs[best].list = NONE;
    for (size_t i = first_new; i < l->n_pairs; i++)
        DIL_TRY(push(l, (uint32_t)i));
    return DIL_OK;
}

/* ---- from words to merges ---- */

static dil_status take_words(learner *l, const word_count *from)
{
    size_t n_symbols = 0;
    for (size_t i = 0; i < from->room; i++)
        n_symbols += from->words[i].count > 0 ? from->words[i].n : 0;
    l->symbols = mem_alloc(n_symbols * sizeof *l->symbols, MEM_TEXT);
    l->words = mem_alloc(from->n * sizeof *l->words, MEM_TEXT);
    if (!l->symbols || !l->words)
        return no_memory(l);
    size_t at = 0;
    for (size_t i = 0; i < from->room; i++) {
        const counted_word *w = &from->words[i];
        if (w->count == 0)
            continue;
        l->words[l->n_words++] = (word){w->count, at, w->n};
        for (uint32_t k = 0; k < w->n; k++)
            l->symbols[at++] = (unsigned char)w->p[k];
    }
    return DIL_OK;
}

static dil_status prepare(learner *l, const word_count *words)
{
    l->texts = arena_new(MEM_TEXT, SIZE_MAX / 2);
    l->tokens = mem_calloc(MERGES_MOST_TOKENS, sizeof *l->tokens, MEM_TEXT);
    if (!l->texts || !l->tokens)
        return no_memory(l);
    for (int b = 0; b < 256; b++) {
        l->tokens[b] = (str){arena_strdup(l->texts, (char[]){(char)b}, 1), 1};
        if (!l->tokens[b].p)
            return no_memory(l);
    }
    DIL_TRY(grow_slots(l));
    DIL_TRY(take_words(l, words));
    for (uint32_t w = 0; w < l->n_words; w++)
        for (uint32_t i = 0; i + 1 < l->words[w].n; i++)
            DIL_TRY(count_pair(l, l->symbols[l->words[w].first + i], l->symbols[l->words[w].first + i + 1], w));
    for (size_t i = 0; i < l->n_pairs; i++)
        DIL_TRY(push(l, (uint32_t)i));
    return DIL_OK;
}

static void release(learner *l)
{
    mem_free(l->symbols);
    mem_free(l->words);
    mem_free(l->pairs);
    mem_free(l->slots);
    mem_free(l->nodes);
    mem_free(l->heap);
    mem_free(l->tokens);
    arena_free(l->texts);
}

dil_status merges_learn(learnt_merge *out, int n_merges, int *n_found, const word_count *words, const str *taken, int n_taken,
                        dil_progress_fn progress, void *user, dil_error *err)
{
    learner l = {.err = err, .free_nodes = NONE, .taken = taken, .n_taken = n_taken};
    int n = 0;
    if (n_merges < 0 || n_merges > MERGES_MOST_TOKENS - 256)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "merges: wanted 0 .. %d, found %d", MERGES_MOST_TOKENS - 256, n_merges);
    dil_status status = prepare(&l, words);
    for (uint32_t best; status == DIL_OK && n < n_merges && (best = take_best(&l)) != NONE;) {
        uint32_t key = l.pairs[best].key;
        bool is_taken = false;
        status = join(&l, key, 256 + (uint32_t)n, &is_taken);
        if (status != DIL_OK || is_taken)
            continue;
        status = merge_pair(&l, best, (uint16_t)(256 + n));
        out[n++] = (learnt_merge){(uint16_t)(key >> 16), (uint16_t)key};
        if (status == DIL_OK && n % 64 == 0 && progress && !progress(user, "learning merges", (uint64_t)n, (uint64_t)n_merges))
            status = DIL_FAIL(err, DIL_CANCELLED, "learning merges: cancelled");
    }
    if (status == DIL_OK)
        *n_found = n;
    release(&l);
    return status;
}
