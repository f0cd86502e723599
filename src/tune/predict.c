#include "tune/predict.h"

#include <math.h>
#include <string.h>

#include "base/status.h"

#define NOW_SECONDS 0.1
#define NOW_ROUNDS 3
#define MANY_TOKENS 256
#define MANY_COLUMNS 2048

const char *predict_bound_name(predict_bound b)
{
    static const char *const names[] = {N_("arithmetic"), N_("reading from caches"), N_("reading from memory"),
                                        N_("meeting of threads")};
    return names[b];
}

typedef struct state {
    prediction *out;
    const predictor *p;
    const hparams *h;
    const kernel_costs *costs;
    const machine_limits *limits;
    int32_t n, n_outputs; /* rows of the batch, of them with logits */
    predict_pass pass;
} state;

static int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
static double larger(double a, double b) { return a > b ? a : b; }

double predict_speed_now(const predictor *p, int32_t n_tokens)
{
    const dil_type type = p->type_now;
    const linear_cost *then = &p->facts->costs.linear[type], *now = &p->now.linear[type];
    return now->value > 0
               ? cost_panel(then, p->k, type, MANY_COLUMNS, n_tokens) / cost_panel(now, p->k, type, MANY_COLUMNS, n_tokens)
               : 1;
}

/* Of arithmetic on vectors: as fast as that of many tokens. */
static double vectors_now(const state *s, double seconds) { return seconds / predict_speed_now(s->p, MANY_TOKENS); }

/* Seconds of a panel: as measured now, or as known and scaled by what was. */
static double panel_now(const state *s, const weight *w, int32_t n_tokens)
{
    const linear_cost *now = &s->p->now.linear[w->type];
    return now->value > 0
               ? cost_panel(now, s->p->k, w->type, w->cols, n_tokens)
               : cost_panel(&s->costs->linear[w->type], s->p->k, w->type, w->cols, n_tokens) / predict_speed_now(s->p, n_tokens);
}

static double stall_now(const state *s, dil_type type, int32_t n_tokens)
{
    const linear_cost *now = &s->p->now.linear[type];
    return cost_stall(now->value > 0 ? now : &s->costs->linear[type], n_tokens);
}

/* Work of one step: units in seconds of one thread, in n_items that cannot be divided; stall: how much of reading them comes on top. */
static void add(state *s, step_kind kind, double units, double n_items, double bytes, double stall, double macs)
{
    predict_step *t = &s->out->steps[kind];
    const int32_t threads = s->p->n_threads;
    const double rounds = ceil(n_items / threads); /* the last round leaves some without work */
    const double alone = n_items > 0 ? larger(units / threads, units * rounds / n_items) : 0;
    const double claims = ceil(n_items / threads) * s->limits->claim.best;
    /* Few rows come from all threads to all; many stay with the thread that works on them. */
    const double handed =
        s->n <= COMPUTE_FEW_ROWS ? 4.0 * s->n * s->h->n_embd * s->limits->handoff.best * (threads - 1) / threads : 0;
    const double own = (n_items > 16 * threads ? units / threads : alone) + claims + handed, far = bytes / s->out->reading;
    t->units += own;
    t->bytes_seconds += far;
    t->seconds += cost_together(own, far, stall) + s->limits->barrier.best;
    t->bytes += bytes;
    t->macs += macs;
    t->n++;
    s->out->barriers += s->limits->barrier.best;
}

/* ---- matrices ---- */

/* Units, bytes and multiply-adds of some products that share a step. */
typedef struct load {
    double units, bytes, macs;
    double stalls; /* bytes times stall */
} load;

/* Rows pass the weights in blocks, each of which expands them anew; few rows take them straight from memory. */
static void add_matrix(const state *s, load *l, const weight *w, int32_t n_rows)
{
    if (w->rows == 0 || n_rows == 0)
        return;
    const int32_t parts = s->n >= COMPUTE_PART_ROWS * s->p->n_threads ? s->p->n_threads : 1, rows = (n_rows + parts - 1) / parts;
    const int32_t blocks = rows > s->p->k->token_chunk ? (rows + s->p->k->token_chunk - 1) / s->p->k->token_chunk : 1;
    const int32_t each = (rows + blocks - 1) / blocks;
    l->units += w->n_panels * (double)(parts * blocks) * panel_now(s, w, each);
    l->bytes += (double)w->panel_bytes * w->n_panels * blocks;
    if (n_rows <= COMPUTE_FEW_ROWS) /* every item goes on somewhere else */
        l->units += s->costs->start * least(w->n_panels, COMPUTE_ITEMS_FEW * s->p->n_threads);
    l->stalls += stall_now(s, w->type, each) * (double)w->panel_bytes * w->n_panels * blocks;
    l->macs += (double)w->rows * w->cols * n_rows;
}

static void add_load(state *s, step_kind kind, load l, double vectors)
{
    add(s, kind, l.units + vectors_now(s, vectors), 8 * s->p->n_threads, l.bytes, l.bytes > 0 ? l.stalls / l.bytes : 0, l.macs);
}

static double quantize_cost(const state *s, dil_type type)
{
    const vector_cost *v = &s->costs->vector;
    return type == DIL_TYPE_F32 ? 0 : type == DIL_TYPE_F16 || type == DIL_TYPE_BF16 ? v->round_bf16 : v->quantize;
}

/* ---- the small steps ---- */

static void add_rows(state *s, step_kind kind, int32_t rows, double units_of_row, int32_t most_rows)
{
    const int32_t share = rows / (8 * s->p->n_threads), taken = share < 1 ? 1 : least(share, most_rows);
    add(s, kind, vectors_now(s, rows * units_of_row), (rows + taken - 1) / taken, 0, 0, 0);
}

static void add_norm(state *s, int32_t rows, bool post, dil_type reader)
{
    const vector_cost *v = &s->costs->vector;
    const double value = v->norm + (post ? v->norm + v->add : 0) + quantize_cost(s, reader);
    add_rows(s, STEP_NORM, rows, s->h->n_embd * value, COMPUTE_NORM_ROWS);
}

/* Bytes of K and V of one token and head. */
static double kv_token_bytes(const state *s)
{
    return (double)(kv_page_bytes(s->p->type_k, (int)s->h->head_dim) + kv_page_bytes(s->p->type_v, (int)s->h->head_dim_v)) /
           KV_PAGE;
}

/* Of n values that are cached as this type, or meet some that are. */
static double turn_cost(const state *s, dil_type type, double n) { return kv_turned(type) ? n * s->costs->vector.hadamard : 0; }

static void add_rope(state *s)
{
    const hparams *h = s->h;
    const vector_cost *v = &s->costs->vector;
    const double heads = (double)h->n_head + h->n_head_kv, norms = h->qk == QK_NORM_NONE ? 0 : heads * h->head_dim * v->norm;
    const double stored =
        h->n_head_kv * (h->head_dim * s->costs->store[s->p->type_k] + h->head_dim_v * s->costs->store[s->p->type_v]);
    const double turned = turn_cost(s, s->p->type_k, (double)h->n_head_kv * h->head_dim) +
                          turn_cost(s, s->p->type_v, (double)h->n_head_kv * h->head_dim_v);
    const double blocks = ceil(s->n / (double)COMPUTE_ROPE_TOKENS) * h->n_head_kv;
    const double written = 2.0 * s->n * kv_token_bytes(s) * h->n_head_kv; /* fetched before, written back behind */
    add(s, STEP_ROPE, vectors_now(s, s->n * (heads * h->n_rot * v->rope + norms + stored + turned)), blocks, written, 1, 0);
}

/* ---- attention ---- */

static const attention_cost *attention_now(const state *s, dil_type type)
{
    const attention_cost *now = &s->p->now.attention[type];
    return now->row_value > 0 ? now : &s->costs->attention[type];
}

static double page_units(const state *s, double rows)
{
    const attention_cost *k = attention_now(s, s->p->type_k), *v = attention_now(s, s->p->type_v);
    const double dim = 0.5 * (s->h->head_dim + s->h->head_dim_v);
    return 0.5 * (k->page + v->page + dim * (k->page_value + v->page_value) +
                  rows * (k->row + v->row + dim * (k->row_value + v->row_value)));
}

/* Pages the tokens from position first to last see; kernels take a page's slots by 16. */
static double pages_seen(const state *s, uint32_t layer_index, int32_t first, int32_t last)
{
    int32_t from = 0;
    if (s->h->windowed[layer_index] && first + 1 > (int32_t)s->h->window)
        from = first + 1 - (int32_t)s->h->window;
    return (last / 16 - from / 16 + 1) * 16.0 / KV_PAGE;
}

static void add_attention(state *s, uint32_t layer_index, bool outputs_only)
{
    const hparams *h = s->h;
    const predict_pass *pass = &s->pass;
    int heads, tokens;
    compute_attention_tile(h, COMPUTE_ATTENTION_ROWS, &heads, &tokens);
    const double blocks = ceil(h->n_head / (double)h->n_head_kv / heads) * h->n_head_kv;
    const int32_t n =
        outputs_only ? least(pass->n_tokens, (pass->n_outputs + pass->n_sequences - 1) / pass->n_sequences) : pass->n_tokens;
    const double page_bytes = KV_PAGE * kv_token_bytes(s);
    double units = 0, items = 0, bytes = 0;
    for (int32_t t = pass->n_tokens - n; t < pass->n_tokens; t += tokens) {
        const int32_t taken = least(tokens, pass->n_tokens - t), first = pass->depth + t, last = first + taken - 1;
        const double pages = pages_seen(s, layer_index, first, last);
        units += blocks * pages * page_units(s, taken * heads);
        bytes += (t == pass->n_tokens - n || pass->n_tokens > COMPUTE_SPLIT_TOKENS ? 1 : 0) * h->n_head_kv * pages * page_bytes;
        items += blocks * (pass->n_tokens * pass->n_sequences <= COMPUTE_SPLIT_TOKENS ? ceil(pages / ATTN_CHUNK) : 1);
    }
    const double out = (double)h->n_head * h->head_dim_v * n * quantize_cost(s, s->p->m->layers[layer_index].o.type) +
                       turn_cost(s, s->p->type_k, (double)h->n_head * h->head_dim * n) +
                       turn_cost(s, s->p->type_v, (double)h->n_head * h->head_dim_v * n);
    add(s, STEP_ATTENTION, pass->n_sequences * (units + vectors_now(s, out)), pass->n_sequences * items, pass->n_sequences * bytes,
        1, pass->n_sequences * units);
}

/* ---- a layer ---- */

static void add_qkv(state *s, const layer_weights *w)
{
    load l = {0};
    add_matrix(s, &l, &w->q, s->n);
    add_matrix(s, &l, &w->k, s->n);
    add_matrix(s, &l, &w->v, s->n);
    add_load(s, STEP_QKV, l, 0);
    add_rope(s);
}

/* Attention through latents: its matrices. */
static void add_latent(state *s, const latent_layer *a, const weight *q)
{
    const hparams *h = s->h;
    load down = {0}, up = {0}, absorb = {0};
    add_matrix(s, &down, &a->q_a, s->n);
    add_matrix(s, &down, &a->kv_a, s->n);
    add_matrix(s, a->q_a.rows ? &up : &down, q, s->n);
    add_matrix(s, &up, &a->q_b, s->n);
    add_matrix(s, &up, &a->kv_b, s->n);
    for (uint32_t head = 0; a->k_b && head < h->n_head; head++)
        add_matrix(s, &absorb, &a->k_b[head], s->n);
    add_load(s, STEP_LATENT_DOWN, down, 0);
    add_rows(s, STEP_LATENT_NORM, s->n, (h->latent.kv_rank + h->latent.q_rank) * s->costs->vector.norm, COMPUTE_NORM_ROWS);
    if (up.units > 0)
        add_load(s, STEP_LATENT_UP, up, 0);
    if (a->k_b)
        add_load(s, STEP_ABSORB, absorb, 0);
    else
        add_rope(s);
}

static void add_expand(state *s, const latent_layer *a, int32_t rows)
{
    load l = {0};
    for (uint32_t head = 0; a->v_b && head < s->h->n_head; head++)
        add_matrix(s, &l, &a->v_b[head], rows);
    if (a->v_b)
        add_load(s, STEP_EXPAND, l, 0);
}

static double hidden_value(const state *s, dil_type reader)
{
    const vector_cost *v = &s->costs->vector;
    return v->act[s->h->act == ACTIVATION_GELU ? 1 : s->h->act == ACTIVATION_SWIGLU_OAI ? 2 : 0] + quantize_cost(s, reader);
}

double predict_distinct_experts(const expert_params *x, int32_t n_rows)
{
    return n_rows ? x->n_experts * (1 - pow(1 - x->n_used / (double)x->n_experts, n_rows)) : 0;
}

/* Experts as tokens that choose without preference meet them: distinct ones, each with its share of the rows. */
static void add_experts(state *s, const expert_layer *e, int32_t rows)
{
    const expert_params *x = &s->h->experts;
    const vector_cost *v = &s->costs->vector;
    load route = {0};
    add_matrix(s, &route, &e->router, rows);
    add_load(s, STEP_ROUTE, route, 0);
    add_rows(s, STEP_CHOOSE, rows, 4 * x->n_experts * v->act[0], COMPUTE_NORM_ROWS);
    const double distinct = predict_distinct_experts(x, rows);
    const int32_t each = distinct > 0 ? (int32_t)larger(1, (double)rows * x->n_used / distinct + 0.5) : 0;
    const weight *all[] = {&e->experts[0].gate, &e->experts[0].up, &e->experts[0].down};
    load l = {0};
    for (int i = 0; i < 3 && each; i++) {
        const double bytes = distinct * (double)all[i]->panel_bytes * all[i]->n_panels;
        l.units += distinct * all[i]->n_panels * panel_now(s, all[i], each);
        l.bytes += bytes;
        l.stalls += bytes * stall_now(s, all[i]->type, each);
        l.macs += (double)rows * x->n_used * all[i]->rows * all[i]->cols;
    }
    const double values = (double)rows * x->n_used * x->n_ff * hidden_value(s, e->experts[0].down.type);
    add_load(s, STEP_EXPERTS, l, values + (double)rows * x->n_used * s->h->n_embd * v->add);
}

static void add_feed_forward(state *s, const layer_weights *w, int32_t rows)
{
    if (w->moe)
        add_experts(s, w->moe, rows);
    if (w->gate.rows == 0)
        return;
    load in = {0}, out = {0};
    add_matrix(s, &in, &w->gate, rows);
    add_matrix(s, &in, &w->up, rows);
    add_matrix(s, &out, &w->down, rows);
    add_load(s, STEP_GATE_UP, in, (double)rows * w->gate.rows * hidden_value(s, w->down.type));
    add_load(s, STEP_DOWN, out, (double)rows * s->h->n_embd * s->costs->vector.add);
}

static void add_layer(state *s, uint32_t i)
{
    const layer_weights *w = &s->p->m->layers[i];
    const bool last = i + 1 == s->h->n_layer;
    const int32_t rows = last ? s->n_outputs : s->n;
    load out = {0};
    add_norm(s, s->n, i > 0 && s->h->post_norm, w->latent ? w->latent->kv_a.type : w->q.type);
    if (w->latent)
        add_latent(s, w->latent, &w->q);
    else
        add_qkv(s, w);
    add_attention(s, i, last);
    if (w->latent)
        add_expand(s, w->latent, rows);
    add_matrix(s, &out, &w->o, rows);
    add_load(s, STEP_ATTN_OUT, out, (double)rows * s->h->n_embd * s->costs->vector.add);
    add_norm(s, rows, s->h->post_norm, w->moe ? w->moe->experts[0].gate.type : w->gate.type);
    add_feed_forward(s, w, rows);
}

/* ---- a pass ---- */

static double kv_bytes(const state *s)
{
    double bytes = 0;
    const double token = kv_token_bytes(s);
    for (uint32_t i = 0; i < s->h->n_layer; i++) {
        int32_t seen = s->pass.depth + s->pass.n_tokens;
        seen = s->h->windowed[i] ? least(seen, (int32_t)s->h->window) : seen;
        bytes += seen * token * s->h->n_head_kv;
    }
    return bytes * s->pass.n_sequences;
}

static void find_reading(state *s)
{
    const predictor *p = s->p;
    prediction *out = s->out;
    out->working_set = (double)compute_weight_bytes(p->m) + kv_bytes(s);
    out->reading = machine_read_rate(s->limits, out->working_set);
    if (p->reading_now > 0)
        out->reading *= p->reading_now;
}

static void find_bound(state *s)
{
    prediction *out = s->out;
    double units = 0, bytes = 0;
    for (int kind = 0; kind < STEP_KINDS; kind++) {
        units += out->steps[kind].units;
        bytes += out->steps[kind].bytes_seconds;
        out->seconds += out->steps[kind].seconds;
    }
    const double now = s->p->reading_now > 0 ? s->p->reading_now : 1, reading = out->reading / now;
    const bool far = reading < 1.25 * s->limits->curve[READ_POINTS - 1].best;
    out->bound = out->barriers > units && out->barriers > bytes ? BOUND_BARRIERS
                 : units >= bytes                               ? BOUND_ARITHMETIC
                 : far                                          ? BOUND_MEMORY
                                                                : BOUND_CACHE;
}

void predict_run(prediction *out, const predictor *p, const predict_pass *pass)
{
    memset(out, 0, sizeof *out);
    state s = {.out = out,
               .p = p,
               .h = &p->m->h,
               .costs = &p->facts->costs,
               .limits = machine_facts_limits(p->facts, p->n_threads),
               .n = pass->n_tokens * pass->n_sequences,
               .n_outputs = pass->n_outputs,
               .pass = *pass};
    find_reading(&s);
    const vector_cost *v = &s.costs->vector;
    add(&s, STEP_EMBED, s.n * (s.h->n_embd * v->quantize + (s.h->window ? 1.0 : 0.5) * s.h->n_rot * v->angle), s.n, 0, 0, 0);
    for (uint32_t i = 0; i < s.h->n_layer; i++)
        add_layer(&s, i);
    load head = {0};
    add_norm(&s, s.n_outputs, s.h->post_norm, p->m->head.type);
    add_matrix(&s, &head, &p->m->head, s.n_outputs);
    add_load(&s, STEP_HEAD, head, 0);
    find_bound(&s);
}

/* The type of weights with most of the multiply-adds. */
static dil_type main_type(const model *m)
{
    uint64_t macs[DIL_TYPE_COUNT];
    int best = 0;
    compute_macs(m, macs);
    for (int i = 1; i < DIL_TYPE_COUNT; i++)
        best = macs[i] > macs[best] ? i : best;
    return (dil_type)best;
}

/* The longer a pass takes, the more of what it reads others have driven from a shared cache meanwhile, and the longer it takes. */
static dil_status read_in_rhythm(predictor *p, const predict_pass *pass, team *t, double *pause, dil_error *err)
{
    prediction out;
    machine_rate reading;
    for (int i = 0; i < NOW_ROUNDS; i++) {
        predict_run(&out, p, pass);
        *pause = i == 0 ? 0 : fmax(0, out.seconds - out.working_set / out.reading);
        DIL_TRY(machine_measure_reading(&reading, p->machine, p->k, t, out.working_set, *pause, NOW_SECONDS, err));
        p->reading_now = reading.median / machine_read_rate(machine_facts_limits(p->facts, p->n_threads), out.working_set);
    }
    return DIL_OK;
}

static dil_status measure_now(predictor *p, const predict_pass *pass, team *t, dil_error *err)
{
    double pause = 0;
    prediction out;
    kernel_costs now;
    const dil_type type = main_type(p->m);
    DIL_TRY(read_in_rhythm(p, pass, t, &pause, err));
    predict_run(&out, p, pass);
    const costs_wanted wanted = {{type, p->m->head.type}, p->type_k, p->type_v, (uint64_t)out.working_set, pause};
    DIL_TRY(costs_measure_now(&now, p->machine, p->k, t, &wanted, err));
    if (p->facts->costs.linear[type].value > 0) {
        p->type_now = type;
        p->now = now;
    }
    return DIL_OK;
}

dil_status predict_now(predictor *p, const predict_pass *pass, dil_error *err)
{
    team *t;
    int cpus[TEAM_MAX];
    DIL_TRY(team_new(&t, p->n_threads, err));
    if (machine_thread_cpus(p->machine, cpus, p->n_threads) == p->n_threads)
        team_pin(t, cpus, NULL);
    dil_status status = measure_now(p, pass, t, err);
    team_free(t);
    return status;
}

double predict_prompt(const predictor *p, int32_t n_tokens, int32_t micro_batch, int32_t depth)
{
    double seconds = 0;
    for (int32_t done = 0, n; done < n_tokens; done += n) {
        prediction out;
        n = least(micro_batch, n_tokens - done);
        predict_run(&out, p, &(predict_pass){n, 1, depth + done, done + n == n_tokens});
        seconds += out.seconds;
    }
    return n_tokens / seconds;
}

/* The middle token stands for all. */
double predict_generation(const predictor *p, int32_t n_tokens, int32_t n_sequences, int32_t depth)
{
    prediction out;
    predict_run(&out, p, &(predict_pass){1, n_sequences, depth + n_tokens / 2, n_sequences});
    return n_sequences / out.seconds;
}
