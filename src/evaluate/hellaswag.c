/*
 * HellaSwag as acc_norm: the ending with the highest mean log-probability of its tokens is the model's choice. The four
 * endings of a task share their common prefix in the KV cache.
 */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/status.h"
#include "evaluate/draw.h"
#include "evaluate/evaluate.h"
#include "evaluate/lines.h"

#define ENDINGS 4
#define TASK_LINES 6
#define MOST_TASKS (1u << 24)

typedef struct hellaswag_task {
    str context, ending[ENDINGS];
    int right;
} hellaswag_task;

/* false at the end of the text. */
static dil_status read_task(str *text, int32_t number, hellaswag_task *out, bool *found, dil_error *err)
{
    str lines[TASK_LINES];
    *found = false;
    for (int i = 0; i < TASK_LINES; i++)
        if (!lines_next(text, &lines[i]))
            return i == 0 ? DIL_OK : DIL_FAIL(err, DIL_FORMAT, "hellaswag: task %d: wanted 6 lines, found %d", number, i);
    if (lines[1].n != 1 || lines[1].p[0] < '0' || lines[1].p[0] >= '0' + ENDINGS)
        return DIL_FAIL(err, DIL_FORMAT, "hellaswag: task %d: wanted the index of the right ending (0..3), found '%.*s'", number,
                        STR_ARG(lines[1]));
    out->context = lines[0];
    out->right = lines[1].p[0] - '0';
    memcpy(out->ending, lines + 2, sizeof out->ending);
    *found = true;
    return DIL_OK;
}

typedef struct ending_score {
    const kernels *k;
    const token_id *tokens;
    int32_t n_vocab;
    double sum;
} ending_score;

static bool add_log_probability(void *ctx, int32_t i, const float *logits)
{
    ending_score *s = ctx;
    s->sum += evaluate_log_probability(s->k, logits, s->n_vocab, s->tokens[i + 1], NULL, NULL);
    return true;
}

/* Mean log-probability of the tokens from `prefix` on; first: logits after the prefix. */
static dil_status score_ending(engine *e, session *s, const token_list *t, int32_t prefix, const float *first, double *out,
                               dil_error *err)
{
    int32_t n = (int32_t)t->n;
    ending_score score = {engine_kernels(e), t->ids + prefix, engine_n_vocab(e), 0.0};
    if (prefix >= n)
        return DIL_FAIL(err, DIL_FORMAT, "hellaswag: an ending has no tokens of its own");
    score.sum = evaluate_log_probability(score.k, first, score.n_vocab, t->ids[prefix], NULL, NULL);
    session_truncate(s, prefix);
    DIL_TRY(session_eval(s, t->ids + prefix, n - 1 - prefix, NULL, add_log_probability, &score, err));
    *out = score.sum / (n - prefix);
    return DIL_OK;
}

static int32_t shared_prefix(const token_list t[ENDINGS])
{
    for (int32_t i = 0;; i++)
        for (int j = 0; j < ENDINGS; j++)
            if ((size_t)i >= t[j].n || t[j].ids[i] != t[0].ids[i])
                return i;
}

static dil_status run_task(engine *e, session *s, const hellaswag_task *task, float *first, token_list t[ENDINGS], strbuf *text,
                           int *choice, dil_error *err)
{
    for (int j = 0; j < ENDINGS; j++) {
        if (task->context.n + task->ending[j].n >= text->max)
            return DIL_FAIL(err, DIL_LIMIT, "hellaswag: wanted context and ending in at most %zu bytes, found %zu", text->max,
                            task->context.n + task->ending[j].n + 1);
        strbuf_clear(text);
        strbuf_add_str(text, task->context);
        strbuf_add_char(text, ' ');
        strbuf_add_str(text, task->ending[j]);
        if (text->failed)
            return DIL_FAIL(err, DIL_NO_MEMORY, "hellaswag: no memory for a task");
        t[j].n = 0;
        DIL_TRY(vocab_encode(engine_vocab(e), strbuf_str(text), true, false, &t[j], err));
    }
    int32_t prefix = shared_prefix(t);
    const float *logits;
    if (prefix == 0)
        return DIL_FAIL(err, DIL_FORMAT, "hellaswag: the endings of a task share no token");
    DIL_TRY(session_sync(s, t[0].ids, prefix, &logits, NULL, NULL, NULL, err));
    memcpy(first, logits, (size_t)engine_n_vocab(e) * sizeof *first);
    double best = -INFINITY;
    for (int j = 0; j < ENDINGS; j++) {
        double value = 0.0;
        DIL_TRY(score_ending(e, s, &t[j], prefix, first, &value, err));
        if (value > best) {
            best = value;
            *choice = j;
        }
    }
    return DIL_OK;
}

/* 95 % Wilson interval. */
static void set_score(choice_result *r)
{
    double n = r->n_tasks, p = r->n_right / n, z2 = 1.95996398454 * 1.95996398454 / n;
    double half = sqrt(z2 * (p * (1 - p)) + z2 * z2 / 4);
    r->score = 100 * p;
    r->low = 100 * (p + z2 / 2 - half) / (1 + z2);
    r->high = 100 * (p + z2 / 2 + half) / (1 + z2);
}

/* All tasks of the text. [owned: free with mem_free] */
static dil_status read_tasks(str text, hellaswag_task **out, uint32_t *n_out, dil_error *err)
{
    uint32_t n = 0, room = 0;
    hellaswag_task *tasks = NULL, task;
    bool found = true;
    dil_status status = DIL_OK;
    while (status == DIL_OK) {
        status = read_task(&text, (int32_t)n + 1, &task, &found, err);
        if (status != DIL_OK || !found)
            break;
        if (n == room) {
            room = room ? 2 * room : 256;
            if (room > MOST_TASKS) {
                status = DIL_FAIL(err, DIL_LIMIT, "hellaswag: wanted at most %u tasks, found more", n);
                break;
            }
            hellaswag_task *more = mem_grow(tasks, (size_t)room * sizeof *tasks, MEM_MISC);
            if (!more) {
                status = DIL_FAIL(err, DIL_NO_MEMORY, "hellaswag: no memory for %u tasks", room);
                break;
            }
            tasks = more;
        }
        tasks[n++] = task;
    }
    if (status == DIL_OK && n == 0)
        status = DIL_FAIL(err, DIL_FORMAT, "hellaswag: the file has no task");
    if (status != DIL_OK) {
        mem_free(tasks);
        return status;
    }
    *out = tasks;
    *n_out = n;
    return DIL_OK;
}

/* Moves those n of the tasks to the front that llama-perplexity would take of them, in its order: drawn without putting back. */
static void draw_tasks(hellaswag_task *tasks, uint32_t n_tasks, uint32_t n)
{
    draw d;
    draw_begin(&d, 1);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = i + draw_below(&d, n_tasks - i);
        hellaswag_task chosen = tasks[at];
        memmove(tasks + i + 1, tasks + i, (at - i) * sizeof *tasks); /* the others keep their order */
        tasks[i] = chosen;
    }
}

static dil_status run_tasks(engine *e, session *s, float *first, str text, int32_t n_tasks, evaluate_report_fn report, void *user,
                            choice_result *out, dil_error *err)
{
    token_list t[ENDINGS] = {{0}};
    strbuf line = STRBUF(1 << 20);
    choice_result r = {0};
    hellaswag_task *tasks;
    uint32_t n;
    DIL_TRY(read_tasks(text, &tasks, &n, err));
    if (n_tasks > 0 && (uint32_t)n_tasks < n) {
        draw_tasks(tasks, n, (uint32_t)n_tasks);
        n = (uint32_t)n_tasks;
    }
    dil_status status = DIL_OK;
    while (status == DIL_OK && r.n_tasks < (int32_t)n) {
        int choice = 0;
        const hellaswag_task *task = &tasks[r.n_tasks];
        status = run_task(e, s, task, first, t, &line, &choice, err);
        if (status != DIL_OK)
            break;
        r.n_tasks++;
        r.n_right += choice == task->right;
        set_score(&r);
        if (report && !report(user, r.n_tasks, (int32_t)n, r.score, (r.high - r.low) / 2))
            status = DIL_FAIL(err, DIL_CANCELLED, "hellaswag: cancelled after %d tasks", r.n_tasks);
    }
    for (int j = 0; j < ENDINGS; j++)
        token_list_free(&t[j]);
    strbuf_free(&line);
    mem_free(tasks);
    if (status == DIL_OK)
        *out = r;
    return status;
}

dil_status evaluate_hellaswag(engine *e, str text, int32_t n_tasks, evaluate_report_fn report, void *user, choice_result *out,
                              dil_error *err)
{
    session *s;
    float *first = mem_alloc((size_t)engine_n_vocab(e) * sizeof *first, MEM_MISC);
    if (!first)
        return DIL_FAIL(err, DIL_NO_MEMORY, "hellaswag: no memory");
    dil_status status = session_new(&s, e, err);
    if (status == DIL_OK) {
        status = run_tasks(e, s, first, text, n_tasks, report, user, out, err);
        session_free(s);
    }
    mem_free(first);
    return status;
}
