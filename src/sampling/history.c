/* The ring of the last tokens and the penalties that look at it. */
#include "sampling/history.h"

#include "base/mem.h"
#include "base/status.h"

dil_status history_setup(history *h, int32_t capacity, dil_error *err)
{
    *h = (history){NULL, capacity, 0, 0};
    if (capacity == 0)
        return DIL_OK;
    h->ring = mem_map((size_t)capacity * sizeof *h->ring, MEM_SAMPLING);
    if (!h->ring)
        return DIL_FAIL(err, DIL_NO_MEMORY, "sampler: no memory for a history of %d tokens", capacity);
    return DIL_OK;
}

void history_free(history *h)
{
    if (h->ring)
        mem_unmap(h->ring, (size_t)h->capacity * sizeof *h->ring, MEM_SAMPLING);
    h->ring = NULL;
}

void history_push(history *h, token_id id)
{
    if (h->capacity == 0)
        return;
    h->ring[h->next] = id;
    h->next = h->next + 1 == h->capacity ? 0 : h->next + 1;
    if (h->n < h->capacity)
        h->n++;
}

token_id history_back(const history *h, int32_t i)
{
    int32_t at = h->next - 1 - i;
    return h->ring[at < 0 ? at + h->capacity : at];
}

dil_status penalty_init(penalty_window *w, int32_t n_vocab, int32_t window, dil_error *err)
{
    *w = (penalty_window){NULL, NULL, NULL, 0, window};
    w->counts = mem_calloc((size_t)n_vocab, sizeof *w->counts, MEM_SAMPLING);
    w->slot = mem_calloc((size_t)n_vocab, sizeof *w->slot, MEM_SAMPLING);
    w->present = mem_calloc((size_t)n_vocab, sizeof *w->present, MEM_SAMPLING);
    if (!w->counts || !w->slot || !w->present)
        return DIL_FAIL(err, DIL_NO_MEMORY, "sampler: no memory for penalties over %d tokens", n_vocab);
    return DIL_OK;
}

void penalty_free(penalty_window *w)
{
    mem_free(w->counts);
    mem_free(w->slot);
    mem_free(w->present);
    *w = (penalty_window){NULL, NULL, NULL, 0, 0};
}

void penalty_push(penalty_window *w, const history *h, token_id id)
{
    if (w->counts[id]++ == 0) {
        w->slot[id] = w->n_present;
        w->present[w->n_present++] = id;
    }
    if (h->n < w->window)
        return;
    token_id old = history_back(h, w->window - 1);
    if (--w->counts[old] == 0) {
        token_id moved = w->present[--w->n_present];
        w->present[w->slot[old]] = moved;
        w->slot[moved] = w->slot[old];
    }
}

void penalty_reset(penalty_window *w)
{
    for (int32_t i = 0; i < w->n_present; i++)
        w->counts[w->present[i]] = 0;
    w->n_present = 0;
}

/*
 * Repetition divides a positive logit and multiplies a negative one, so that it always lowers; then
 * frequency, presence.
 */
void penalty_apply(const penalty_window *w, const sampler_options *o, float *logits)
{
    for (int32_t i = 0; i < w->n_present; i++) {
        float *l = &logits[w->present[i]];
        *l = *l <= 0.0f ? *l * o->repeat_penalty : *l / o->repeat_penalty;
        *l -= (float)w->counts[w->present[i]] * o->frequency_penalty + o->presence_penalty;
    }
}
