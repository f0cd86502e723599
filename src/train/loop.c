#include "train/loop.h"

#include "base/mem.h"
#include "base/status.h"
#include "train/loop_internal.h"

static bool due(uint64_t step, uint64_t every, uint64_t n_steps) { return step == n_steps || (every > 0 && step % every == 0); }

dil_status run_save(run *r, dil_error *err)
{
    char path[RUN_PATH_BYTES];
    run_path(r, "checkpoint.bin", path);
    DIL_TRY(metrics_sync(r->log, &r->state.log_bytes, err));
    return checkpoint_save(path, &r->c, &r->state, r->n, r->opt, err);
}

static dil_status steps(run *r, dil_error *err)
{
    const train_config *c = &r->c;
    uint64_t last = c->n_steps;
    if (r->o->stop_after > 0 && r->o->stop_after < c->n_steps - r->state.step)
        last = r->state.step + r->o->stop_after;
    for (bool go_on = true; go_on && r->state.step < last;) {
        DIL_TRY(run_step(r, err));
        uint64_t done = r->state.step;
        r->progress.evaluated = due(done, c->evaluate_every, c->n_steps);
        if (r->progress.evaluated)
            DIL_TRY(run_evaluate(r, err));
        DIL_TRY(metrics_add(r->log, &r->progress, err));
        go_on = !r->o->step || r->o->step(r->o->user, &r->progress) || done == c->n_steps;
        if (!go_on || done == last || due(done, c->checkpoint_every, c->n_steps))
            DIL_TRY(run_save(r, err));
        if (!go_on)
            return DIL_FAIL(err, DIL_CANCELLED, "training: stopped after step %llu of %llu; the checkpoint is written",
                            (unsigned long long)done, (unsigned long long)c->n_steps);
    }
    return DIL_OK;
}

dil_status train_run(const train_config *c, const train_options *o, dil_error *err)
{
    run *r = mem_calloc(1, sizeof *r, MEM_MISC);
    if (!r)
        return DIL_FAIL(err, DIL_NO_MEMORY, "training: no memory");
    r->c = *c;
    r->o = o;
    dil_status status = run_open(r, err);
    if (status == DIL_OK && o->prepared)
        o->prepared(o->user, &r->c, r->n);
    if (status == DIL_OK)
        status = steps(r, err);
    run_close(r);
    return status;
}
