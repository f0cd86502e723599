#include "quantize/refine.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "quantize/calibration.h"
#include "quantize/convert.h"
#include "quantize/players.h"
#include "quantize/walk.h"

#define CHUNK_VALUES 4096 /* of whole blocks, claimed by a worker at a time */
#define CHUNK_BYTES (2 * CHUNK_VALUES)
#define STEP_TOKENS 1024
#define MOST_JUDGES 16
#define LOOKS 8    /* at the judges, in a run */
#define PATIENCE 3 /* looks without anything better end it */
#define SAVE_EVERY_NS 30000000000u

/*
 * Adam (Kingma and Ba 2015) on the logarithms of the numbers. Learning rates that suit a model of few numbers are too long for one of many,
 * whose changes add up, so a step's length is not given but found: were answers linear in the numbers, it would take this share of the
 * divergence away. A look at the judges that finds them worse off goes back to the best and halves it.
 */
#define STEP_GAIN 0.03
#define STEPS_TO_WARM 4
#define NORM_RATE 3.0f /* a norm's step, in those of scales: it has many more tokens to learn from */
#define BETA1 0.9f
#define BETA2 0.98f

/* The numbers of a tensor that may change: f16 scales of its blocks, in their order; or the values of a vector. */
typedef struct part {
    const gguf_tensor *t;
    int n_scales, at_byte[FORMAT_MOST_SCALES]; /* of a block; 0: a vector */
    size_t first, n;                           /* of all numbers */
} part;

/* What a run knows, in one piece that is saved. */
typedef struct memory {
    struct {
        int32_t step, best_step, worse, judged; /* done; of the best; looks since then; whether `before` is known */
        double before, best;
        double slope; /* of the divergence per token along the last steps, were they of rate 1; 0: not known yet */
        double pace;  /* what is left of STEP_GAIN */
    } * at;
    float *change, *mean, *square, *best; /* [n]: log of the factor; moments of its gradient; the best factors */
    void *block;
    size_t n_bytes;
} memory;

typedef struct refining {
    const refine_task *o;
    gguf *from, *in;
    walk *teacher, *student;
    int n_train, n_judges, batch; /* sequences */
    part *parts;
    int n_parts;
    size_t n;
    float *g; /* [the most of a part] */
    memory m;
    float rate;   /* of the step at hand */
    double slope; /* of the sum of divergences along it */
    uint64_t saved_ns;
} refining;

/* ---- numbers ---- */

static float number(float value, float change)
{
    float out = value * expf(change);
    return isfinite(out) ? out : value;
}

/* Work on the blocks of a tensor. */
typedef struct chunk_run {
    refining *r;
    const part *p;
    const float *g; /* of the values */
    float *out;
} chunk_run;

typedef struct chunk {
    size_t first, n, values, bytes; /* blocks; values and bytes of one */
} chunk;

static size_t n_blocks(const part *p) { return p->n / (size_t)p->n_scales; }

static bool next_chunk(const chunk_run *k, chunk *c)
{
    const format *f = format_get(k->p->t->type);
    const size_t blocks = n_blocks(k->p), each = CHUNK_VALUES / f->block_values;
    *c = (chunk){team_claim(k->r->o->workers) * each, each, f->block_values, f->block_bytes};
    if (c->first < blocks && blocks - c->first < each)
        c->n = blocks - c->first;
    return c->first < blocks;
}

/* The chunk's bytes with changed scales; all of them, or only one of each block, the other being 0. */
static void patch(const part *p, const chunk *c, const float *change, int only, uint8_t *to)
{
    memcpy(to, (const uint8_t *)p->t->data + c->first * c->bytes, c->n * c->bytes);
    change += p->first + c->first * (size_t)p->n_scales;
    for (size_t b = 0; b < c->n; b++)
        for (int s = 0; s < p->n_scales; s++) {
            uint8_t *at = to + b * c->bytes + p->at_byte[s];
            uint16_t h;
            memcpy(&h, at, sizeof h);
            h = only < 0 || only == s ? f32_to_f16(number(f16_to_f32(h), change[b * (size_t)p->n_scales + (size_t)s])) : 0;
            memcpy(at, &h, sizeof h);
        }
}

static void read_chunks(void *ctx, int worker)
{
    const chunk_run *k = ctx;
    uint8_t bytes[CHUNK_BYTES];
    chunk c;
    (void)worker;
    while (next_chunk(k, &c)) {
        patch(k->p, &c, k->r->m.change, -1, bytes);
        format_get(k->p->t->type)->decode(bytes, k->out + c.first * c.values, c.n * c.values);
    }
}

/* d value / d log scale is the scale's share of the value. */
static void find_chunks(void *ctx, int worker)
{
    const chunk_run *k = ctx;
    const part *p = k->p;
    uint8_t bytes[CHUNK_BYTES];
    float values[CHUNK_VALUES];
    chunk c;
    (void)worker;
    while (next_chunk(k, &c))
        for (int s = 0; s < p->n_scales; s++) {
            patch(p, &c, k->r->m.change, s, bytes);
            format_get(p->t->type)->decode(bytes, values, c.n * c.values);
            for (size_t b = 0; b < c.n; b++) {
                const float *g = k->g + (c.first + b) * c.values, *v = values + b * c.values;
                float sum = 0;
                for (size_t i = 0; i < c.values; i++)
                    sum += g[i] * v[i];
                k->out[(c.first + b) * (size_t)p->n_scales + (size_t)s] = sum;
            }
        }
}

/* A step of Adam; what it would gain at rate 1 is added to r->slope. */
static void step_part(refining *r, const part *p, const float *g)
{
    memory *m = &r->m;
    const float t = (float)m->at->step + 1, rate = r->rate * (p->n_scales ? 1.0f : NORM_RATE);
    const float correct1 = 1.0f / (1.0f - powf(BETA1, t)), correct2 = 1.0f / (1.0f - powf(BETA2, t));
    for (size_t i = 0; i < p->n; i++) {
        float *mean = m->mean + p->first + i, *square = m->square + p->first + i;
        *mean = BETA1 * *mean + (1.0f - BETA1) * g[i];
        *square = BETA2 * *square + (1.0f - BETA2) * g[i] * g[i];
        float by = *square > 0 ? *mean * correct1 / sqrtf(*square * correct2) : 0.0f;
        m->change[p->first + i] -= rate * by;
        r->slope += (double)(p->n_scales ? by : NORM_RATE * by) * (double)g[i];
    }
}

static const part *part_of(const refining *r, const gguf_tensor *t)
{
    for (int i = 0; i < r->n_parts; i++)
        if (r->parts[i].t == t)
            return &r->parts[i];
    return NULL;
}

static void read_tensor(void *ctx, const gguf_tensor *t, float *out)
{
    refining *r = ctx;
    const part *p = part_of(r, t);
    if (p && p->n_scales)
        team_run(r->o->workers, read_chunks, &(chunk_run){r, p, NULL, out});
    else
        format_get(t->type)->decode(t->data, out, (size_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]));
    for (size_t i = 0; p && !p->n_scales && i < p->n; i++)
        out[i] = number(out[i], r->m.change[p->first + i]);
    os_advise_drop(t->data, (size_t)t->size_bytes);
}

static void learn(void *ctx, const gguf_tensor *t, const float *g)
{
    refining *r = ctx;
    const part *p = part_of(r, t);
    if (!p)
        return;
    if (p->n_scales)
        team_run(r->o->workers, find_chunks, &(chunk_run){r, p, g, r->g});
    else
        for (size_t i = 0; i < p->n; i++)
            r->g[i] = g[i] * number(((const float *)t->data)[i], r->m.change[p->first + i]);
    os_advise_drop(t->data, (size_t)t->size_bytes);
    step_part(r, p, r->g);
}

/* ---- the run ---- */

static dil_status find_parts(refining *r, refine_result *out, dil_error *err)
{
    const uint64_t n = gguf_n_tensors(r->in);
    r->parts = mem_calloc((size_t)n + 1, sizeof *r->parts, MEM_MISC);
    if (!r->parts)
        return DIL_FAIL(err, DIL_NO_MEMORY, "refine: no memory");
    for (uint64_t i = 0; i < n; i++) {
        const gguf_tensor *t = gguf_tensor_at(r->in, i);
        part *p = &r->parts[r->n_parts];
        *p = (part){.t = t, .first = r->n};
        p->n_scales = convert_is_matrix(t) ? format_scales(t->type, p->at_byte) : 0;
        if (p->n_scales)
            p->n = (size_t)t->size_bytes / format_get(t->type)->block_bytes * (size_t)p->n_scales;
        else if (t->type == DIL_TYPE_F32 && t->n_dims == 1)
            p->n = (size_t)t->ne[0];
        *(p->n_scales ? &out->n_scales : &out->n_norms) += p->n;
        r->n += p->n;
        r->n_parts += p->n > 0;
    }
    return DIL_OK;
}

static void carve(memory *m, size_t n, void *base)
{
    size_t used = 0;
    m->at = mem_carve(base, &used, sizeof *m->at);
    m->change = mem_carve(base, &used, n * sizeof(float));
    m->mean = mem_carve(base, &used, n * sizeof(float));
    m->square = mem_carve(base, &used, n * sizeof(float));
    m->best = mem_carve(base, &used, n * sizeof(float));
    m->n_bytes = used;
}

static dil_status check_matrices(const gguf *file, dil_error *err)
{
    players p;
    DIL_TRY(players_new(&p, file, err));
    dil_status status = players_check(&p, err);
    players_free(&p);
    return status;
}

/* That the trainer knows both, and that one may have been made of the other; shapes are checked as tensors are read. */
static dil_status check_models(const refining *r, dil_error *err)
{
    const gguf_tensor *a = gguf_tensor_find(r->from, "token_embd.weight"), *b = gguf_tensor_find(r->in, "token_embd.weight");
    str of_a = {0}, of_b = {0};
    DIL_TRY(check_matrices(r->from, err));
    DIL_TRY(check_matrices(r->in, err));
    DIL_TRY(gguf_get_str(r->from, "general.architecture", &of_a, err));
    DIL_TRY(gguf_get_str(r->in, "general.architecture", &of_b, err));
    if (a && b && a->ne[0] == b->ne[0] && a->ne[1] == b->ne[1] && str_equal(of_a, of_b))
        return DIL_OK;
    return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted a file made of %s, found one of another model", gguf_path(r->in),
                    gguf_path(r->from));
}

static dil_status begin(refining *r, const char *float_path, const char *in_path, const char *out_path, refine_result *out,
                        dil_error *err)
{
    const refine_task *o = r->o;
    size_t most = 0;
    if (o->n_sequences < 2)
        return DIL_FAIL(err, DIL_LIMIT, "refine: wanted at least 2 sequences, one to learn from and one to judge by, found %d",
                        o->n_sequences);
    DIL_TRY(gguf_open(&r->from, float_path, NULL, err));
    DIL_TRY(gguf_open(&r->in, in_path, NULL, err));
    DIL_TRY(convert_check_paths(r->from, out_path, err));
    DIL_TRY(convert_check_paths(r->in, out_path, err));
    DIL_TRY(check_models(r, err));
    DIL_TRY(find_parts(r, out, err));
    for (int i = 0; i < r->n_parts; i++)
        most = r->parts[i].n > most ? r->parts[i].n : most;
    carve(&r->m, r->n, NULL);
    r->m.block = mem_map(r->m.n_bytes, MEM_MISC);
    r->g = mem_alloc((most + 1) * sizeof *r->g, MEM_MISC);
    if (!r->m.block || !r->g)
        return DIL_FAIL(err, DIL_NO_MEMORY, "refine: no memory for %zu scales and norms", r->n);
    carve(&r->m, r->n, r->m.block);
    r->n_judges = o->n_sequences / 8 < 1 ? 1 : o->n_sequences / 8 > MOST_JUDGES ? MOST_JUDGES : o->n_sequences / 8;
    r->n_train = o->n_sequences - r->n_judges;
    r->batch = o->n_context < STEP_TOKENS ? STEP_TOKENS / o->n_context : 1;
    r->batch = r->batch < r->n_train ? r->batch : r->n_train;
    DIL_TRY(walk_new(&r->teacher, r->from, o->tokens, o->n_sequences, o->n_context, o->workers, o->k, err));
    DIL_TRY(walk_new(&r->student, r->in, o->tokens, r->batch, o->n_context, o->workers, o->k, err));
    walk_read_by(r->student, read_tensor, r);
    return walk_to_end(r->teacher, o->progress, o->user, err);
}

static dil_status judge(refining *r, double *kld, dil_error *err)
{
    double sum = 0;
    for (int at = 0; at < r->n_judges; at += r->batch) {
        int n = r->n_judges - at < r->batch ? r->n_judges - at : r->batch;
        double mean;
        DIL_TRY(walk_distil(r->student, r->teacher, r->n_train + at, n, NULL, NULL, &mean, err));
        sum += mean * n;
    }
    *kld = sum / r->n_judges;
    return DIL_OK;
}

static dil_status look(refining *r, dil_error *err)
{
    memory *m = &r->m;
    double kld;
    DIL_TRY(judge(r, &kld, err));
    if (!m->at->judged) {
        m->at->before = m->at->best = kld;
        m->at->judged = true;
        m->at->pace = 1;
    } else if (kld < m->at->best) {
        m->at->best = kld;
        m->at->best_step = m->at->step;
        m->at->worse = 0;
        memcpy(m->best, m->change, r->n * sizeof *m->best);
    } else {
        m->at->worse++;
        m->at->pace /= 2;
        memcpy(m->change, m->best, r->n * sizeof *m->change);
    }
    return DIL_OK;
}

/* A share of the divergence at a time, less at first and less and less towards the end. The slope is that of the steps before; the first
 * only looks for it. */
static dil_status step(refining *r, dil_error *err)
{
    memory *m = &r->m;
    const int batches = r->n_train / r->batch, t = m->at->step;
    const double warm = t < STEPS_TO_WARM ? (double)(t + 1) / STEPS_TO_WARM : 1,
                 left = 0.5 * (1 + cos(3.14159265358979 * t / r->o->n_steps));
    double kld;
    r->rate = m->at->slope > 0 ? (float)(STEP_GAIN * m->at->pace * warm * left * m->at->best / m->at->slope) : 0.0f;
    r->slope = 0;
    DIL_TRY(walk_distil(r->student, r->teacher, t % batches * r->batch, r->batch, learn, r, &kld, err));
    const double slope = r->slope / (r->batch * r->o->n_context);
    m->at->slope = t == 0 ? slope : 0.7 * m->at->slope + 0.3 * slope;
    m->at->step++;
    return DIL_OK;
}

static dil_status save(refining *r, dil_error *err)
{
    if (!r->o->work)
        return DIL_OK;
    r->saved_ns = os_time_ns();
    return work_save(r->o->work, "scales", r->m.block, r->m.n_bytes, err);
}

static dil_status cancelled(refining *r, dil_error *err)
{
    if (!r->o->work)
        return DIL_FAIL(err, DIL_CANCELLED, "refine: cancelled; nothing was written");
    DIL_TRY(save(r, err));
    return DIL_FAIL(err, DIL_CANCELLED, "refine: cancelled; what was learnt so far is kept for --resume");
}

static dil_status run(refining *r, dil_error *err)
{
    memory *m = &r->m;
    const refine_task *o = r->o;
    const int every = (o->n_steps + LOOKS - 1) / LOOKS;
    if (o->work && !work_load(o->work, "scales", m->block, m->n_bytes))
        memset(m->block, 0, m->n_bytes);
    r->saved_ns = os_time_ns();
    if (!m->at->judged)
        DIL_TRY(look(r, err));
    while (m->at->step < o->n_steps && m->at->worse < PATIENCE) {
        if (o->progress && !o->progress(o->user, "refining", (uint64_t)m->at->step, (uint64_t)o->n_steps))
            return cancelled(r, err);
        DIL_TRY(step(r, err));
        if (m->at->step % every == 0 || m->at->step == o->n_steps)
            DIL_TRY(look(r, err));
        if (os_time_ns() - r->saved_ns > SAVE_EVERY_NS)
            DIL_TRY(save(r, err));
    }
    return save(r, err);
}

/* ---- the file ---- */

static dil_status write_part(refining *r, const part *p, gguf_writer *w, dil_error *err)
{
    if (!p->n_scales) {
        float *v = mem_alloc(p->n * sizeof *v, MEM_MISC);
        if (!v)
            return DIL_FAIL(err, DIL_NO_MEMORY, "refine: no memory");
        for (size_t i = 0; i < p->n; i++)
            v[i] = number(((const float *)p->t->data)[i], r->m.best[p->first + i]);
        dil_status status = gguf_writer_data(w, v, p->n * sizeof *v, err);
        mem_free(v);
        return status;
    }
    const format *f = format_get(p->t->type);
    const size_t blocks = n_blocks(p), each = CHUNK_VALUES / f->block_values;
    uint8_t bytes[CHUNK_BYTES];
    for (size_t b = 0; b < blocks; b += each) {
        chunk c = {b, blocks - b < each ? blocks - b : each, f->block_values, f->block_bytes};
        patch(p, &c, r->m.best, -1, bytes);
        DIL_TRY(gguf_writer_data(w, bytes, c.n * c.bytes, err));
    }
    return DIL_OK;
}

static dil_status write_all(refining *r, gguf_writer *w, dil_error *err)
{
    DIL_TRY(gguf_writer_copy_values(w, r->in, NULL, 0, err));
    for (uint64_t i = 0; i < gguf_n_tensors(r->in); i++) {
        const gguf_tensor *t = gguf_tensor_at(r->in, i);
        DIL_TRY(gguf_writer_add_tensor(w, t->name, t->type, t->n_dims, t->ne, err));
    }
    for (uint64_t i = 0; i < gguf_n_tensors(r->in); i++) {
        const gguf_tensor *t = gguf_tensor_at(r->in, i);
        const part *p = part_of(r, t);
        DIL_TRY(p ? write_part(r, p, w, err) : gguf_writer_data(w, t->data, (size_t)t->size_bytes, err));
    }
    return DIL_OK;
}

static dil_status write_file(refining *r, const char *path, dil_error *err)
{
    gguf_writer *w = NULL;
    DIL_TRY(gguf_writer_new(&w, path, err));
    dil_status status = write_all(r, w, err);
    if (status == DIL_OK)
        return gguf_writer_finish(w, err);
    gguf_writer_abort(w);
    return status;
}

static void end(refining *r)
{
    walk_free(r->teacher);
    walk_free(r->student);
    gguf_close(r->from);
    gguf_close(r->in);
    mem_free(r->parts);
    mem_free(r->g);
    if (r->m.block)
        mem_unmap(r->m.block, r->m.n_bytes, MEM_MISC);
}

dil_status refine_model(refine_result *out, const char *float_path, const char *in_path, const char *out_path,
                        const refine_task *task, dil_error *err)
{
    refining r = {.o = task};
    refine_result result = {0};
    dil_status status = begin(&r, float_path, in_path, out_path, &result, err);
    if (status == DIL_OK)
        status = run(&r, err);
    if (status == DIL_OK)
        status = write_file(&r, out_path, err);
    if (status == DIL_OK) {
        result.n_train = r.n_train;
        result.n_judges = r.n_judges;
        result.n_steps = r.m.at->step;
        result.best = r.m.at->best_step;
        result.before = r.m.at->before;
        result.after = r.m.at->best;
        *out = result;
    }
    end(&r);
    return status;
}

/* ---- alone ---- */

static dil_status take_tokens(refine_task *t, int32_t **tokens, const char *float_path, const refine_options *o, dil_error *err)
{
    gguf *file = NULL;
    const gguf_options header = {.header_only = true};
    const calibration_options co = {.text_name = o->text_name,
                                    .text = o->text,
                                    .n_sequences = o->n_sequences,
                                    .n_context = o->n_context};
    DIL_TRY(gguf_open(&file, float_path, &header, err));
    dil_status status = calibration_tokens(tokens, &t->n_sequences, file, &co, err);
    gguf_close(file);
    t->tokens = *tokens;
    return status;
}

dil_status refine_file(refine_result *out, const char *float_path, const char *in_path, const char *out_path,
                       const refine_options *o, dil_error *err)
{
    kernels k;
    team *workers = NULL;
    int32_t *tokens = NULL;
    refine_task t = {.n_context = o->n_context, .n_steps = o->n_steps, .k = &k, .progress = o->progress, .user = o->user};
    const int64_t choices[] = {o->n_sequences, o->n_context, o->n_steps, 1 /* changes with the method */};
    uint64_t key = work_hash(choices, sizeof choices, work_hash(o->text.p, o->text.n, 1));
    key = work_hash_path(in_path, work_hash_path(float_path, key));
    DIL_TRY(kernels_select(&k, NULL, err));
    DIL_TRY(take_tokens(&t, &tokens, float_path, o, err));
    dil_status status = team_new(&workers, o->n_threads, err);
    if (status == DIL_OK)
        status = work_open(&t.work, out_path, key, o->resume, err);
    t.workers = workers;
    if (status == DIL_OK)
        status = refine_model(out, float_path, in_path, out_path, &t, err);
    work_close(t.work, status == DIL_OK);
    team_free(workers);
    mem_free(tokens);
    return status;
}
