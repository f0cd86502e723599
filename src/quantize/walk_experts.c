/*
 * Layers with fewer experts. Every token keeps the outputs of the experts it has chosen and of the one it would choose next: that is all
 * it takes to know what a token's output becomes without any one of them, so that each removal costs only the experts it makes others run.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "quantize/walk_internal.h"

#define MOST_BYTES ((size_t)1 << 30) /* of tokens that are looked at */

const float *walk_price(const walk *w) { return w->priced ? w->price : NULL; }

void walk_without(walk *w, const bool *absent)
{
    for (int e = 0; e < w->n->c.n_experts; e++)
        w->price[e] = absent[e] ? 1e30f : 0.0f; /* far from every score, and finite */
    w->priced = true;
}

typedef struct rerouting {
    walk *w;
    const walk_removal *r;
    int n_experts, n_used, n_held, n_embd; /* n_held: n_used + 1 */
    int64_t n, n_wanted;                   /* tokens; entries of wanted */
    bool absent[NET_MAX_EXPERTS];
    float *x;         /* [n][n_embd]: what experts read */
    float *z;         /* [n][n_experts]: scores */
    float *whole;     /* [n][n_embd]: output with all experts */
    float *out;       /* [n][n_held][n_embd]: of the chosen, best first, and of the next */
    int16_t *chosen;  /* [n][n_held]; -1: there is no next */
    int32_t *wanted;  /* [n * n_held]: places of out that are to be computed, as token * n_held + place */
    int32_t *sorted;  /* [n * n_held]: the same by expert */
    double *gradient; /* [n_embd]: mean square of the gradient at the layer's output */
    double *sums;     /* [blocks][n_experts + 1]: costs of going next; behind them, what is lost already */
    void *block;
    size_t n_bytes;
} rerouting;

static void carve(rerouting *m, void *base)
{
    const size_t n = (size_t)m->n, embd = (size_t)m->n_embd, held = (size_t)m->n_held, experts = (size_t)m->n_experts;
    size_t used = 0;
    m->x = mem_carve(base, &used, n * embd * sizeof(float));
    m->z = mem_carve(base, &used, n * experts * sizeof(float));
    m->whole = mem_carve(base, &used, n * embd * sizeof(float));
    m->out = mem_carve(base, &used, n * held * embd * sizeof(float));
    m->chosen = mem_carve(base, &used, n * held * sizeof(int16_t));
    m->wanted = mem_carve(base, &used, n * held * sizeof(int32_t));
    m->sorted = mem_carve(base, &used, n * held * sizeof(int32_t));
    m->gradient = mem_carve(base, &used, embd * sizeof(double));
    m->sums = mem_carve(base, &used, (size_t)crew_blocks(m->n) * (experts + 1) * sizeof(double));
    m->n_bytes = used;
}

/* ---- running experts ---- */

/* Entries [first, last) of sorted, which fit the buffers of a batch. */
static void run_piece(rerouting *m, int64_t first, int64_t last)
{
    net *t = m->w->n;
    net_layer *l = &t->layers[0];
    int32_t start[NET_MAX_EXPERTS + 1] = {0};
    const size_t embd = (size_t)m->n_embd;
    for (int64_t i = first; i < last; i++) {
        l->r.token[i - first] = m->sorted[i] / m->n_held;
        start[m->chosen[m->sorted[i]] + 1]++;
    }
    for (int e = 0; e < m->n_experts; e++)
        start[e + 1] += start[e];
    ffn_slots s = {.first = start, .token = l->r.token, .gate = l->gate, .up = l->up};
    ffn_forward(&t->crew, &l->f, &s, m->x, t->slot_y);
    for (int64_t i = first; i < last; i++)
        memcpy(m->out + (size_t)m->sorted[i] * embd, t->slot_y + (size_t)(i - first) * embd, embd * sizeof(float));
}

static void run_wanted(rerouting *m)
{
    int32_t next[NET_MAX_EXPERTS + 1] = {0};
    const int64_t most = (int64_t)m->w->batch * m->w->n_context * m->n_used;
    for (int64_t i = 0; i < m->n_wanted; i++)
        next[m->chosen[m->wanted[i]] + 1]++;
    for (int e = 0; e < m->n_experts; e++)
        next[e + 1] += next[e];
    for (int64_t i = 0; i < m->n_wanted; i++)
        m->sorted[next[m->chosen[m->wanted[i]]]++] = m->wanted[i];
    for (int64_t i = 0; i < m->n_wanted; i += most)
        run_piece(m, i, m->n_wanted - i < most ? m->n_wanted : i + most);
    m->n_wanted = 0;
}

/* ---- choosing ---- */

/* The best of those that are left and not among the first n chosen; ties to the lower number. -1: none. */
static int16_t next_best(const rerouting *m, const float *z, const int16_t *chosen, int n)
{
    int best = -1;
    for (int e = 0; e < m->n_experts; e++) {
        bool free = !m->absent[e];
        for (int i = 0; i < n && free; i++)
            free = chosen[i] != e;
        if (free && (best < 0 || z[e] > z[best]))
            best = e;
    }
    return (int16_t)best;
}

static void choose_next(rerouting *m, int64_t token, int place)
{
    int16_t *chosen = m->chosen + token * m->n_held;
    chosen[place] = next_best(m, m->z + token * m->n_experts, chosen, place);
    if (chosen[place] >= 0)
        m->wanted[m->n_wanted++] = (int32_t)(token * m->n_held + place);
}

/* Tokens that held the expert move up those behind it, and hold another one. */
static void remove_expert(rerouting *m, int expert)
{
    const size_t embd = (size_t)m->n_embd;
    m->absent[expert] = true;
    for (int64_t t = 0; t < m->n; t++) {
        int16_t *chosen = m->chosen + t * m->n_held;
        float *out = m->out + (size_t)(t * m->n_held) * embd;
        int at = 0, behind;
        while (at < m->n_held && chosen[at] != expert)
            at++;
        if (at == m->n_held)
            continue;
        behind = m->n_held - 1 - at;
        memmove(chosen + at, chosen + at + 1, (size_t)behind * sizeof *chosen);
        memmove(out + (size_t)at * embd, out + (size_t)(at + 1) * embd, (size_t)behind * embd * sizeof *out);
        choose_next(m, t, m->n_held - 1);
    }
    run_wanted(m);
}

/* ---- costs ---- */

/* Shares of the held experts but `without` (-1: the chosen ones, without the next). */
static void shares(const rerouting *m, const float *z, const int16_t *chosen, int without, float *share)
{
    float most = -INFINITY, sum = 0;
    int last = without < 0 ? m->n_used : m->n_held;
    for (int i = 0; i < last; i++)
        most = i == without ? most : fmaxf(most, z[chosen[i]]);
    for (int i = 0; i < m->n_held; i++)
        sum += share[i] = i < last && i != without ? expf(z[chosen[i]] - most) : 0.0f;
    for (int i = 0; i < m->n_held; i++)
        share[i] /= sum;
}

/* gradient . (sum of share * out - whole)^2 */
static double loss(const rerouting *m, const float *out, const float *whole, const float *share)
{
    double sum = 0;
    for (int first = 0; first < m->n_embd; first += 8) {
        float v[8];
        int n = m->n_embd - first < 8 ? m->n_embd - first : 8;
        for (int k = 0; k < n; k++)
            v[k] = -whole[first + k];
        for (int i = 0; i < m->n_held; i++)
            for (int k = 0; k < n && share[i] > 0.0f; k++)
                v[k] += share[i] * out[i * m->n_embd + first + k];
        for (int k = 0; k < n; k++)
            sum += m->gradient[first + k] * (double)v[k] * (double)v[k];
    }
    return sum;
}

static void cost_block(void *ctx, int64_t first, int n, int worker)
{
    const rerouting *m = ctx;
    double *sums = m->sums + first / BLOCK_TOKENS * (m->n_experts + 1);
    (void)worker;
    memset(sums, 0, (size_t)(m->n_experts + 1) * sizeof *sums);
    for (int64_t t = first; t < first + n; t++) {
        const float *z = m->z + t * m->n_experts, *out = m->out + (size_t)(t * m->n_held) * (size_t)m->n_embd,
                    *whole = m->whole + (size_t)t * (size_t)m->n_embd;
        const int16_t *chosen = m->chosen + t * m->n_held;
        const double of_token = (double)m->r->token_weight[t];
        float share[NET_MAX_USED + 1];
        shares(m, z, chosen, -1, share);
        double lost = loss(m, out, whole, share);
        sums[m->n_experts] += of_token * lost;
        for (int i = 0; i < m->n_used; i++) {
            shares(m, z, chosen, i, share);
            sums[chosen[i]] += of_token * (loss(m, out, whole, share) - lost);
        }
    }
}

/* The expert that goes next, and what all that have gone then cost. */
static int cheapest(rerouting *m, double *cost)
{
    double weights = 0;
    int best = -1;
    crew_tokens(&m->w->n->crew, m->n, cost_block, m);
    for (int64_t b = 1; b < crew_blocks(m->n); b++)
        for (int e = 0; e <= m->n_experts; e++)
            m->sums[e] += m->sums[b * (m->n_experts + 1) + e];
    for (int e = 0; e < m->n_experts; e++)
        if (!m->absent[e] && (best < 0 || m->sums[e] < m->sums[best]))
            best = e;
    for (int64_t t = 0; t < m->n; t++)
        weights += (double)m->r->token_weight[t];
    *cost = weights > 0 ? 0.5 * (m->sums[m->n_experts] + m->sums[best]) / weights : 0;
    return best;
}

/* ---- beginning ---- */

/* What experts read, and their scores. */
static void look(rerouting *m)
{
    walk *w = m->w;
    net_layer *l = &w->n->layers[0];
    const int64_t batch = (int64_t)w->batch * w->n_context;
    for (int64_t first = 0; first < m->n; first += batch) {
        int64_t n = m->n - first < batch ? m->n - first : batch;
        l->x_ffn = walk_state(w, first);
        layer_ffn_norm(w->n, l, NULL, n);
        memcpy(m->x + first * m->n_embd, l->normed_ffn, (size_t)(n * m->n_embd) * sizeof(float));
        memcpy(m->z + first * m->n_experts, l->r.z, (size_t)(n * m->n_experts) * sizeof(float));
    }
}

/* Row weights count an expert's share twice: the gradient of the sum is what they are for a share of 1. */
static void find_gradient(rerouting *m)
{
    float share[NET_MAX_USED + 1];
    double squares = 0;
    for (int64_t t = 0; t < m->n; t++) {
        shares(m, m->z + t * m->n_experts, m->chosen + t * m->n_held, -1, share);
        for (int i = 0; i < m->n_used; i++)
            squares += (double)share[i] * (double)share[i] / (double)m->n;
    }
    for (int r = 0; r < m->n_embd; r++) {
        m->gradient[r] = 0;
        for (int e = 0; e < m->n_experts; e++)
            m->gradient[r] += (double)m->r->row_weight[e * m->n_embd + r] / squares;
    }
}

static void find_whole(rerouting *m)
{
    float share[NET_MAX_USED + 1];
    for (int64_t t = 0; t < m->n; t++) {
        float *whole = m->whole + t * m->n_embd;
        const float *out = m->out + t * m->n_held * m->n_embd;
        shares(m, m->z + t * m->n_experts, m->chosen + t * m->n_held, -1, share);
        memset(whole, 0, (size_t)m->n_embd * sizeof *whole);
        for (int i = 0; i < m->n_used; i++)
            for (int r = 0; r < m->n_embd; r++)
                whole[r] += share[i] * out[i * m->n_embd + r];
    }
}

/* Whole sequences, as many as there is memory for. */
static dil_status take_room(rerouting *m, dil_error *err)
{
    m->n = m->w->n_context;
    carve(m, NULL);
    size_t sequences = MOST_BYTES / m->n_bytes;
    m->n *= sequences < 1 ? 1 : sequences < (size_t)m->w->n_sequences ? (int64_t)sequences : m->w->n_sequences;
    carve(m, NULL);
    m->block = mem_map(m->n_bytes, MEM_MISC);
    if (!m->block)
        return DIL_FAIL(err, DIL_NO_MEMORY, "pruning: no memory for the experts of %lld tokens", (long long)m->n);
    carve(m, m->block);
    return DIL_OK;
}

dil_status walk_remove_experts(walk *w, const walk_removal *r, dil_error *err)
{
    const net_config *c = &w->n->c;
    rerouting m = {.w = w, .r = r, .n_experts = c->n_experts, .n_used = c->n_used, .n_held = c->n_used + 1, .n_embd = c->n_embd};
    if (r->n_remove == 0)
        return DIL_OK;
    DIL_TRY(take_room(&m, err));
    look(&m);
    for (int64_t t = 0; t < m.n; t++)
        for (int i = 0; i < m.n_held; i++)
            choose_next(&m, t, i);
    run_wanted(&m);
    find_whole(&m);
    find_gradient(&m);
    for (int i = 0; i < r->n_remove; i++) {
        r->removed[i] = cheapest(&m, &r->cost[i]);
        remove_expert(&m, r->removed[i]);
    }
    walk_without(w, m.absent);
    mem_unmap(m.block, m.n_bytes, MEM_MISC);
    return DIL_OK;
}
