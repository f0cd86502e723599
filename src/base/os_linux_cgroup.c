/*
 * Linux: what the control groups of this process leave it. A limit counts wherever it stands on the way from the process's
 * group up to the root of its mount, in version 2 (cpu.max, memory.max) and version 1 (cpu.cfs_quota_us, memory.limit_in_bytes).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "base/str.h"

#define PATH_MOST 2048
#define LINE_MOST 4096

/* Where a hierarchy is mounted, and which group of it the mount shows as its root. */
typedef struct mount {
    bool found;
    char point[PATH_MOST], root[PATH_MOST];
} mount;

typedef struct search {
    const char *root; /* stands before every path */
    mount unified, cpu, memory;
    os_limits *out;
} search;

static FILE *open_below(const char *root, const char *path)
{
    char full[2 * PATH_MOST];
    int n = snprintf(full, sizeof full, "%s%s", root, path);
    return n > 0 && (size_t)n < sizeof full ? fopen(full, "re") : NULL;
}

/* Is name one of the comma-separated words of list? */
static bool has_word(const char *list, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (strncmp(p, name, n) == 0 && (p[n] == '\0' || p[n] == ','))
            return true;
    return false;
}

static void remember(mount *m, const char *point, const char *root)
{
    if (m->found || strlen(point) >= sizeof m->point || strlen(root) >= sizeof m->root)
        return;
    m->found = true;
    memcpy(m->point, point, strlen(point) + 1);
    memcpy(m->root, root, strlen(root) + 1);
}

/* "36 35 0:30 ROOT POINT options [optional...] - TYPE source SUPER-OPTIONS" */
static void read_mounts(search *s)
{
    char line[LINE_MOST], root[LINE_MOST], point[LINE_MOST], type[64], super[LINE_MOST];
    FILE *f = open_below(s->root, "/proc/self/mountinfo");
    while (f && fgets(line, sizeof line, f)) {
        const char *dash = strstr(line, " - ");
        if (!dash || sscanf(line, "%*s %*s %*s %4095s %4095s", root, point) != 2 ||
            sscanf(dash, " - %63s %*s %4095s", type, super) != 2)
            continue;
        if (strcmp(type, "cgroup2") == 0)
            remember(&s->unified, point, root);
        if (strcmp(type, "cgroup") == 0 && has_word(super, "cpu"))
            remember(&s->cpu, point, root);
        if (strcmp(type, "cgroup") == 0 && has_word(super, "memory"))
            remember(&s->memory, point, root);
    }
    if (f)
        fclose(f);
}

static bool read_value(const search *s, const char *directory, const char *name, char *out, size_t n)
{
    char path[PATH_MOST + 64];
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *f = open_below(s->root, path);
    bool good = f && fgets(out, (int)n, f);
    if (f)
        fclose(f);
    if (good)
        out[strcspn(out, "\n")] = '\0';
    return good;
}

static void limit_cpus(os_limits *out, double quota, double period)
{
    if (quota > 0 && period > 0 && (out->cpus <= 0 || quota / period < out->cpus))
        out->cpus = quota / period;
}

/* Bytes of cached files that have not been used for long, from a memory.stat. */
static uint64_t idle_file_bytes(const search *s, const char *directory, const char *key)
{
    char path[PATH_MOST + 64], line[256], name[64];
    unsigned long long bytes = 0, found = 0;
    (void)snprintf(path, sizeof path, "%s/memory.stat", directory);
    FILE *f = open_below(s->root, path);
    while (f && !found && fgets(line, sizeof line, f))
        if (sscanf(line, "%63s %llu", name, &bytes) == 2 && strcmp(name, key) == 0)
            found = bytes;
    if (f)
        fclose(f);
    return found;
}

/* What a group with that limit has left. */
static void left_of(const search *s, const char *directory, uint64_t limit, const char *usage, const char *key)
{
    char text[64];
    int64_t used;
    if (!read_value(s, directory, usage, text, sizeof text) || !str_to_i64(text, &used) || used < 0)
        return;
    uint64_t idle = idle_file_bytes(s, directory, key), busy = (uint64_t)used > idle ? (uint64_t)used - idle : 0;
    uint64_t left = busy < limit ? limit - busy : 0;
    if (left < s->out->memory_left_bytes)
        s->out->memory_left_bytes = left;
}

/* True: text is a limit (*limit). Version 1 says "no limit" with a number near 2^63. */
static bool limit_memory(os_limits *out, const char *text, uint64_t *limit)
{
    int64_t bytes;
    if (!str_to_i64(text, &bytes) || bytes <= 0 || bytes >= INT64_MAX / 2)
        return false;
    *limit = (uint64_t)bytes;
    if (out->memory_bytes == 0 || *limit < out->memory_bytes)
        out->memory_bytes = *limit;
    return true;
}

static void read_unified(const search *s, const char *directory)
{
    char text[128];
    double quota, period;
    uint64_t limit;
    if (read_value(s, directory, "cpu.max", text, sizeof text) && sscanf(text, "%lf %lf", &quota, &period) == 2)
        limit_cpus(s->out, quota, period);
    if (read_value(s, directory, "memory.max", text, sizeof text) && limit_memory(s->out, text, &limit))
        left_of(s, directory, limit, "memory.current", "inactive_file");
}

static void read_cpu(const search *s, const char *directory)
{
    char quota[64], period[64];
    int64_t q, p;
    if (read_value(s, directory, "cpu.cfs_quota_us", quota, sizeof quota) && str_to_i64(quota, &q) &&
        read_value(s, directory, "cpu.cfs_period_us", period, sizeof period) && str_to_i64(period, &p))
        limit_cpus(s->out, (double)q, (double)p);
}

static void read_memory(const search *s, const char *directory)
{
    char text[64];
    uint64_t limit;
    if (read_value(s, directory, "memory.limit_in_bytes", text, sizeof text) && limit_memory(s->out, text, &limit))
        left_of(s, directory, limit, "memory.usage_in_bytes", "total_inactive_file");
}

/* Calls read for the group and everything above it, as far as the mount shows them. */
static void climb(const search *s, const mount *m, const char *group, void (*read)(const search *, const char *))
{
    char path[2 * PATH_MOST];
    size_t top = strlen(m->point), root = strlen(m->root);
    if (!m->found || strlen(group) >= PATH_MOST)
        return;
    if (strcmp(m->root, "/") != 0 && strncmp(group, m->root, root) == 0)
        group += root; /* the mount begins below the hierarchy's root: a container */
    (void)snprintf(path, sizeof path, "%s%s", m->point, strcmp(group, "/") == 0 ? "" : group);
    for (;;) {
        read(s, path);
        char *slash = strrchr(path, '/');
        if (strlen(path) <= top || !slash || slash < path + top)
            return;
        *slash = '\0';
    }
}

void os_limits_read(const char *root, os_limits *out)
{
    char line[LINE_MOST];
    search s = {.root = root ? root : "", .out = out};
    *out = (os_limits){.memory_left_bytes = UINT64_MAX};
    read_mounts(&s);
    FILE *f = open_below(s.root, "/proc/self/cgroup");
    while (f && fgets(line, sizeof line, f)) { /* "4:cpu,cpuacct:/group", version 2: "0::/group" */
        line[strcspn(line, "\n")] = '\0';
        char *names = strchr(line, ':'), *group = names ? strchr(names + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = '\0';
        names++;
        if (names[0] == '\0')
            climb(&s, &s.unified, group, read_unified);
        if (has_word(names, "cpu"))
            climb(&s, &s.cpu, group, read_cpu);
        if (has_word(names, "memory"))
            climb(&s, &s.memory, group, read_memory);
    }
    if (f)
        fclose(f);
}
