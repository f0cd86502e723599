#include "tune/propose.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "theorem/game.h"
#include "tune/tile.h"

enum { TOKEN_CHOICES = 5, PANEL_CHOICES = 5, STRATEGIES = TOKEN_CHOICES * PANEL_CHOICES, PRICES = 4, STARTS = 3 };
static const int32_t token_choices[TOKEN_CHOICES] = {64, 96, 128, 192, GEMM_TOKENS_MOST};
static const int32_t panel_choices[PANEL_CHOICES] = {4, 8, 16, 32, 64};
static const double prices[PRICES] = {0, 0.01, 0.1, 1}; /* times the seconds of a layer per second level full */

#define ACT_BYTES 1.5 /* of an activation: the byte, its share of scales and sums */

/* The matrices of one step of a layer: how many rows they have in all, and of what. */
typedef struct player {
    step_kind kind;
    const weight *w[3];
    int n_weights;
    int32_t rows; /* of the batch that meet each: all, or an expert's share */
    double times; /* that the step is done with other weights: experts */
} player;

typedef struct table {
    const predictor *p;
    const machine_limits *limits;
    double near;           /* bytes of the second level a worker has for itself */
    double l2, l3, memory; /* bytes per second of one worker */
    player players[PROPOSE_STEPS];
    int32_t first[PROPOSE_STEPS + 1];
    double cost[PROPOSE_STEPS * STRATEGIES], use[PROPOSE_STEPS * STRATEGIES];
    compute_tile tile[PROPOSE_STEPS * STRATEGIES];
    swarm_graph graph;
    int64_t edges_first[PROPOSE_STEPS + 1];
    int32_t others[2 * PROPOSE_STEPS];
    float weights[2 * PROPOSE_STEPS];
    int32_t n;
} table;

static void add_player(table *t, step_kind kind, const weight *a, const weight *b, const weight *c, int32_t rows, double times)
{
    const weight *all[] = {a, b, c};
    player *p = &t->players[t->n];
    *p = (player){.kind = kind, .rows = rows, .times = times};
    for (int i = 0; i < 3; i++)
        if (all[i] && all[i]->rows)
            p->w[p->n_weights++] = all[i];
    t->n += p->n_weights > 0;
}

/* A layer in the middle stands for all. */
static void find_players(table *t, int32_t n_tokens)
{
    const model *m = t->p->m;
    const layer_weights *l = &m->layers[m->h.n_layer / 2];
    if (!l->latent)
        add_player(t, STEP_QKV, &l->q, &l->k, &l->v, n_tokens, 1);
    add_player(t, STEP_ATTN_OUT, &l->o, NULL, NULL, n_tokens, 1);
    if (l->moe) {
        const expert_weights *x = &l->moe->experts[0];
        const int32_t rows = (int32_t)((int64_t)n_tokens * m->h.experts.n_used / m->h.experts.n_experts);
        add_player(t, STEP_EXPERTS, &x->gate, &x->up, &x->down, rows > 0 ? rows : 1, m->h.experts.n_experts);
    }
    add_player(t, STEP_GATE_UP, &l->gate, &l->up, NULL, n_tokens, 1);
    add_player(t, STEP_DOWN, &l->down, NULL, NULL, n_tokens, 1);
}

/* Bytes an item goes over again and again: its tokens, one expanded panel pair, what comes out. */
static double footprint(const player *p, compute_tile tile)
{
    const double cols = p->w[0]->cols;
    return tile.tokens * cols * ACT_BYTES + 2.0 * PANEL_ROWS * cols + 4.0 * PANEL_ROWS * tile.tokens * tile.panels;
}

/* Seconds that an item's bytes take, by the trace of its kernel: what L2 gives costs next to nothing beside what is further away. */
static double far_seconds(const table *t, const weight *w, compute_tile tile, double tokens)
{
    tile_bytes b;
    dil_error ignored;
    const machine_level *l = t->p->machine->caches;
    const cache_level levels[3] = {{l[0].size_bytes, 0}, {(uint64_t)t->near, 0}, {l[2].size_bytes / (uint64_t)t->p->n_threads, 0}};
    const int panels = tile.panels < w->n_panels ? tile.panels : w->n_panels;
    const tile_shape shape = {w->type, w->cols, panels, (int)tokens};
    if (tile_measure(&b, t->p->k, &shape, levels, &ignored) != DIL_OK)
        return 0;
    return (double)panels * PANEL_ROWS * w->cols * tokens * (b.l2 / t->l2 + b.l3 / t->l3 + b.memory / t->memory);
}

/* Seconds of the step with all workers. */
static double step_seconds(const table *t, const player *p, compute_tile tile)
{
    const int32_t threads = t->p->n_threads;
    const bool by_rows = p->kind != STEP_EXPERTS && p->rows >= COMPUTE_PART_ROWS * threads;
    const double rows = by_rows ? ceil(p->rows / (double)threads) : p->rows, blocks = ceil(rows / tile.tokens);
    const double tokens = ceil(rows / blocks);
    double units = 0, items = 0;
    for (int i = 0; i < p->n_weights; i++) {
        const weight *w = p->w[i];
        const double chunks = ceil(w->n_panels / (double)tile.panels), all = blocks * (by_rows ? threads : 1) * p->times;
        const double item =
            tile.panels * cost_panel(&t->p->facts->costs.linear[w->type], t->p->k, w->type, w->cols, (int32_t)tokens);
        units +=
            all * w->n_panels / tile.panels *
            cost_together(item, far_seconds(t, w, tile, tokens), cost_stall(&t->p->facts->costs.linear[w->type], (int32_t)tokens));
        items += all * chunks;
    }
    units += items * t->limits->claim.best;
    return units / threads + 0.5 * units / items; /* at the end somebody waits for half an item */
}

/* What one step leaves for the next: rows of activations, where both of their items leave no room for it. */
static double between(void *ctx, int32_t i, int32_t s, int32_t j, int32_t u)
{
    const table *t = ctx;
    const int32_t apart = i < j ? j - i : i - j;
    const player *next = &t->players[apart == 1 ? (i < j ? j : i) : 0]; /* behind the last comes the first */
    const double handed = next->rows * (double)next->w[0]->cols * ACT_BYTES / t->p->n_threads;
    const double taken = t->use[t->first[i] + s] + t->use[t->first[j] + u] - t->near;
    return taken > 0 ? fmin(handed, taken) / t->l3 : 0;
}

static bool fits(const player *p, compute_tile tile, const kernels *k)
{
    return p->kind != STEP_GATE_UP || tile.panels * tile.tokens <= 8 * GEMM_TOKENS_MOST ||
           tile.panels <= (k->panel_chunk < 8 ? k->panel_chunk : 8);
}

static void fill_table(table *t)
{
    int32_t n = 0;
    for (int32_t i = 0; i < t->n; i++) {
        t->first[i] = n;
        for (int a = 0; a < TOKEN_CHOICES; a++)
            for (int b = 0; b < PANEL_CHOICES; b++) {
                const compute_tile tile = {panel_choices[b], token_choices[a]};
                if (!fits(&t->players[i], tile, t->p->k))
                    continue;
                t->tile[n] = tile;
                t->use[n] = footprint(&t->players[i], tile);
                t->cost[n++] = step_seconds(t, &t->players[i], tile);
            }
    }
    t->first[t->n] = n;
}

/* A ring: the last step of a layer leaves its rows to the first of the next one. */
static void fill_graph(table *t)
{
    int64_t at = 0;
    for (int32_t i = 0; i < t->n; i++) {
        const int32_t a = (i + t->n - 1) % t->n, b = (i + 1) % t->n;
        t->edges_first[i] = at;
        for (int side = 0; side < 2; side++) {
            const int32_t other = (side == 0) == (a < b) ? a : b;
            if (other == i || (side == 1 && a == b))
                continue;
            t->others[at] = other;
            t->weights[at++] = 1;
        }
    }
    t->edges_first[t->n] = at;
    t->graph = (swarm_graph){.n = t->n, .first = t->edges_first, .other = t->others, .weight = t->weights};
}

static compute_tile usual_tile(const kernels *k, step_kind kind)
{
    return (compute_tile){kind == STEP_GATE_UP && k->panel_chunk > 8 ? 8 : k->panel_chunk, k->token_chunk};
}

static bool same_tiles(const compute_tuning *a, const compute_tuning *b) { return memcmp(a->tile, b->tile, sizeof a->tile) == 0; }

static int by_seconds(const void *a, const void *b)
{
    const double x = ((const proposal *)a)->seconds, y = ((const proposal *)b)->seconds;
    return (x > y) - (x < y);
}

int propose_tiles(const predictor *p, int32_t n_tokens, proposal *out, int most, double *usual)
{
    const machine_limits *l = machine_facts_limits(p->facts, p->n_threads);
    const machine_level *l2 = &p->machine->caches[1];
    table t = {.p = p, .limits = l};
    t.near = (double)(l2->size_bytes ? l2->size_bytes : 1 << 20) / (l2->n_cores > 0 ? l2->n_cores : 1) * 0.75;
    t.l3 = machine_read_rate(l, (double)machine_read_point(1)) / p->n_threads;
    t.memory = machine_read_rate(l, (double)compute_weight_bytes(p->m)) / p->n_threads;
    t.l2 = l->l2.best > 0 ? l->l2.best / p->n_threads : 2 * t.l3;
    find_players(&t, n_tokens);
    fill_table(&t);
    fill_graph(&t);
    *usual = 0;
    for (int32_t i = 0; i < t.n; i++)
        *usual += step_seconds(&t, &t.players[i], usual_tile(p->k, t.players[i].kind));
    const game g = {
        .n_players = t.n, .first = t.first, .cost = t.cost, .use = t.use, .graph = &t.graph, .pair = between, .ctx = &t};
    int n = 0;
    for (int i = 0; i < PRICES * STARTS && n < most; i++) {
        int32_t state[PROPOSE_STEPS] = {0};
        game_report report;
        dil_error ignored;
        const double price = prices[i / STARTS] * *usual / t.near;
        if (game_settle(&g, price, &(game_options){.seed = (uint64_t)(i % STARTS)}, state, &report, &ignored) != DIL_OK)
            break;
        proposal found = {.price = price};
        bool known = true;
        for (int32_t j = 0; j < t.n; j++) {
            const compute_tile tile = t.tile[t.first[j] + state[j]], now = usual_tile(p->k, t.players[j].kind);
            found.tuning.tile[t.players[j].kind] = tile;
            found.seconds += t.cost[t.first[j] + state[j]];
            known = known && tile.panels == now.panels && tile.tokens == now.tokens;
        }
        for (int j = 0; j < n; j++)
            known = known || same_tiles(&out[j].tuning, &found.tuning);
        if (!known)
            out[n++] = found;
    }
    qsort(out, (size_t)n, sizeof *out, by_seconds);
    return n;
}
