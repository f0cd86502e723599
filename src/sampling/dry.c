/*
 * DRY: finding the repetitions in linear time (Z algorithm, read backwards) and where breakers cut
 * them.
 */
#include <math.h>

#include "base/mem.h"
#include "base/status.h"
#include "sampling/history.h"

enum { BREAKER_BYTES = 40, TAIL_TOKENS = 20, BREAKERS_MAX = 1 << 20 };

typedef struct breaker_list {
    dry_breaker *v;
    int32_t n, capacity;
} breaker_list;

/*
 * Adds (head, tail) unless it is there already; entries of one head are neighbours at the end of
 * the list.
 */
static dil_status add_breaker(breaker_list *l, const dry_breaker *b, dil_error *err)
{
    for (int32_t i = l->n - 1; i >= 0 && l->v[i].head == b->head; i--) {
        if (l->v[i].n_tail == b->n_tail && memcmp(l->v[i].tail, b->tail, sizeof b->tail) == 0)
            return DIL_OK;
    }
    if (l->n == l->capacity) {
        int32_t capacity = l->capacity ? 2 * l->capacity : 64;
        if (capacity > BREAKERS_MAX)
            return DIL_FAIL(err, DIL_LIMIT, "sampler: DRY breakers match more than %d ways", BREAKERS_MAX);
        void *grown = mem_grow(l->v, (size_t)capacity * sizeof *l->v, MEM_SAMPLING);
        if (!grown)
            return DIL_FAIL(err, DIL_NO_MEMORY, "sampler: no memory for %d DRY breakers", capacity);
        l->v = grown;
        l->capacity = capacity;
    }
    l->v[l->n++] = *b;
    return DIL_OK;
}

/* The tail of a breaker whose first bytes ended a token: its own tokens, at most 20. */
static dil_status tokenize_tail(const vocab *v, str rest, dry_breaker *b, dil_error *err)
{
    token_list ids = {NULL, 0, 0};
    dil_status status = vocab_encode(v, rest, false, false, &ids, err);
    if (status == DIL_OK) {
        b->n_tail = ids.n > TAIL_TOKENS ? TAIL_TOKENS : (int32_t)ids.n;
        if (b->n_tail > 0)
            memcpy(b->tail, ids.ids, (size_t)b->n_tail * sizeof *ids.ids);
    }
    token_list_free(&ids);
    return status;
}

/*
 * A token holds the whole breaker, or some of its ends are the breaker's beginning: each is one way
 * to break.
 */
static dil_status match_token(breaker_list *l, const vocab *v, token_id id, str word, str text, dil_error *err)
{
    if (str_find(word, text) >= 0)
        return add_breaker(l, &(dry_breaker){.head = id}, err);
    size_t first = word.n >= text.n ? word.n - text.n + 1 : 0;
    for (size_t at = first; at < word.n; at++) {
        size_t overlap = word.n - at;
        if (memcmp(word.p + at, text.p, overlap) != 0)
            continue;
        dry_breaker b = {.head = id};
        DIL_TRY(tokenize_tail(v, (str){text.p + overlap, text.n - overlap}, &b, err));
        DIL_TRY(add_breaker(l, &b, err));
    }
    return DIL_OK;
}

static dil_status find_breakers(breaker_list *l, const sampler_options *o, const vocab *v, int32_t n_vocab, dil_error *err)
{
    static const char *const usual[] = {"\n", ":", "\"", "*"};
    const char *const *texts = o->dry_breakers ? o->dry_breakers : usual;
    int32_t n_texts = o->dry_breakers ? o->n_dry_breakers : 4;
    strbuf word = STRBUF(1 << 20);
    dil_status status = DIL_OK;

    for (token_id id = 0; id < n_vocab && status == DIL_OK; id++) {
        strbuf_clear(&word);
        vocab_decode_token(v, id, true, &word);
        for (int32_t t = 0; t < n_texts && status == DIL_OK && word.n > 0; t++) {
            str text = str_of(texts[t]);
            text.n = text.n > BREAKER_BYTES ? BREAKER_BYTES : text.n;
            if (text.n > 0)
                status = match_token(l, v, id, strbuf_str(&word), text, err);
        }
    }
    strbuf_free(&word);
    return status;
}

dil_status dry_init(dry *d, const sampler_options *o, const vocab *v, int32_t n_vocab, dil_error *err)
{
    breaker_list list = {NULL, 0, 0};

    *d = (dry){.window = o->dry_last_n < 0 || o->dry_last_n > HISTORY_MAX ? HISTORY_MAX : o->dry_last_n};
    d->longest = mem_calloc((size_t)n_vocab, sizeof *d->longest, MEM_SAMPLING);
    d->touched = mem_calloc((size_t)n_vocab, sizeof *d->touched, MEM_SAMPLING);
    d->z = mem_map((size_t)d->window * sizeof *d->z, MEM_SAMPLING);
    if (!d->longest || !d->touched || !d->z)
        return DIL_FAIL(err, DIL_NO_MEMORY, "sampler: no memory for DRY over %d tokens", n_vocab);
    dil_status status = DIL_OK;
    if (v)
        status = find_breakers(&list, o, v, vocab_size(v) < n_vocab ? vocab_size(v) : n_vocab, err);
    d->breakers = list.v;
    d->n_breakers = list.n;
    return status;
}

void dry_free(dry *d)
{
    mem_free(d->breakers);
    mem_free(d->longest);
    mem_free(d->touched);
    if (d->z)
        mem_unmap(d->z, (size_t)d->window * sizeof *d->z, MEM_SAMPLING);
    *d = (dry){0};
}

/* Index of the first breaker whose head is >= id. */
static int32_t first_breaker(const dry *d, token_id id)
{
    int32_t low = 0, high = d->n_breakers;
    while (low < high) {
        int32_t mid = low + (high - low) / 2;
        if (d->breakers[mid].head < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/*
 * Length of the longest tail that follows the token i back from the end, when that token is a head;
 * else -1.
 */
static int32_t breaker_tail(const dry *d, const history *h, int32_t i)
{
    token_id head = history_back(h, i);
    int32_t longest = -1;
    for (int32_t b = first_breaker(d, head); b < d->n_breakers && d->breakers[b].head == head; b++) {
        int32_t n = d->breakers[b].n_tail, t = 0;
        if (n <= longest || n > i)
            continue;
        while (t < n && d->breakers[b].tail[t] == history_back(h, i - t - 1))
            t++;
        if (t == n)
            longest = n;
    }
    return longest;
}

/* How many of the last n tokens lie after the last complete breaker. */
static int32_t unbroken(const dry *d, const history *h, int32_t n)
{
    if (d->n_breakers == 0)
        return n;
    for (int32_t i = 0; i < n; i++) {
        int32_t tail = breaker_tail(d, h, i);
        if (tail >= 0)
            return i - tail;
    }
    return n;
}

/*
 * z[k] = how many tokens, read backwards, the text ending k tokens ago has in common with the end
 * of the text. [left, right) is the match that reaches furthest; inside it z is known from the
 * mirrored position.
 */
static void common_suffixes(int32_t *z, const history *h, int32_t n)
{
    int32_t left = 0, right = 0;
    for (int32_t k = 1; k < n; k++) {
        int32_t same = 0;
        if (k < right) {
            same = z[k - left] < right - k ? z[k - left] : right - k;
        }
        while (k + same < n && history_back(h, same) == history_back(h, k + same))
            same++;
        z[k] = same;
        if (k + same > right) {
            left = k;
            right = k + same;
        }
    }
}

static bool is_single_breaker(const dry *d, token_id id)
{
    for (int32_t b = first_breaker(d, id); b < d->n_breakers && d->breakers[b].head == id; b++) {
        if (d->breakers[b].n_tail == 0)
            return true;
    }
    return false;
}

void dry_apply(dry *d, const history *h, const sampler_options *o, float *logits)
{
    int32_t n = h->n < d->window ? h->n : d->window, n_touched = 0;
    if (n <= o->dry_allowed_length)
        return;
    int32_t limit = unbroken(d, h, n);
    if (limit < o->dry_allowed_length)
        return;
    common_suffixes(d->z, h, n);
    for (int32_t k = 1; k < n; k++) {
        int32_t length = d->z[k] < limit ? d->z[k] : limit;
        token_id next = history_back(h, k - 1); /* what followed the earlier occurrence */
        if (length < o->dry_allowed_length || d->longest[next] > length)
            continue;
        if (d->longest[next] == 0)
            d->touched[n_touched++] = next;
        d->longest[next] = length + 1;
    }
    /* base^e stays a float: e <= log(FLT_MAX) / log(base) */
    double most = o->dry_base > 1.000001f ? 88.7228391 / log((double)o->dry_base) : 0.0;
    int32_t exponent_max = most > 1e9 ? 0 : (int32_t)most;
    for (int32_t i = 0; i < n_touched; i++) {
        token_id id = d->touched[i];
        int32_t exponent = d->longest[id] - 1 - o->dry_allowed_length;
        d->longest[id] = 0;
        if (exponent_max > 0 && exponent > exponent_max)
            exponent = exponent_max;
        if (!is_single_breaker(d, id))
            logits[id] -= o->dry_multiplier * (float)pow((double)o->dry_base, exponent);
    }
}
