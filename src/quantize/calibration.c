#include "quantize/calibration.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "model/vocab_load.h"

#define SEED 7 /* of the words drawn */
#define SAVE_EVERY_NS 20000000000u

/* ---- text ---- */

dil_status calibration_tokens(int32_t **tokens, int *n_sequences, const gguf *file, const calibration_options *o, dil_error *err)
{
    vocab *v = NULL;
    token_list list = {0};
    DIL_TRY(vocab_from_gguf(&v, file, err));
    dil_status status = vocab_encode(v, o->text, false, false, &list, err);
    int64_t n = status == DIL_OK ? (int64_t)list.n / o->n_context : 0;
    n -= o->held < n / 4 ? o->held : n / 4;
    n = n < o->n_sequences ? n : o->n_sequences;
    if (status == DIL_OK && n < 1)
        status = DIL_FAIL(err, DIL_LIMIT, "%s: wanted a text of at least %d tokens, found %zu", o->text_name, o->n_context, list.n);
    int32_t *copy = status == DIL_OK ? mem_alloc((size_t)n * (size_t)o->n_context * sizeof *copy, MEM_MISC) : NULL;
    if (status == DIL_OK && !copy)
        status = DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for %lld tokens", o->text_name, (long long)n * o->n_context);
    if (status == DIL_OK) {
        for (int64_t i = 0; i < n * o->n_context; i++)
            copy[i] = (int32_t)list.ids[i];
        for (int64_t s = 0; s < n && vocab_adds_bos(v); s++) /* as every chunk begins when it is measured */
            copy[s * o->n_context] = (int32_t)vocab_bos(v);
        *tokens = copy;
        *n_sequences = (int)n;
    }
    token_list_free(&list);
    vocab_free(v);
    return status;
}

/* ---- memory ---- */

dil_status calibration_room(calibration *c, const players *p, dil_error *err)
{
    c->n_players = p->n;
    c->squares = mem_calloc((size_t)p->n + 1, sizeof *c->squares, MEM_MISC);
    c->counts = mem_calloc((size_t)p->n + 1, sizeof *c->counts, MEM_MISC);
    bool room = c->squares && c->counts;
    for (int i = 0; room && i < p->n; i++) {
        const player *q = &p->p[i];
        c->squares[i] = mem_calloc((size_t)q->n * (size_t)q->columns, sizeof(float), MEM_MISC);
        c->counts[i] = mem_calloc((size_t)q->n, sizeof(float), MEM_MISC);
        room = c->squares[i] && c->counts[i];
    }
    return room ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "calibration: no memory for %d matrices", p->n);
}

void calibration_free(calibration *c)
{
    for (int i = 0; i < c->n_players; i++) {
        if (c->squares)
            mem_free(c->squares[i]);
        if (c->counts)
            mem_free(c->counts[i]);
    }
    mem_free(c->squares);
    mem_free(c->counts);
    mem_free(c->tokens);
    mem_free(c->head);
    mem_free(c->gradients);
    walk_fisher_free(&c->fisher);
    *c = (calibration){0};
}

/* ---- making ---- */

static dil_status look_back(calibration *c, walk *w, const calibration_options *o, dil_error *err)
{
    uint64_t saved_ns = os_time_ns();
    DIL_TRY(walk_fisher_new(w, &c->fisher, err));
    if (o->work && !work_load(o->work, "gradients", c->fisher.block, c->fisher.n_bytes))
        memset(c->fisher.block, 0, c->fisher.n_bytes);
    DIL_TRY(walk_begin(w, err));
    while (*c->fisher.done < c->n_sequences) {
        if (o->progress && !o->progress(o->user, "gradients", (uint64_t)*c->fisher.done, (uint64_t)c->n_sequences))
            return DIL_FAIL(err, DIL_CANCELLED, "calibration: cancelled");
        DIL_TRY(walk_look_back(w, SEED, &c->fisher, err));
        bool complete = *c->fisher.done == c->n_sequences;
        if (o->work && (complete || os_time_ns() - saved_ns > SAVE_EVERY_NS)) {
            DIL_TRY(work_save(o->work, "gradients", c->fisher.block, c->fisher.n_bytes, err));
            saved_ns = os_time_ns();
        }
    }
    return DIL_OK;
}

/* Costs, head and squares as one piece that is saved. */
typedef struct costs_piece {
    double *cost; /* [players][PLAYERS_MOST_CHOICES] */
    float *head, *squares;
    void *block;
    size_t n_bytes;
} costs_piece;

static void carve_costs(costs_piece *c, const players *p, int n_embd, void *base)
{
    size_t used = 0, inputs = 0;
    for (int i = 0; i < p->n; i++)
        inputs += (size_t)p->p[i].n * ((size_t)p->p[i].columns + 1);
    c->cost = mem_carve(base, &used, (size_t)p->n * PLAYERS_MOST_CHOICES * sizeof *c->cost);
    c->head = mem_carve(base, &used, (size_t)n_embd * (size_t)n_embd * sizeof *c->head);
    c->squares = mem_carve(base, &used, inputs * sizeof *c->squares);
    c->n_bytes = used;
}

static void copy_costs(costs_piece *piece, calibration *c, players *p, bool from_piece)
{
    float *at = piece->squares;
    for (int i = 0; i < p->n; i++) {
        const player *q = &p->p[i];
        size_t values = (size_t)q->n * (size_t)q->columns, n = (size_t)q->n;
        for (int j = 0; j < q->n_choices; j++) {
            double *cost = piece->cost + (size_t)i * PLAYERS_MOST_CHOICES + j;
            if (from_piece)
                p->p[i].choice[j].cost = *cost;
            else
                *cost = q->choice[j].cost;
        }
        memcpy(from_piece ? c->squares[i] : at, from_piece ? at : c->squares[i], values * sizeof *at);
        memcpy(from_piece ? c->counts[i] : at + values, from_piece ? at + values : c->counts[i], n * sizeof *at);
        at += values + n;
    }
}

static dil_status find_costs(calibration *c, players *p, walk *w, const calibration_options *o, dil_error *err)
{
    const int n_embd = (int)walk_hparams(w)->n_embd;
    const size_t head_bytes = (size_t)n_embd * (size_t)n_embd * sizeof(float);
    costs_piece piece;
    dil_status status = DIL_OK;
    carve_costs(&piece, p, n_embd, NULL);
    piece.block = mem_calloc(1, piece.n_bytes, MEM_MISC);
    if (!piece.block)
        return DIL_FAIL(err, DIL_NO_MEMORY, "calibration: no memory for the costs of %d matrices", p->n);
    carve_costs(&piece, p, n_embd, piece.block);
    if (o->work && work_load(o->work, "costs", piece.block, piece.n_bytes)) {
        copy_costs(&piece, c, p, true);
        memcpy(c->head, piece.head, head_bytes);
    } else {
        sense s = {w, &c->fisher, o->k, o->workers, METRIC_DAMPING, c->squares, c->counts, o->progress, o->user};
        status = sense_costs(&s, p, c->head, err);
        copy_costs(&piece, c, p, false);
        memcpy(piece.head, c->head, head_bytes);
        if (status == DIL_OK && o->work)
            status = work_save(o->work, "costs", piece.block, piece.n_bytes, err);
    }
    mem_free(piece.block);
    return status;
}

dil_status calibration_make(calibration *out, players *p, walk *w, int32_t *tokens, const calibration_options *o, dil_error *err)
{
    const size_t n_embd = walk_hparams(w)->n_embd;
    calibration c = {.n_context = o->n_context,
                     .n_sequences = (int)(walk_n_tokens(w) / o->n_context),
                     .tokens = tokens,
                     .full = true};
    snprintf(c.text, sizeof c.text, "%s", o->text_name);
    c.head = mem_alloc(n_embd * n_embd * sizeof *c.head, MEM_MISC);
    dil_status status = c.head ? calibration_room(&c, p, err) : DIL_FAIL(err, DIL_NO_MEMORY, "calibration: no memory");
    if (status == DIL_OK)
        status = look_back(&c, w, o, err);
    if (status == DIL_OK)
        status = find_costs(&c, p, w, o, err);
    if (status == DIL_OK)
        *out = c;
    else
        calibration_free(&c);
    return status;
}
