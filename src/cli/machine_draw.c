#include "cli/machine_draw.h"

#include <stdarg.h>
#include <string.h>

#include "base/status.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/print.h"

enum {
    CORE_WIDE = 16,
    CELL_WIDE = CORE_WIDE - 4,
    CORES_SHOWN = 4,
    INNER_WIDE = CORES_SHOWN * (CORE_WIDE + 1),
    BAR_WIDE = 32,
    TEXT = 256,
    MANY = 256
};

static int columns(const char *text) { return (int)utf8_columns(str_of(text)); }

static void dashes(FILE *out, int n)
{
    for (int i = 0; i < n; i++)
        fputs("─", out);
}

/* Caches are powers of two, or nearly. */
static const char *binary(uint64_t bytes, char out[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB"};
    double v = (double)bytes;
    int u = 0;
    for (; v >= 1024 && u < 3; u++)
        v /= 1024;
    (void)snprintf(out, 32, v == (double)(int)v ? "%.0f %s" : "%.1f %s", v, units[u]);
    return out;
}

static const char *rate(double per_second, char out[32])
{
    (void)snprintf(out, 32, _("%.1f GB/s"), per_second * 1e-9);
    return out;
}

/* ---- boxes ---- */

/* A line of the outer box; text may hold dashes and corners of `wide` columns in all. */
static void framed(FILE *out, const char *text, int wide) { fprintf(out, "  │ %s%*s│\n", text, INNER_WIDE - wide, ""); }

static int same_group(const machine_core *a, const machine_core *b, int level)
{
    return a->numa == b->numa && a->socket == b->socket && a->cache[level] == b->cache[level];
}

/* Cores first .. first + n - 1 side by side, in five lines. */
static void draw_cores(FILE *out, const machine *m, int first, int n)
{
    char text[5][TEXT * 2] = {"", "", "", "", ""}, size[32];
    for (int i = first; i < first + n; i++) {
        const machine_core *c = &m->cores[i];
        char cell[5][TEXT];
        const char *kind = m->n_kinds < 2 ? "" : c->kind == m->n_kinds - 1 ? _(" fast") : _(" slow");
        (void)snprintf(cell[1], TEXT, _("core %d%s"), c->cpu, kind);
        if (c->n_cpus > 1)
            (void)snprintf(cell[1] + strlen(cell[1]), TEXT - strlen(cell[1]), " x%d", c->n_cpus);
        (void)snprintf(cell[2], TEXT, "L1 %s", m->caches[0].size_bytes ? binary(m->caches[0].size_bytes, size) : "?");
        (void)snprintf(cell[3], TEXT, "L2 %s", m->caches[1].size_bytes ? binary(m->caches[1].size_bytes, size) : "?");
        for (int l = 0; l < 5; l++) {
            char *at = text[l] + strlen(text[l]);
            const size_t room = sizeof text[l] - strlen(text[l]);
            if (l == 0 || l == 4)
                (void)snprintf(at, room, "%s──────────────%s ", l ? "└" : "┌", l ? "┘" : "┐");
            else
                (void)snprintf(at, room, "│ %.*s%*s │ ", (int)utf8_cut(str_of(cell[l]), CELL_WIDE), cell[l],
                               columns(cell[l]) < CELL_WIDE ? CELL_WIDE - columns(cell[l]) : 0, "");
        }
    }
    for (int l = 0; l < 5; l++)
        framed(out, text[l], n * (CORE_WIDE + 1));
}

/* Cores that share the last cache (level 3, else memory only). */
static void draw_group(FILE *out, const machine *m, int first, int n)
{
    const machine_core *c = &m->cores[first];
    char title[TEXT], size[32], where[64] = "";
    if (m->n_numa > 1 || m->n_sockets > 1)
        (void)snprintf(where, sizeof where, _("socket %d, node %d: "), c->socket, c->numa);
    if (c->cache[2] >= 0)
        (void)snprintf(title, sizeof title, n == 1 ? _(" %sL3 %s, shared by %d core ") : _(" %sL3 %s, shared by %d cores "), where,
                       binary(m->caches[2].size_bytes, size), n);
    else
        (void)snprintf(title, sizeof title, n == 1 ? _(" %s%d core ") : _(" %s%d cores "), where, n);
    fprintf(out, "  ┌─%s", title);
    dashes(out, INNER_WIDE - columns(title));
    fputs("┐\n", out);
    for (int done = 0, shown; done < n; done += shown) {
        shown = n - done < CORES_SHOWN ? n - done : CORES_SHOWN;
        for (int i = 1; i < shown; i++) /* kinds stand in rows of their own */
            if (m->cores[first + done + i].kind != m->cores[first + done].kind)
                shown = i;
        draw_cores(out, m, first + done, shown);
        int same = 0;
        while (done + shown + same < n && m->cores[first + done + shown + same].kind == m->cores[first + done].kind)
            same++;
        if (same > CORES_SHOWN) { /* the last row stands for the rest */
            char more[TEXT];
            (void)snprintf(more, sizeof more, _("and %d more like these"), same);
            framed(out, more, columns(more));
            shown += same;
        }
    }
    fputs("  └─", out);
    dashes(out, INNER_WIDE);
    fputs("┘\n", out);
}

static void draw_boxes(FILE *out, const machine *m)
{
    for (int first = 0, n; first < m->n_cores; first += n) {
        for (n = 1; first + n < m->n_cores && same_group(&m->cores[first], &m->cores[first + n], 2); n++)
            ;
        draw_group(out, m, first, n);
    }
}

/* ---- figures ---- */

static void draw_reading(FILE *out, const machine_facts *f)
{
    const machine_limits *all = &f->limits[f->n_counts - 1];
    char text[32];
    double most = 0;
    for (int i = 0; i < READ_POINTS; i++)
        most = all->curve[i].best > most ? all->curve[i].best : most;
    fputs("\n  ", out);
    print_cell(out, _("Reading, by the size of what is read again and again"), BAR_WIDE + 21);
    for (int i = 0; i < f->n_counts; i++) {
        const int n = f->limits[i].n_threads;
        char count[TEXT];
        (void)snprintf(count, sizeof count, n == 1 ? _("%6d thread") : _("%6d threads"), n);
        print_cell(out, count, 14);
    }
    fputs("\n", out);
    const char *const levels[] = {_("in L1"), _("in L2")};
    for (int l = 0; l < 2; l++) {
        if (all->l1.best <= 0 || (l && all->l2.best <= 0))
            continue;
        fputs("  ", out);
        print_cell(out, levels[l], BAR_WIDE + 21);
        for (int i = 0; i < f->n_counts; i++)
            fprintf(out, "%14s", rate(l ? f->limits[i].l2.best : f->limits[i].l1.best, text));
        fputs("\n", out);
    }
    for (int p = 0; p < READ_POINTS; p++) {
        const int bar = (int)(all->curve[p].best / most * BAR_WIDE + 0.5);
        fprintf(out, "  %-10s ", binary(machine_read_point(p), text));
        for (int i = 0; i < BAR_WIDE; i++)
            fputs(i < bar ? "█" : " ", out);
        fprintf(out, "%10s", "");
        for (int i = 0; i < f->n_counts; i++)
            fprintf(out, "%14s", rate(f->limits[i].curve[p].best, text));
        fputs("\n", out);
    }
}

static void draw_units(FILE *out, const machine_facts *f)
{
    fputs(_("\n  Multiply-adds per second     int8          bf16           f32      a barrier\n"), out);
    for (int i = 0; i < f->n_counts; i++) {
        const machine_limits *l = &f->limits[i];
        char line[TEXT];
        (void)snprintf(line, sizeof line, l->n_threads == 1 ? _("%d thread") : _("%d threads"), l->n_threads);
        fputs("  ", out);
        print_cell(out, line, 22);
        fprintf(out, " %8.0f G", l->int8.best * 1e-9);
        if (l->bf16.best > 0)
            fprintf(out, "   %8.0f G", l->bf16.best * 1e-9);
        else
            fprintf(out, "   %10s", _("none"));
        fprintf(out, "   %8.0f G", l->f32.best * 1e-9);
        if (l->barrier.best > 0)
            fprintf(out, "   %8.2f us\n", l->barrier.best * 1e6);
        else
            fprintf(out, "   %12s\n", _("none"));
    }
}

static void draw_kernels(FILE *out, const machine_facts *f)
{
    const machine_limits *l = &f->limits[f->n_counts - 1];
    fputs(_("\n  Matrices, all threads   one token, weights/s      many tokens, multiply-adds/s\n"
            "                          in L2     in memory\n"),
          out);
    for (int type = 0; type < DIL_TYPE_COUNT; type++) {
        const linear_cost *c = &f->costs.linear[type];
        if (c->value <= 0)
            continue;
        const double near = PANEL_ROWS * l->n_threads / (c->value + c->row / 2048);
        fprintf(out, "  %-18s %8.1f G    %8.1f G          %8.0f G\n", format_get((dil_type)type)->name, near * 1e-9,
                machine_weight_rate(f, (dil_type)type, l->n_threads, 1e9) * 1e-9,
                PANEL_ROWS * l->n_threads * 2048.0 * MANY / cost_gemm(c, 2048, MANY) * 1e-9);
    }
}

void machine_draw(FILE *out, const machine *m, const char *name, const machine_facts *facts)
{
    char size[32];
    fprintf(out, m->n_cores == 1 ? _("%s\n%d core") : _("%s\n%d cores"), name, m->n_cores);
    if (m->n_cpus > m->n_cores)
        fprintf(out, _(", %d logical processors"), m->n_cpus);
    if (m->quota_cpus > 0)
        fprintf(out, _(", a quota of %.3g processors"), m->quota_cpus);
    fprintf(out, m->n_sockets == 1 ? _("; %d socket") : _("; %d sockets"), m->n_sockets);
    fprintf(out, m->n_numa == 1 ? _(" and %d NUMA node; memory %s") : _(" and %d NUMA nodes; memory %s"), m->n_numa,
            str_bytes(m->memory_bytes, size, sizeof size));
    if (m->huge_page_bytes && m->huge_mode != OS_HUGE_NEVER)
        fprintf(out, _(", huge pages of %s"), str_bytes(m->huge_page_bytes, size, sizeof size));
    const int n = machine_default_threads(m);
    fprintf(out, n == 1 ? _("\na run takes %d thread by default\n\n") : _("\na run takes %d threads by default\n\n"), n);
    draw_boxes(out, m);
    if (!facts)
        return;
    draw_reading(out, facts);
    draw_units(out, facts);
    draw_kernels(out, facts);
}

static void json_limits(FILE *out, const machine_limits *l)
{
    fprintf(
        out,
        "{\"threads\": %d, \"l1\": %.0f, \"l2\": %.0f, \"l3\": %.0f, \"int8\": %.0f, \"bf16\": %.0f, \"f32\": %.0f, \"barrier\": %.3e, \"reading\": [",
        l->n_threads, l->l1.best, l->l2.best, l->l3.best, l->int8.best, l->bf16.best, l->f32.best, l->barrier.best);
    for (int i = 0; i < READ_POINTS; i++)
        fprintf(out, "%s{\"bytes\": %llu, \"bytes_per_second\": %.0f}", i ? ", " : "", (unsigned long long)machine_read_point(i),
                l->curve[i].best);
    fputs("]}", out);
}

void machine_draw_json(FILE *out, const machine *m, const machine_facts *facts)
{
    fprintf(
        out,
        "{\"cores\": %d, \"cpus\": %d, \"sockets\": %d, \"numa_nodes\": %d, \"memory_bytes\": %llu, \"default_threads\": %d, \"limits\": [",
        m->n_cores, m->n_cpus, m->n_sockets, m->n_numa, (unsigned long long)m->memory_bytes, machine_default_threads(m));
    for (int i = 0; i < facts->n_counts; i++) {
        fputs(i ? ", " : "", out);
        json_limits(out, &facts->limits[i]);
    }
    fputs("], \"kernels\": {", out);
    for (int type = 0, n = 0; type < DIL_TYPE_COUNT; type++) {
        const linear_cost *c = &facts->costs.linear[type];
        if (c->value <= 0)
            continue;
        fprintf(
            out,
            "%s\"%s\": {\"row\": %.3e, \"value\": %.3e, \"more\": %.3e, \"output\": %.3e, \"stall\": %.3f, \"stall_few\": %.3f, \"gemm\": {",
            n++ ? ", " : "", format_get((dil_type)type)->name, c->row, c->value, c->more, c->output, c->stall, c->stall_few);
        for (int i = 0; i < COST_GEMM_POINTS; i++)
            fprintf(out, "%s\"%d\": %.3e", i ? ", " : "", cost_gemm_tokens(i), c->gemm[i]);
        fputs("}}", out);
    }
    fprintf(out, "}, \"start\": %.3e}\n", facts->costs.start);
}
