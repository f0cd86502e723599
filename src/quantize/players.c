#include "quantize/players.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "model/arch.h"
#include "quantize/convert.h"

#define ALIGNMENT 32 /* of tensors in a file */

static const char *const suffixes[NET_PLACES][2] = {
    [NET_Q] = {"attn_q.weight", NULL},
    [NET_K] = {"attn_k.weight", NULL},
    [NET_V] = {"attn_v.weight", NULL},
    [NET_OUTPUT] = {"attn_output.weight", NULL},
    [NET_GATE] = {"ffn_gate.weight", "ffn_gate_exps.weight"},
    [NET_UP] = {"ffn_up.weight", "ffn_up_exps.weight"},
    [NET_DOWN] = {"ffn_down.weight", "ffn_down_exps.weight"},
};

/* Layer and place from the name. */
static void find_place(player *p, str name)
{
    char text[96];
    p->layer = -1;
    if (str_equal(name, STR("token_embd.weight")) || str_equal(name, STR("output.weight"))) {
        p->place = str_equal(name, STR("output.weight")) ? PLACE_HEAD : PLACE_EMBEDDING;
        return;
    }
    int behind = 0;
    snprintf(text, sizeof text, "%.*s", STR_ARG(name));
    if (sscanf(text, "blk.%d.%n", &p->layer, &behind) != 1 || behind == 0)
        behind = 0;
    for (p->place = 0; behind && p->place < NET_PLACES; p->place++)
        for (int i = 0; i < 2; i++)
            if (suffixes[p->place][i] && strcmp(text + behind, suffixes[p->place][i]) == 0)
                return;
    p->place = PLACE_OTHER;
}

dil_status players_check(const players *p, dil_error *err)
{
    for (int i = 0; i < p->n; i++)
        if (p->p[i].place == PLACE_OTHER)
            return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: tensor '%.*s': wanted a matrix of an architecture the trainer knows",
                            gguf_path(p->file), STR_ARG(p->p[i].tensor->name));
    return DIL_OK;
}

int players_named(const players *p, str name)
{
    for (int i = 0; i < p->n; i++)
        if (str_equal(p->p[i].tensor->name, name))
            return i;
    return -1;
}

uint64_t players_padded(uint64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* Names tell what matrices are for in models; elsewhere every matrix is one. */
static dil_status names_tell(bool *out, const gguf *file, dil_error *err)
{
    str architecture = STR("");
    DIL_TRY(gguf_get_str(file, "general.architecture", &architecture, err));
    *out = arch_find(architecture) != NULL;
    return DIL_OK;
}

static bool takes_part(const gguf_tensor *t, bool named)
{
    return named ? convert_is_matrix(t) : t->ne[1] * t->ne[2] * t->ne[3] > 1 && format_get(t->type)->decode;
}

dil_status players_new(players *out, const gguf *file, dil_error *err)
{
    players p = {.file = file, .tied = gguf_tensor_find(file, "output.weight") == NULL};
    bool named;
    DIL_TRY(names_tell(&named, file, err));
    uint64_t n = gguf_n_tensors(file);
    p.p = mem_calloc((size_t)n + 1, sizeof *p.p, MEM_MISC);
    if (!p.p)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for %llu tensors", gguf_path(file), (unsigned long long)n);
    uint64_t payload = 0;
    for (uint64_t i = 0; i < n; i++) {
        const gguf_tensor *t = gguf_tensor_at(file, i);
        payload += players_padded(t->size_bytes);
        if (!takes_part(t, named)) {
            uint64_t values = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
            p.fixed_bytes +=
                players_padded(convert_tensor_type(t, DIL_TYPE_F16) == DIL_TYPE_F32 ? values * sizeof(float) : t->size_bytes);
            continue;
        }
        player *q = &p.p[p.n++];
        *q = (player){.tensor = t, .n = (int)(t->ne[2] * t->ne[3]), .rows = (int)t->ne[1], .columns = (int)t->ne[0]};
        find_place(q, t->name);
    }
    uint64_t size = gguf_size_bytes(file);
    p.fixed_bytes += size > payload ? size - payload : 0;
    *out = p;
    return DIL_OK;
}

void players_free(players *p)
{
    mem_free(p->p);
    *p = (players){0};
}

player *players_find(const players *p, int layer, int place)
{
    for (int i = 0; i < p->n; i++)
        if (p->p[i].layer == layer && p->p[i].place == place)
            return &p->p[i];
    return NULL;
}

uint64_t player_bytes(const player *p, dil_type type)
{
    uint64_t row;
    return format_row_bytes(type, (uint64_t)p->columns, &row) ? row * (uint64_t)p->rows * (uint64_t)p->n : 0;
}

static int by_bytes(const void *a, const void *b)
{
    const player_choice *x = a, *y = b;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes ? 1 : (int)x->type - (int)y->type;
}

void player_offer(player *p)
{
    static const dil_type offered[] = {DIL_TYPE_IQ1_S, DIL_TYPE_IQ1_M,  DIL_TYPE_TQ1_0,  DIL_TYPE_TQ2_0,  DIL_TYPE_IQ2_XXS,
                                       DIL_TYPE_Q2_0,  DIL_TYPE_IQ2_XS, DIL_TYPE_IQ2_S,  DIL_TYPE_Q2_K,   DIL_TYPE_IQ3_XXS,
                                       DIL_TYPE_IQ3_S, DIL_TYPE_Q3_K,   DIL_TYPE_IQ4_XS, DIL_TYPE_IQ4_NL, DIL_TYPE_Q4_0,
                                       DIL_TYPE_Q4_K,  DIL_TYPE_Q4_1,   DIL_TYPE_Q5_0,   DIL_TYPE_Q5_K,   DIL_TYPE_Q5_1,
                                       DIL_TYPE_Q6_K,  DIL_TYPE_Q8_0,   DIL_TYPE_F16,    DIL_TYPE_D3_0,   DIL_TYPE_D6_0};
    p->n_choices = 0;
    for (size_t i = 0; i < sizeof offered / sizeof *offered; i++) {
        uint64_t bytes = player_bytes(p, offered[i]);
        if (bytes && bytes <= player_bytes(p, DIL_TYPE_F16))
            p->choice[p->n_choices++] = (player_choice){offered[i], bytes, (double)NAN, 0};
    }
    qsort(p->choice, (size_t)p->n_choices, sizeof *p->choice, by_bytes);
}

dil_status players_time(players *p, const double *weights_per_second, int n_used, dil_error *err)
{
    for (int i = 0; i < p->n; i++) {
        player *q = &p->p[i];
        double read = (double)q->rows * q->columns * (q->n > 1 && n_used < q->n ? n_used : q->n);
        if (q->place == PLACE_EMBEDDING && !p->tied) /* one row */
            read = (double)q->columns;
        for (int c = 0; c < q->n_choices; c++) {
            double rate = weights_per_second[q->choice[c].type];
            if (!(rate > 0))
                return DIL_FAIL(err, DIL_UNSUPPORTED, "speed: wanted a measured speed of %s, found none",
                                format_get(q->choice[c].type)->name);
            q->choice[c].seconds = read / rate;
        }
    }
    return DIL_OK;
}

void player_keep_stock(player *p)
{
    int n = 0;
    for (int i = 0; i < p->n_choices; i++)
        if (format_is_stock(p->choice[i].type))
            p->choice[n++] = p->choice[i];
    p->n_choices = n;
}

bool players_are_stock(const players *p)
{
    for (int i = 0; i < p->n; i++)
        if (!format_is_stock(p->p[i].choice[p->p[i].chosen].type))
            return false;
    return true;
}

void player_fix(player *p, dil_type type)
{
    type = convert_tensor_type(p->tensor, type);
    p->n_choices = 1;
    p->chosen = 0;
    p->choice[0] = (player_choice){type, player_bytes(p, type), (double)NAN, 0};
}

uint64_t players_bytes(const players *p)
{
    uint64_t sum = p->fixed_bytes;
    for (int i = 0; i < p->n; i++)
        sum += players_padded(p->p[i].choice[p->p[i].chosen].bytes);
    return sum;
}

uint64_t players_matrix_bytes(const players *p)
{
    uint64_t sum = 0;
    for (int i = 0; i < p->n; i++)
        sum += p->p[i].choice[p->p[i].chosen].bytes;
    return sum;
}

uint64_t players_values(const players *p)
{
    uint64_t sum = 0;
    for (int i = 0; i < p->n; i++)
        sum += (uint64_t)p->p[i].n * (uint64_t)p->p[i].rows * (uint64_t)p->p[i].columns;
    return sum;
}

double players_cost(const players *p)
{
    double sum = 0;
    for (int i = 0; i < p->n; i++)
        sum += p->p[i].choice[p->p[i].chosen].cost;
    return sum;
}
