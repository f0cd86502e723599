#include "train/log.h"

#include <math.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"

#define MOST_BYTES ((size_t)1 << 30)
#define LINE_BYTES 16384 /* 16 sources of the longest names take 7 KB of header */

struct metrics {
    os_writer file;
    int n_sources, n_layer, n_experts;
};

static const char columns[] = "step,tokens,seconds,tokens_per_second,gflops,lr,gradient_norm,loss,ce,z_loss,balance,cache,swarm,"
                              "nash,router_z,entropy,violation,load_min,load_max";

/* ---- opening ---- */

/* Columns of a source where the net has experts, behind its bits per byte. */
static const char *const routing_columns[] = {"hits_quarter",   "hits_twice", "belady_quarter", "distinct", "inside",
                                              "exploitability", "agreement",  "entropy",        "violation"};
#define N_ROUTING (sizeof routing_columns / sizeof *routing_columns)

/* Commas, quotes and line ends of a name would make other columns. */
static void add_column(strbuf *line, const char *what, const char *source)
{
    strbuf_printf(line, ",%s_", what);
    for (; *source; source++)
        strbuf_add_char(line, *source == ',' || *source == '"' || (unsigned char)*source < 0x20 ? '_' : *source);
}

static dil_status begin(const char *path, const train_config *c, dil_error *err)
{
    strbuf line = STRBUF(LINE_BYTES);
    strbuf_printf(&line, "%s", columns);
    for (int i = 0; i < c->n_sources; i++) {
        add_column(&line, "bpb", c->sources[i].name);
        for (size_t j = 0; j < N_ROUTING; j++)
            add_column(&line, routing_columns[j], c->sources[i].name);
    }
    strbuf_add_char(&line, '\n');
    dil_status status =
        line.failed ? DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for its header", path) : os_write_file(path, line.p, line.n, err);
    strbuf_free(&line);
    return status;
}

static dil_status cut(const char *path, uint64_t keep_bytes, dil_error *err)
{
    char *text;
    size_t n;
    dil_status status = DIL_OK;
    DIL_TRY(os_read_all(path, MOST_BYTES, &text, &n, err));
    if (n < keep_bytes || text[keep_bytes - 1] != '\n')
        status =
            DIL_FAIL(err, DIL_FORMAT, "%s: wanted %llu bytes and a line's end there, as the checkpoint says, found %zu bytes%s",
                     path, (unsigned long long)keep_bytes, n, n < keep_bytes ? "" : _(" and something else"));
    else if (n > keep_bytes)
        status = os_write_file(path, text, (size_t)keep_bytes, err);
    mem_free(text);
    return status;
}

dil_status metrics_open(metrics **out, const char *path, const train_config *c, uint64_t keep_bytes, dil_error *err)
{
    DIL_TRY(keep_bytes ? cut(path, keep_bytes, err) : begin(path, c, err));
    metrics *m = mem_calloc(1, sizeof *m, MEM_FILE);
    if (!m)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to write it", path);
    m->n_sources = c->n_sources;
    m->n_layer = c->net.n_layer;
    m->n_experts = c->net.n_experts;
    dil_status status = os_writer_append(&m->file, path, err);
    if (status == DIL_OK)
        *out = m;
    else
        mem_free(m);
    return status;
}

/* ---- lines ---- */

static void add_number(strbuf *line, double v)
{
    if (isfinite(v))
        strbuf_printf(line, ",%.9g", v);
    else
        strbuf_add_char(line, ',');
}

static void add_experts(const metrics *m, strbuf *line, const net_result *r)
{
    double least = INFINITY, most = -INFINITY;
    const loss_values *v = &r->router;
    const double values[] = {v->balance, v->cache, v->swarm, v->nash, v->z, v->entropy, v->violation};
    for (int l = 0; l < m->n_layer; l++)
        for (int e = 0; e < m->n_experts; e++) {
            least = fmin(least, (double)r->load[l][e]);
            most = fmax(most, (double)r->load[l][e]);
        }
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        add_number(line, m->n_experts ? values[i] : NAN);
    add_number(line, least);
    add_number(line, most);
}

dil_status metrics_add(metrics *m, const train_progress *p, dil_error *err)
{
    strbuf line = STRBUF(LINE_BYTES);
    const double values[] = {p->seconds,       p->tokens_per_second, p->gflops,    p->lr,
                             p->gradient_norm, p->result.total,      p->result.ce, p->result.z_loss};
    strbuf_printf(&line, "%llu,%llu", (unsigned long long)p->step, (unsigned long long)p->tokens);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        add_number(&line, values[i]);
    add_experts(m, &line, &p->result);
    for (int i = 0; i < m->n_sources; i++) {
        const train_routing *t = &p->routing[i];
        const double measures[N_ROUTING] = {t->hits_quarter,   t->hits_twice, t->belady_quarter, t->distinct, t->inside,
                                            t->exploitability, t->agreement,  t->entropy,        t->violation};
        add_number(&line, p->evaluated ? p->held_out[i] : NAN);
        for (size_t j = 0; j < N_ROUTING; j++)
            add_number(&line, p->evaluated && m->n_experts ? measures[j] : NAN);
    }
    strbuf_add_char(&line, '\n');
    dil_status status = line.failed ? DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for a line", m->file.path)
                                    : os_writer_write(&m->file, line.p, line.n, err);
    strbuf_free(&line);
    return status;
}

dil_status metrics_sync(metrics *m, uint64_t *bytes, dil_error *err)
{
    DIL_TRY(os_writer_sync(&m->file, err));
    *bytes = m->file.written_bytes;
    return DIL_OK;
}

void metrics_close(metrics *m)
{
    dil_error ignored;
    if (!m)
        return;
    (void)!os_writer_close(&m->file, &ignored);
    mem_free(m);
}
