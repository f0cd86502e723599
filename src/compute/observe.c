/* Showing what matrices read, between the steps: for those who want to learn about a model, not for speed. */
#include "compute/exec.h"

static void show(const compute *c, const weight *const *readers, int n_readers, const act_buffer *a, const int32_t *row,
                 int32_t first, int32_t n)
{
    compute_input in = {.x = a->f, .stride = a->view.f_stride, .row = row, .first = first, .n = n};
    for (int i = 0; i < n_readers; i++)
        if (readers[i]->rows > 0)
            in.readers[in.n_readers++] = readers[i];
    if (in.n_readers && n > 0)
        c->options.on_input(c->options.input_ctx, &in);
}

static void show_experts(const compute *c, const step *s, bool before)
{
    const expert_layer *e = c->m->layers[s->layer].moe;
    for (uint32_t i = 0; i < c->h->experts.n_experts; i++) {
        const weight *in[] = {&e->experts[i].gate, &e->experts[i].up}, *down[] = {&e->experts[i].down};
        int32_t first = c->moe.first_slot[i], n = c->moe.first_slot[i + 1] - first;
        if (before)
            show(c, in, 2, &c->nrm, c->moe.row_of + first, 0, n);
        else
            show(c, down, 1, &c->moe.hidden, NULL, first, n);
    }
}

void observe_before(const compute *c, const step *s)
{
    const layer_weights *l = s->kind == STEP_HEAD ? NULL : &c->m->layers[s->layer];
    const int32_t n = step_rows(c, s);
    switch (s->kind) {
    case STEP_QKV: show(c, (const weight *[]){&l->q, &l->k, &l->v}, 3, &c->nrm, NULL, 0, n); break;
    case STEP_LATENT_DOWN: show(c, (const weight *[]){&l->q, &l->latent->q_a, &l->latent->kv_a}, 3, &c->nrm, NULL, 0, n); break;
    case STEP_LATENT_UP: show(c, (const weight *[]){&l->latent->q_b}, 1, &c->latent.q_latent, NULL, 0, n); break;
    case STEP_ATTN_OUT: show(c, (const weight *[]){&l->o}, 1, &c->attn, NULL, 0, n); break;
    case STEP_GATE_UP: show(c, (const weight *[]){&l->gate, &l->up}, 2, &c->nrm, NULL, 0, n); break;
    case STEP_DOWN: show(c, (const weight *[]){&l->down}, 1, &c->hidden, NULL, 0, n); break;
    case STEP_EXPERTS: show_experts(c, s, true); break;
    case STEP_HEAD: show(c, (const weight *[]){&c->m->head}, 1, &c->nrm, NULL, 0, n); break;
    default: break;
    }
}

void observe_after(const compute *c, const step *s)
{
    if (s->kind == STEP_EXPERTS)
        show_experts(c, s, false);
}
