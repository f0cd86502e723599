#include "quantize/measure.h"

#include "base/os.h"
#include "base/status.h"

typedef struct measuring {
    const measure_options *o;
    int done_before; /* chunks of the run before this one */
} measuring;

static bool report(void *user, int32_t done, int32_t total, double value, double error)
{
    const measuring *m = user;
    (void)value;
    (void)error;
    return !m->o->progress || m->o->progress(m->o->user, "measuring", (uint64_t)(m->done_before + done), 2 * (uint64_t)total);
}

static dil_status open_engine(engine **out, const char *path, const measure_options *o, dil_error *err)
{
    engine_options eo = engine_options_default();
    eo.n_threads = o->n_threads;
    eo.context = o->n_context;
    eo.max_outputs = o->n_context;
    eo.no_pack_cache = true;
    return engine_open(out, path, &eo, err);
}

dil_status measure_divergence(divergence_result *out, const char *float_path, const char *path, const measure_options *o,
                              dil_error *err)
{
    engine *e = NULL;
    measuring m = {.o = o};
    perplexity_result r;
    perplexity_options po = {
        .context = o->n_context, .n_chunks = o->n_chunks, .save_base = o->base_file, .report = report, .user = &m};
    DIL_TRY(open_engine(&e, float_path, o, err));
    dil_status status = evaluate_perplexity(e, o->text, &po, &r, err);
    engine_close(e);
    if (status == DIL_OK) {
        m.done_before = r.n_chunks;
        e = NULL;
        status = open_engine(&e, path, o, err);
        if (status == DIL_OK)
            status = evaluate_divergence(e, o->base_file, 0, report, &m, out, err);
        if (e)
            engine_close(e);
    }
    dil_error ignored;
    if (os_exists(o->base_file) && os_remove(o->base_file, &ignored) != DIL_OK)
        status_clear(&ignored); /* it goes with its folder */
    return status;
}
