#include "quantize/recipe.h"

/* ---- what the mixtures are ---- */

/* Layers that get more. */
typedef enum layers {
    NONE,
    ALL,
    FIRST_2,
    FIRST_4,
    FIRST_8TH,
    FIRST_16TH,
    ENDS_AND_THIRDS, /* the first and the last eighth, between them every third */
    SHARED_VALUES    /* all, of models with at least four heads for each head of values */
} layers;

/* Some layers get another type. */
typedef struct change {
    layers where;
    dil_type type;
} change;

typedef struct mixture {
    const char *name;
    dil_type base;      /* of everything that is not said otherwise */
    change value[2];    /* attn_v: the first change that applies */
    change down[2];     /* ffn_down */
    change output;      /* attn_output */
    bool output_8;      /* attn_output is Q5_K instead, of models with eight experts */
    change only_reader; /* an embedding that is not the output matrix */
} mixture;

static const mixture recipes[] = {
    {.name = "Q2_0", .base = DIL_TYPE_Q2_0, .only_reader = {ALL, DIL_TYPE_Q4_K}},
    {.name = "Q2_K_S", .base = DIL_TYPE_Q2_K, .value = {{SHARED_VALUES, DIL_TYPE_Q4_K}}, .down = {{FIRST_8TH, DIL_TYPE_Q4_K}}},
    {.name = "Q2_K",
     .base = DIL_TYPE_Q2_K,
     .value = {{SHARED_VALUES, DIL_TYPE_Q4_K}, {ALL, DIL_TYPE_Q3_K}},
     .down = {{ALL, DIL_TYPE_Q3_K}},
     .output = {ALL, DIL_TYPE_Q3_K},
     .output_8 = true},
    {.name = "Q3_K_S", .base = DIL_TYPE_Q3_K, .output_8 = true},
    {.name = "Q3_K_M",
     .base = DIL_TYPE_Q3_K,
     .value = {{FIRST_2, DIL_TYPE_Q5_K}, {ALL, DIL_TYPE_Q4_K}},
     .down = {{FIRST_16TH, DIL_TYPE_Q5_K}, {ALL, DIL_TYPE_Q4_K}},
     .output = {ALL, DIL_TYPE_Q4_K},
     .output_8 = true},
    {.name = "Q3_K_L",
     .base = DIL_TYPE_Q3_K,
     .value = {{ALL, DIL_TYPE_Q5_K}},
     .down = {{ALL, DIL_TYPE_Q5_K}},
     .output = {ALL, DIL_TYPE_Q5_K}},
    {.name = "IQ4_XS", .base = DIL_TYPE_IQ4_XS, .value = {{SHARED_VALUES, DIL_TYPE_Q5_K}}, .output_8 = true},
    {.name = "IQ4_NL", .base = DIL_TYPE_IQ4_NL, .value = {{SHARED_VALUES, DIL_TYPE_Q5_K}}, .output_8 = true},
    {.name = "Q4_0", .base = DIL_TYPE_Q4_0, .down = {{FIRST_8TH, DIL_TYPE_Q4_1}}},
    {.name = "Q4_K_S",
     .base = DIL_TYPE_Q4_K,
     .value = {{FIRST_4, DIL_TYPE_Q5_K}},
     .down = {{FIRST_8TH, DIL_TYPE_Q5_K}},
     .output_8 = true},
    {.name = "Q4_K_M",
     .base = DIL_TYPE_Q4_K,
     .value = {{ENDS_AND_THIRDS, DIL_TYPE_Q6_K}},
     .down = {{ENDS_AND_THIRDS, DIL_TYPE_Q6_K}},
     .output_8 = true},
    {.name = "Q4_1", .base = DIL_TYPE_Q4_1},
    {.name = "Q5_0", .base = DIL_TYPE_Q5_0, .down = {{FIRST_8TH, DIL_TYPE_Q5_1}}},
    {.name = "Q5_K_S", .base = DIL_TYPE_Q5_K},
    {.name = "Q5_K_M",
     .base = DIL_TYPE_Q5_K,
     .value = {{ENDS_AND_THIRDS, DIL_TYPE_Q6_K}},
     .down = {{ENDS_AND_THIRDS, DIL_TYPE_Q6_K}}},
    {.name = "Q5_1", .base = DIL_TYPE_Q5_1},
    {.name = "Q6_K", .base = DIL_TYPE_Q6_K},
    {.name = "Q8_0", .base = DIL_TYPE_Q8_0},
};

int recipe_count(void) { return (int)(sizeof recipes / sizeof *recipes); }

const char *recipe_name(int recipe) { return recipes[recipe].name; }

/* ---- what they give ---- */

recipe_model recipe_model_of(const hparams *h, const players *p)
{
    return (recipe_model){(int)h->n_layer, (int)h->n_head, (int)h->n_head_kv, (int)h->experts.n_experts, p->tied};
}

static bool applies(layers where, const recipe_model *m, int layer)
{
    const int n = m->n_layer;
    switch (where) {
    case NONE: return false;
    case ALL: return true;
    case FIRST_2: return layer < 2;
    case FIRST_4: return layer < 4;
    case FIRST_8TH: return layer < n / 8;
    case FIRST_16TH: return layer < n / 16;
    case ENDS_AND_THIRDS: return layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2;
    case SHARED_VALUES: return m->n_head_kv > 0 && m->n_head / m->n_head_kv >= 4;
    }
    return false;
}

static dil_type changed(const change *c, int n, dil_type base, const recipe_model *m, int layer)
{
    for (int i = 0; i < n; i++)
        if (applies(c[i].where, m, layer))
            return c[i].type;
    return base;
}

static bool fits(dil_type type, int columns)
{
    uint64_t bytes;
    return format_row_bytes(type, (uint64_t)columns, &bytes);
}

/* With eight experts attention is small beside them; with 80 layers and shared heads its values are. */
static dil_type value_type(const mixture *r, const recipe_model *m, int layer)
{
    dil_type type = changed(r->value, 2, r->base, m, layer);
    if (m->n_experts == 8)
        return DIL_TYPE_Q8_0;
    if (m->n_layer == 80 && m->n_head != m->n_head_kv && (type == DIL_TYPE_Q3_K || type == DIL_TYPE_Q4_K))
        return DIL_TYPE_Q5_K;
    return type;
}

static dil_type wanted_type(const mixture *r, const recipe_model *m, const player *p)
{
    if (p->place == PLACE_HEAD || (p->place == PLACE_EMBEDDING && m->tied))
        return !fits(r->base, p->columns) || r->base == DIL_TYPE_Q8_0 ? DIL_TYPE_Q8_0 : DIL_TYPE_Q6_K;
    switch (p->place) {
    case PLACE_EMBEDDING: return changed(&r->only_reader, 1, r->base, m, 0);
    case NET_V: return value_type(r, m, p->layer);
    case NET_K: return m->n_experts == 8 ? DIL_TYPE_Q8_0 : r->base;
    case NET_DOWN: return changed(r->down, 2, r->base, m, p->layer);
    case NET_OUTPUT:
        return m->n_experts == 8 ? (r->output_8 ? DIL_TYPE_Q5_K : r->base) : changed(&r->output, 1, r->base, m, p->layer);
    default: return r->base;
    }
}

/* What has blocks of 32 instead. */
static dil_type narrower(dil_type type)
{
    switch (type) {
    case DIL_TYPE_Q2_0:
    case DIL_TYPE_Q2_K:
    case DIL_TYPE_Q3_K: return DIL_TYPE_Q4_0;
    case DIL_TYPE_IQ4_XS: return DIL_TYPE_IQ4_NL;
    case DIL_TYPE_Q4_K: return DIL_TYPE_Q5_0;
    case DIL_TYPE_Q5_K: return DIL_TYPE_Q5_1;
    case DIL_TYPE_Q6_K: return DIL_TYPE_Q8_0;
    default: return DIL_TYPE_F16;
    }
}

dil_type recipe_type(int recipe, const recipe_model *m, const player *p)
{
    dil_type type = wanted_type(&recipes[recipe], m, p);
    if (!fits(type, p->columns))
        type = narrower(type);
    return fits(type, p->columns) ? type : DIL_TYPE_F16;
}
