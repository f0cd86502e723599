/* Which format every matrix gets: as one file or one type says, by the game for a size, or by attempts for a budget. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "quantize/compress_internal.h"

#define BUDGET_SPENT 0.9 /* share of a budget that is enough: nothing smaller is tried */
#define BUDGET_AIM 0.96  /* what attempts aim at */

/* The type of a file that the result shall be like. */
static dil_status fix_as_there(const compression *c, player *p, const char *name, dil_type type, dil_error *err)
{
    const format *f = format_get(type);
    if (!f->encode)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: tensor '%s': wanted a type that can be written, found %s", c->o->like, name,
                        f->name);
    if (!format_is_stock(type) && !c->o->own_formats)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                        "%s: tensor '%s': wanted a type that every engine reads, or --no-keep-stock; found %s", c->o->like, name,
                        f->name);
    player_fix(p, type);
    return DIL_OK;
}

static dil_status choose_like(compression *c, dil_error *err)
{
    gguf *other = NULL;
    gguf_options header = {.header_only = true};
    DIL_TRY(gguf_open(&other, c->o->like, &header, err));
    dil_status status = DIL_OK;
    for (int i = 0; status == DIL_OK && i < c->p.n; i++) {
        char name[128];
        snprintf(name, sizeof name, "%.*s", STR_ARG(c->p.p[i].tensor->name));
        const gguf_tensor *t = gguf_tensor_find(other, name);
        if (!t || t->ne[0] != (uint64_t)c->p.p[i].columns || t->ne[1] != (uint64_t)c->p.p[i].rows)
            status = DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: tensor '%s': wanted one of %d x %d, found %s", c->o->like, name,
                              c->p.p[i].rows, c->p.p[i].columns, t ? _("another shape") : _("none"));
        else
            status = fix_as_there(c, &c->p.p[i], name, t->type, err);
    }
    gguf_close(other);
    return status;
}

static uint64_t wanted_size(const compression *c)
{
    if (c->o->size_bytes)
        return c->o->size_bytes;
    return c->p.fixed_bytes + (uint64_t)((double)players_values(&c->p) * c->o->bits / 8.0) + (uint64_t)c->p.n * 16;
}

/* The cost of the format each player was given, where it was measured. */
static double cost_of(const players *measured, int i, dil_type type)
{
    for (int j = 0; j < measured->p[i].n_choices; j++)
        if (measured->p[i].choice[j].type == type)
            return measured->p[i].choice[j].cost;
    return (double)NAN;
}

/* What could be had at other sizes, from the smallest to the largest. */
static dil_status draw_curve(compression *c, allocate_goal goal, compress_report *r, dil_error *err)
{
    double least = 0, most = 0;
    for (int i = 0; i < c->p.n; i++) {
        least += (double)c->p.p[i].choice[0].bytes;
        most += (double)c->p.p[i].choice[c->p.p[i].n_choices - 1].bytes;
    }
    for (int i = 0; i < COMPRESS_CURVE; i++) {
        double part = (double)(i + 1) / (COMPRESS_CURVE + 1), size = least * pow(most / least, part);
        goal.file_bytes = c->p.fixed_bytes + (uint64_t)size + (uint64_t)c->p.n * 32;
        DIL_TRY(allocate_size(&c->p, &goal, &r->curve[r->n_curve++], err));
    }
    return DIL_OK;
}

dil_status compress_choose(compression *c, double allowed, compress_report *r, dil_error *err)
{
    if (c->o->bits > 0 || c->o->size_bytes || c->o->budget > 0) {
        const allocate_goal goal = {.file_bytes = wanted_size(c),
                                    .second_price = c->o->second_price,
                                    .model = recipe_model_of(walk_hparams(c->w), &c->p)};
        if (r->n_curve == 0)
            DIL_TRY(draw_curve(c, goal, r, err));
        DIL_TRY(c->o->budget > 0 ? allocate_cost(&c->p, allowed, &goal, &r->allocation, err)
                                 : allocate_size(&c->p, &goal, &r->allocation, err));
        r->allocated = true;
        r->second_price = c->o->second_price;
    } else {
        players measured = c->p;
        measured.p = mem_alloc((size_t)c->p.n * sizeof *measured.p, MEM_MISC);
        if (!measured.p)
            return DIL_FAIL(err, DIL_NO_MEMORY, "quantize: no memory for %d matrices", c->p.n);
        memcpy(measured.p, c->p.p, (size_t)c->p.n * sizeof *measured.p);
        dil_status status = c->o->like ? choose_like(c, err) : DIL_OK;
        for (int i = 0; status == DIL_OK && i < c->p.n; i++) {
            if (!c->o->like)
                player_fix(&c->p.p[i], c->o->type);
            c->p.p[i].choice[0].cost = cost_of(&measured, i, c->p.p[i].choice[0].type);
        }
        mem_free(measured.p);
        DIL_TRY(status);
    }
    r->predicted = players_cost(&c->p);
    return DIL_OK;
}

/* ---- within a budget ---- */

static void attempt_name(const compression *c, char out[32]) { snprintf(out, 32, "attempt %d", c->attempt + 1); }

/* A file whose expected divergence is at most allowed, and what it really costs. */
static dil_status attempt(compression *c, compress_report *r, double allowed, const char *in_path, dil_error *err)
{
    char name[32], path[4096];
    compress_attempt *a = &r->attempt[r->n_attempts++];
    attempt_name(c, name);
    DIL_TRY(compress_choose(c, allowed, r, err));
    DIL_TRY(compress_take_room(c, err));
    *a = (compress_attempt){players_bytes(&c->p), r->predicted, c->o->distance + r->predicted};
    const size_t n = sizeof r->kld + sizeof r->kld_error + sizeof r->same_top;
    double measured[3];
    if (c->o->dry_run || c->held.n_sequences == 0)
        return DIL_OK;
    if (!work_load(c->work, name, measured, n)) {
        work_path(c->work, "attempt.gguf", path, sizeof path);
        DIL_TRY(walk_restart(c->w, err));
        DIL_TRY(compress_settle(c, err));
        DIL_TRY(compress_write(c, path, err));
        DIL_TRY(compress_measure(c, r, in_path, path, err));
        memcpy(measured, (double[]){r->kld, r->kld_error, r->same_top}, n);
        DIL_TRY(work_save(c->work, name, measured, n, err));
    }
    r->measured = true;
    r->kld = measured[0];
    r->kld_error = measured[1];
    r->same_top = measured[2];
    a->found = r->kld;
    return DIL_OK;
}

/* The smallest of the attempts within the budget; -1: there is none. */
static int best_attempt(const compress_report *r, double budget)
{
    int best = -1;
    for (int i = 0; i < r->n_attempts; i++)
        if (r->attempt[i].found <= budget && (best < 0 || r->attempt[i].bytes < r->attempt[best].bytes))
            best = i;
    return best;
}

/* What may be expected next, for all of the budget to be spent: what the input has lost already is not quantization's. */
static double corrected(const compression *c, const compress_attempt *a)
{
    const double distance = c->o->distance, lost = a->found - distance;
    return BUDGET_AIM * (c->o->budget - distance) * a->expected / (lost > 0.25 * a->expected ? lost : 0.25 * a->expected);
}

dil_status compress_spend_budget(compression *c, compress_report *r, const char *in_path, dil_error *err)
{
    const double budget = c->o->budget;
    double allowed = budget - c->o->distance, allowed_at[COMPRESS_MOST_ATTEMPTS];
    for (int most = COMPRESS_MOST_ATTEMPTS - 2; c->attempt < most; c->attempt++) {
        allowed_at[c->attempt] = allowed;
        DIL_TRY(attempt(c, r, allowed, in_path, err));
        const compress_attempt *a = &r->attempt[c->attempt];
        int best = best_attempt(r, budget);
        if (best < 0 && c->attempt + 1 == most && most < COMPRESS_MOST_ATTEMPTS)
            most++;
        bool floor = a->found <= budget && a->expected < BUDGET_SPENT * allowed; /* as small as formats or bits allow */
        bool again = c->attempt > 0 && a->bytes == r->attempt[c->attempt - 1].bytes;
        if (floor || again || (a->found <= budget && a->found >= BUDGET_SPENT * budget))
            break;
        allowed = corrected(c, a);
    }
    r->taken = best_attempt(r, budget);
    if (r->taken < 0)
        return DIL_FAIL(err, DIL_LIMIT, "quality budget: wanted at most %.3g nats per token, found %.3g after %d attempts", budget,
                        r->attempt[r->n_attempts - 1].found, r->n_attempts);
    const int last = r->n_attempts - 1;
    c->attempt = r->taken;
    if (r->taken == last)
        return DIL_OK;
    r->n_attempts = r->taken;
    DIL_TRY(attempt(c, r, allowed_at[r->taken], in_path, err)); /* everything is there: its choice, and what was measured */
    r->n_attempts = last + 1;
    return DIL_OK;
}
