/* Topologies of other machines (hwloc's synthetic ones), control groups in files of our own, threads and where they go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "machine/facts.h"

static char directory[256];

static int make_room(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    (void)snprintf(directory, sizeof directory, "%s/dil-test-XXXXXX", base && strlen(base) < 200 ? base : "/tmp");
    return mkdtemp(directory) ? 0 : -1;
}

static int clear_room(void **state)
{
    (void)state;
    dil_error err;
    return os_remove_tree(directory, &err) == DIL_OK ? 0 : -1;
}

/* directory/root/path holds text; directories are made. Returns directory/root. */
static const char *put(const char *root, const char *path, const char *text)
{
    static char base[512];
    char full[1024];
    dil_error err;
    (void)snprintf(full, sizeof full, "%s/%s/%s", directory, root, path);
    *strrchr(full, '/') = '\0';
    assert_int_equal(os_make_dirs(full, &err), DIL_OK);
    (void)snprintf(full, sizeof full, "%s/%s/%s", directory, root, path);
    FILE *f = fopen(full, "wb");
    assert_non_null(f);
    (void)fputs(text, f);
    assert_int_equal(fclose(f), 0);
    (void)snprintf(base, sizeof base, "%s/%s", directory, root);
    return base;
}

#define MOUNT_2 "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"

static void limits_nested(void **state)
{
    (void)state;
    os_limits l;
    put("v2", "proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" MOUNT_2);
    put("v2", "proc/self/cgroup", "0::/user.slice/job.scope\n");
    put("v2", "sys/fs/cgroup/user.slice/job.scope/cpu.max", "max 100000\n");
    put("v2", "sys/fs/cgroup/user.slice/job.scope/memory.max", "3000000000\n");
    put("v2", "sys/fs/cgroup/user.slice/cpu.max", "250000 100000\n");
    const char *root = put("v2", "sys/fs/cgroup/user.slice/memory.max", "2000000000\n");
    os_limits_read(root, &l);
    assert_float_equal(l.cpus, 2.5, 1e-9);
    assert_int_equal(l.memory_bytes, 2000000000);
    put("v2", "sys/fs/cgroup/user.slice/job.scope/cpu.max", "50000 100000\n");
    os_limits_read(root, &l);
    assert_float_equal(l.cpus, 0.5, 1e-9);
    assert_true(l.memory_left_bytes == UINT64_MAX);
    put("v2", "sys/fs/cgroup/user.slice/memory.current", "500000000\n");
    put("v2", "sys/fs/cgroup/user.slice/job.scope/memory.stat", "anon 7\ninactive_file 400000000\nactive_file 5\n");
    put("v2", "sys/fs/cgroup/user.slice/job.scope/memory.current", "2000000000\n");
    os_limits_read(root, &l);
    assert_int_equal(l.memory_left_bytes, 1400000000); /* the inner group is nearer to its limit */
    put("v2", "sys/fs/cgroup/user.slice/memory.current", "2100000000\n");
    os_limits_read(root, &l);
    assert_int_equal(l.memory_left_bytes, 0);
}

static void limits_container(void **state)
{
    (void)state;
    os_limits l;
    put("box", "proc/self/mountinfo", "29 23 0:26 /docker/ab12 /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    put("box", "proc/self/cgroup", "0::/docker/ab12\n");
    put("box", "sys/fs/cgroup/memory.max", "max\n");
    const char *root = put("box", "sys/fs/cgroup/cpu.max", "150000 100000\n");
    os_limits_read(root, &l);
    assert_float_equal(l.cpus, 1.5, 1e-9);
    assert_int_equal(l.memory_bytes, 0);
}

static void limits_version_1(void **state)
{
    (void)state;
    os_limits l;
    put("v1", "proc/self/mountinfo",
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n");
    put("v1", "proc/self/cgroup", "9:name=systemd:/\n4:memory:/app/one\n3:cpuset:/\n2:cpu,cpuacct:/app\n0::/\n");
    put("v1", "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", "300000\n");
    put("v1", "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us", "100000\n");
    put("v1", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    put("v1", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    put("v1", "sys/fs/cgroup/memory/app/memory.limit_in_bytes", "1073741824\n");
    const char *root = put("v1", "sys/fs/cgroup/memory/app/one/memory.limit_in_bytes", "9223372036854771712\n");
    os_limits_read(root, &l);
    assert_float_equal(l.cpus, 3.0, 1e-9);
    assert_int_equal(l.memory_bytes, 1073741824);
    put("v1", "sys/fs/cgroup/memory/app/memory.stat", "inactive_file 1\ntotal_inactive_file 1000000\n");
    put("v1", "sys/fs/cgroup/memory/app/memory.usage_in_bytes", "1001000000\n");
    os_limits_read(root, &l);
    assert_int_equal(l.memory_left_bytes, 73741824);
}

static void limits_none(void **state)
{
    (void)state;
    os_limits l;
    os_limits_read(put("none", "proc/self/cgroup", "0::/\nnonsense\n7:\n"), &l);
    assert_true(l.cpus <= 0 && l.memory_bytes == 0);
    put("odd", "proc/self/mountinfo", MOUNT_2 "rubbish - cgroup2\n - \n");
    put("odd", "proc/self/cgroup", "0::/a\n");
    put("odd", "sys/fs/cgroup/a/cpu.max", "-5 0\n");
    os_limits_read(put("odd", "sys/fs/cgroup/a/memory.max", "-1\n"), &l);
    assert_true(l.cpus <= 0 && l.memory_bytes == 0);
}

static machine *topology(const machine_source *s)
{
    machine *m = NULL;
    dil_error err = {0};
    dil_status status = machine_topology(&m, s, &err);
    if (status == DIL_UNSUPPORTED)
        skip(); /* built without hwloc */
    if (status != DIL_OK)
        fail_msg("%s", err.text);
    return m;
}

static void cpus_are(const machine *m, int n, int n_given, const int *wanted)
{
    int cpus[64] = {0};
    assert_int_equal(machine_thread_cpus(m, cpus, n), n_given);
    for (int i = 0; i < n_given; i++)
        assert_int_equal(cpus[i], wanted[i]);
}

/* 2 nodes x 1 L3 x 2 L2 x 1 core x 2 threads, numbered as most servers do: siblings are i and i + 4. */
#define SERVER "numa:2 l3:1(size=16777216) l2:2(size=1048576) l1:1(size=32768) core:1 pu:2(indexes=0,4,1,5,2,6,3,7)"

static void smt_and_numa(void **state)
{
    (void)state;
    machine *m = topology(&(machine_source){.synthetic = SERVER, .limits_root = put("free", "proc/self/cgroup", "")});
    assert_int_equal(m->n_cores, 4);
    assert_int_equal(m->n_cpus, 8);
    assert_int_equal(m->n_numa, 2);
    assert_int_equal(m->n_kinds, 1);
    assert_int_equal(m->cores[0].numa, 0);
    assert_int_equal(m->cores[3].numa, 1);
    assert_int_equal(m->cores[1].n_cpus, 2);
    assert_int_equal(m->caches[0].size_bytes, 32768);
    assert_int_equal(m->caches[1].n_caches, 4);
    assert_int_equal(m->caches[2].size_bytes, 16777216);
    assert_int_equal(m->caches[2].n_caches, 2);
    assert_int_equal(m->caches[2].n_cores, 2);
    assert_int_equal(m->caches[3].size_bytes, 0);
    assert_int_equal(machine_default_threads(m), 4);
    cpus_are(m, 3, 3, (const int[]){0, 1, 2});
    cpus_are(m, 9, 8, (const int[]){0, 1, 2, 3, 4, 5, 6, 7});
    machine_free(m);
}

static void part_of_a_machine(void **state)
{
    (void)state;
    machine *m = topology(&(machine_source){.synthetic = SERVER, .allowed = (const int[]){1, 5, 6}, .n_allowed = 3});
    assert_int_equal(m->n_cores, 2);
    assert_int_equal(m->n_cpus, 3);
    assert_int_equal(m->caches[1].n_caches, 2);
    assert_int_equal(m->caches[2].n_cores, 1);
    cpus_are(m, 2, 2, (const int[]){1, 6});
    cpus_are(m, 3, 3, (const int[]){1, 6, 5});
    machine_free(m);
}

static void quota(void **state)
{
    (void)state;
    put("quota", "proc/self/mountinfo", MOUNT_2);
    put("quota", "proc/self/cgroup", "0::/\n");
    const char *root = put("quota", "sys/fs/cgroup/cpu.max", "250000 100000\n");
    machine *m = topology(&(machine_source){.synthetic = SERVER, .limits_root = root});
    assert_int_equal(machine_default_threads(m), 3);
    machine_free(m);
    put("quota", "sys/fs/cgroup/memory.max", "5000000\n");
    put("quota", "sys/fs/cgroup/cpu.max", "1000 100000\n");
    m = topology(&(machine_source){.synthetic = SERVER, .limits_root = root});
    assert_int_equal(machine_default_threads(m), 1);
    assert_int_equal(m->memory_bytes, 5000000);
    machine_free(m);
}

/* Lines as hwloc writes them: its parser without libxml2 wants that. Efficient cores 0..3, powerful cores (4, 5) and (6, 7) with two threads each. */
static const char hybrid_xml[] =
    "<?xml version=\"1.0\"?>\n<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">\n<topology version=\"2.0\">"
    "<object type=\"Machine\" os_index=\"0\" cpuset=\"0xff\" complete_cpuset=\"0xff\" allowed_cpuset=\"0xff\" nodeset=\"0x1\" "
    "complete_nodeset=\"0x1\" allowed_nodeset=\"0x1\">"
    "<object type=\"NUMANode\" os_index=\"0\" cpuset=\"0xff\" complete_cpuset=\"0xff\" nodeset=\"0x1\" complete_nodeset=\"0x1\"/>"
#define CORE(i, set)                                                                     \
    "<object type=\"Core\" os_index=\"" i "\" cpuset=\"" set "\" complete_cpuset=\"" set \
    "\" nodeset=\"0x1\" complete_nodeset=\"0x1\">"
#define PU(i, set)                                                                     \
    "<object type=\"PU\" os_index=\"" i "\" cpuset=\"" set "\" complete_cpuset=\"" set \
    "\" nodeset=\"0x1\" complete_nodeset=\"0x1\"/>"
    CORE("0", "0x1") PU("0", "0x1") "</object>" CORE("1", "0x2") PU("1", "0x2") "</object>" CORE("2", "0x4")
        PU("2", "0x4") "</object>" CORE("3", "0x8") PU("3", "0x8") "</object>" CORE("4", "0x30") PU("4", "0x10")
            PU("5", "0x20") "</object>" CORE("5", "0xc0") PU("6", "0x40")
                PU("7", "0x80") "</object></object>"
                                "<cpukind cpuset=\"0x0f\"><info name=\"CoreType\" value=\"IntelAtom\"/></cpukind>"
                                "<cpukind cpuset=\"0xf0\"><info name=\"CoreType\" value=\"IntelCore\"/></cpukind></topology>";

static void hybrid(void **state)
{
    (void)state;
    machine *m = topology(&(machine_source){.xml = hybrid_xml, .limits_root = put("free", "proc/self/cgroup", "")});
    assert_int_equal(m->n_cores, 6);
    assert_int_equal(m->n_kinds, 2);
    assert_int_equal(machine_default_threads(m), 2);
    cpus_are(m, 8, 8, (const int[]){4, 6, 0, 1, 2, 3, 5, 7});
    machine_free(m);
}

static void broken_description(void **state)
{
    (void)state;
    machine *m = NULL;
    dil_error err = {0};
    dil_status status = machine_topology(&m, &(machine_source){.synthetic = "core:x"}, &err);
    assert_true(status == DIL_BAD_ARGUMENT || status == DIL_UNSUPPORTED);
    assert_non_null(strstr(err.text, "machine: "));
    assert_true(machine_topology(&m, &(machine_source){.xml = "<not a topology"}, &err) != DIL_OK);
    assert_null(m);
}

static void this_machine(void **state)
{
    (void)state;
    machine *m = NULL;
    dil_error err = {0};
    int allowed[MACHINE_MAX_CPUS], cpus[MACHINE_MAX_CPUS];
    assert_int_equal(machine_topology(&m, NULL, &err), DIL_OK);
    int n = os_allowed_cpus(allowed, MACHINE_MAX_CPUS);
    assert_int_equal(m->n_cpus, n);
    assert_in_range(machine_default_threads(m), 1, m->n_cores);
    assert_int_equal(machine_thread_cpus(m, cpus, n), n);
    assert_true(m->memory_bytes > 0 && m->memory_bytes <= os_memory_bytes());
    for (int i = 0; i < n; i++) {
        int times = 0;
        for (int j = 0; j < n; j++)
            times += cpus[j] == allowed[i];
        assert_int_equal(times, 1);
    }
    machine_free(m);
}

static void no_memory(void **state)
{
    (void)state;
    machine *m = NULL;
    dil_error err = {0};
    for (int64_t i = 0; i < 3; i++) {
        mem_inject_failure(i);
        dil_status status = machine_topology(&m, NULL, &err);
        mem_inject_failure(-1);
        assert_int_equal(status, DIL_NO_MEMORY);
        assert_null(m);
    }
}

static void measured(machine_rate r) { assert_true(r.median > 0.0 && r.best >= r.median && r.best < 1e18); }

/* What is asked for is measured, the rest is 0; the scalar kernels do as well. */
static void limits_measured(void **state)
{
    (void)state;
    kernels k;
    machine *m;
    team *t;
    machine_limits l = {.n_threads = 7};
    dil_error err = {0};
    assert_int_equal(machine_topology(&m, NULL, &err), DIL_OK);
    m->memory_bytes = 64u << 20; /* a small buffer is enough here */
    for (int n = 1; n <= 2; n++) {
        assert_int_equal(kernels_select(&k, n == 1 ? "scalar" : "auto", &err), DIL_OK);
        assert_int_equal(team_new(&t, n, &err), DIL_OK);
        assert_int_equal(machine_measure(&l, m, &k, t, LIMIT_MEMORY | LIMIT_INT8 | LIMIT_F32 | LIMIT_BARRIER, 0.0, &err), DIL_OK);
        assert_int_equal(l.n_threads, n);
        measured(l.memory);
        measured(l.int8);
        measured(l.f32);
        if (n == 2)
            assert_true(l.barrier.best > 0.0 && l.barrier.best <= l.barrier.median);
        else
            assert_true(l.barrier.best <= 0.0);
        assert_true(l.l2.best <= 0.0 && l.l3.best <= 0.0 && l.bf16.best <= 0.0);
        team_free(t);
    }
    m->caches[1] = (machine_level){.size_bytes = 1 << 20, .n_caches = 1, .n_cores = 1};
    m->caches[2] = (machine_level){.size_bytes = 2 << 20, .n_caches = 1, .n_cores = 1}; /* half of it is no more than twice L2 */
    m->caches[0].size_bytes = 32768;
    assert_int_equal(team_new(&t, 1, &err), DIL_OK);
    assert_int_equal(machine_measure(&l, m, &k, t, LIMIT_L2 | LIMIT_L3 | LIMIT_BF16, 0.0, &err), DIL_OK);
    measured(l.l2);
    measured(l.bf16);
    assert_true(l.l3.best <= 0.0 && l.memory.best <= 0.0);
    memory_reader *r = NULL;
    assert_int_equal(machine_reader_open(&r, m, &k, t, &err), DIL_OK);
    for (int i = 0; i < 2; i++) { /* of a plausible speed, every time */
        const double rate = machine_reader_rate(r, 0.0);
        assert_true(rate > 1e7 && rate < 1e13);
    }
    machine_reader_close(r);
    for (int64_t i = 0; i < 3; i++) {
        mem_inject_failure(i);
        dil_status status = machine_reader_open(&r, m, &k, t, &err);
        mem_inject_failure(-1);
        assert_int_equal(status, DIL_NO_MEMORY);
    }
    for (int64_t i = 0; i < 2; i++) {
        mem_inject_failure(i);
        dil_status status = machine_measure(&l, m, &k, t, LIMIT_MEMORY, 0.0, &err);
        mem_inject_failure(-1);
        assert_int_equal(status, DIL_NO_MEMORY);
        measured(l.l2); /* untouched */
    }
    team_free(t);
    machine_free(m);
}

/* Every format the kernels have takes some time, more for more columns, rows and tokens; the others take none. */
static void costs_measured(void **state)
{
    (void)state;
    kernels k;
    machine *m;
    team *t;
    dil_error err = {0};
    kernel_costs *c = mem_calloc(2, sizeof *c, MEM_MISC);
    assert_non_null(c);
    assert_int_equal(machine_topology(&m, NULL, &err), DIL_OK);
    m->memory_bytes = 64u << 20; /* a small buffer is enough here */
    assert_int_equal(kernels_select(&k, "auto", &err), DIL_OK);
    assert_int_equal(team_new(&t, 2, &err), DIL_OK);
    assert_int_equal(costs_measure(&c[0], m, &k, t, 0.0, NULL, NULL, &err), DIL_OK);
    for (int i = 0; i < DIL_TYPE_COUNT; i++) {
        const dil_type type = (dil_type)i;
        const bool has = panel_bytes(type, 2048) > 0, caches = kv_page_bytes(type, 128) > 0;
        const double one = cost_panel(&c[0].linear[type], &k, type, 2048, 1),
                     many = cost_panel(&c[0].linear[type], &k, type, 2048, 256);
        assert_true(has ? one > 1e-9 && one < 0.1 && many > one : one <= 0.0 && many <= 0.0);
        const attention_cost *a = &c[0].attention[type];
        const double page = a->page + a->row + 64 * (a->page_value + a->row_value);
        assert_true(caches ? page > 0.0 && page < 0.1 && c[0].store[type] > 0.0 : page <= 0.0 && c[0].store[type] <= 0.0);
    }
    assert_true(c[0].vector.norm > 0.0 && c[0].vector.quantize > 0.0 && c[0].vector.rope > 0.0 && c[0].vector.act[1] > 0.0);
    memcpy(&c[1], &c[0], sizeof *c);
    for (int64_t i = 0; i < 3; i++) {
        mem_inject_failure(i);
        dil_status status = costs_measure(&c[0], m, &k, t, 0.0, NULL, NULL, &err);
        mem_inject_failure(-1);
        assert_int_equal(status, DIL_NO_MEMORY);
        assert_memory_equal(&c[0], &c[1], sizeof *c);
    }
    team_free(t);
    machine_free(m);
    mem_free(c);
}

/* A pause is not part of what it took; of the costs only those that were asked for are measured. */
static void measured_now(void **state)
{
    (void)state;
    kernels k;
    machine *m;
    team *t;
    machine_rate on, paused; /* a repetition takes some milliseconds */
    dil_error err = {0};
    const costs_wanted wanted = {{DIL_TYPE_Q4_0, DIL_TYPE_Q6_K}, DIL_TYPE_F16, DIL_TYPE_Q8_0, 2 << 20, 0.02};
    kernel_costs *c = mem_calloc(1, sizeof *c, MEM_MISC);
    assert_non_null(c);
    assert_int_equal(machine_topology(&m, NULL, &err), DIL_OK);
    assert_int_equal(kernels_select(&k, "auto", &err), DIL_OK);
    assert_int_equal(team_new(&t, 2, &err), DIL_OK);
    assert_int_equal(machine_measure_reading(&on, m, &k, t, 2 << 20, 0.0, 0.0, &err), DIL_OK);
    const uint64_t began = os_time_ns();
    assert_int_equal(machine_measure_reading(&paused, m, &k, t, 2 << 20, 0.1, 0.0, &err), DIL_OK);
    assert_true(os_time_ns() - began > 5 * 100000000);
    assert_true(paused.best > 0.05 * on.best);
    assert_int_equal(costs_measure_now(c, m, &k, t, &wanted, &err), DIL_OK);
    for (int i = 0; i < DIL_TYPE_COUNT; i++) {
        const linear_cost *l = &c->linear[i];
        const attention_cost *a = &c->attention[i]; /* differences of measurements: some of them may be 0 */
        assert_true((l->value + l->row > 0.0) == (i == DIL_TYPE_Q4_0 || i == DIL_TYPE_Q6_K));
        assert_true((a->page + a->page_value + a->row + a->row_value > 0.0) == (i == DIL_TYPE_F16 || i == DIL_TYPE_Q8_0));
    }
    team_free(t);
    machine_free(m);
    mem_free(c);
}

/* gemm: straight between what was measured, in proportion beyond; gemv in calls of GEMV_TOKENS; stalls fade with tokens. */
static void costs_added_up(void **state)
{
    (void)state;
    kernels k = {.gemm_from[DIL_TYPE_Q8_0] = 8};
    const linear_cost cost = {1, 2, 0.5, 0.25, {10, 20, 30, 50, 200}, 0.8, 0.1}, *l = &cost;
    assert_float_equal(cost_panel(l, &k, DIL_TYPE_Q8_0, 100, 1), 201, 1e-9);
    assert_float_equal(cost_panel(l, &k, DIL_TYPE_Q8_0, 100, 5), 2 * 201 + 3 * 50, 1e-9);
    assert_float_equal(cost_panel(l, &k, DIL_TYPE_Q8_0, 100, 8), 8 * 0.25 + 1000, 1e-9);
    assert_float_equal(cost_gemm(l, 100, 24), 24 * 0.25 + 2500, 1e-9);
    assert_float_equal(cost_gemm(l, 100, 160), 160 * 0.25 + 12500, 1e-9);
    assert_float_equal(cost_gemm(l, 100, 512), 512 * 0.25 + 40000, 1e-9);
    assert_float_equal(cost_gemm(l, 100, 1), 0.25 + 500, 1e-9); /* never less than half of what eight take */
    assert_float_equal(cost_stall(l, 1), 0.8, 1e-9);
    assert_float_equal(cost_stall(l, 300), 0.1, 1e-9);
}

/* A curve is read between its points on the time of a byte, and goes on level at its ends. */
static void curve_read(void **state)
{
    (void)state;
    machine_limits l = {.n_threads = 1};
    for (int i = 0; i < READ_POINTS; i++)
        l.curve[i] = (machine_rate){100.0 / (i + 1), 100.0 / (i + 1)};
    assert_float_equal(machine_read_rate(&l, 1), 100.0, 1e-9);
    assert_float_equal(machine_read_rate(&l, (double)machine_read_point(2)), 100.0 / 3, 1e-9);
    assert_float_equal(machine_read_rate(&l, sqrt(2) * (double)machine_read_point(2)), 100.0 / 3.5, 1e-9);
    assert_float_equal(machine_read_rate(&l, 1e15), 100.0 / READ_POINTS, 1e-9);
    assert_float_equal(cost_together(3, 0, 1), 3.0, 1e-9);
    assert_float_equal(cost_together(3, 2, 0.5), 4.0, 1e-9);
    assert_float_equal(cost_together(1, 9, 0.5), 9.0, 1e-9); /* never faster than reading alone */
}

/* The only file in the folder of facts. */
static char facts_path[1024];

static void note_file(void *ctx, const char *name, bool is_dir, uint64_t size)
{
    (void)is_dir;
    (void)size;
    ++*(int *)ctx;
    (void)snprintf(facts_path, sizeof facts_path, "%s/dilmodeli/machine/%s", directory, name);
}

static int count_files(void)
{
    char folder[600];
    dil_error err;
    int n = 0;
    (void)snprintf(folder, sizeof folder, "%s/dilmodeli/machine", directory);
    assert_int_equal(os_list_dir(folder, note_file, &n, &err), DIL_OK);
    return n;
}

static bool stop_at_once(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user, (void)what, (void)done, (void)total;
    return false;
}

static dil_status get(machine_facts *f, const machine *m, const kernels *k, facts_use use)
{
    dil_error err = {0};
    return machine_facts_get(f, m, k, 1, use, NULL, NULL, &err);
}

/* Costs of two formats, and of the one that starts are measured with, are enough here. */
static void leave_out_formats(kernels *k)
{
    for (int type = 0; type < DIL_TYPE_COUNT; type++)
        if (type != DIL_TYPE_F32 && type != DIL_TYPE_Q4_K && type != DIL_TYPE_Q8_0)
            k->linear[type] = (linear_kernels){0};
}

static size_t different_bytes(const machine_facts *a, const machine_facts *b)
{
    size_t n = 0;
    for (size_t i = 0; i < sizeof *a; i++)
        n += ((const uint8_t *)a)[i] != ((const uint8_t *)b)[i];
    return n;
}

static void facts_kept(void **state)
{
    (void)state;
    kernels k, other;
    machine *m;
    dil_error err = {0};
    machine_facts *f = mem_calloc(2, sizeof *f, MEM_MISC);
    assert_non_null(f);
    assert_int_equal(setenv("XDG_CACHE_HOME", directory, 1), 0);
    assert_int_equal(machine_topology(&m, NULL, &err), DIL_OK);
    m->memory_bytes = 64u << 20; /* a small buffer is enough here */
    assert_int_equal(kernels_select(&k, "auto", &err), DIL_OK);
    leave_out_formats(&k);
    other = k;
    other.name = "another";
    assert_int_equal(machine_facts_get(&f[0], m, &k, 1, FACTS_KEPT, stop_at_once, NULL, &err), DIL_CANCELLED);
    assert_int_equal(count_files(), 0);
    assert_int_equal(get(&f[0], m, &k, FACTS_KEPT), DIL_OK);
    assert_int_equal(get(&f[1], m, &k, FACTS_KEPT), DIL_OK);
    assert_memory_equal(&f[0], &f[1], sizeof *f); /* not measured again */
    assert_int_equal(count_files(), 1);
    assert_int_equal(f[0].n_counts, 1);
    measured(f[0].limits[0].curve[READ_POINTS - 1]);
    assert_ptr_equal(machine_facts_limits(&f[0], 7), &f[0].limits[0]);
    assert_true(machine_weight_rate(&f[0], DIL_TYPE_F32, 1, 1e9) <
                machine_weight_rate(&f[0], DIL_TYPE_Q4_K, 1, 1e9)); /* 8 x the bytes */
    FILE *file = fopen(facts_path, "r+b");                          /* one bit of one fact */
    assert_non_null(file);
    assert_int_equal(fseek(file, -200, SEEK_END), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, -200, SEEK_END), 0);
    assert_int_equal(fputc(byte ^ 1, file), byte ^ 1);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(get(&f[1], m, &k, FACTS_KEPT), DIL_OK);
    assert_true(different_bytes(&f[0], &f[1]) > 1); /* measured anew, not read with that bit */
    assert_int_equal(get(&f[0], m, &k, FACTS_KEPT), DIL_OK);
    assert_memory_equal(&f[0], &f[1], sizeof *f);
    assert_int_equal(get(&f[1], m, &k, FACTS_AGAIN), DIL_OK);
    assert_memory_not_equal(&f[0], &f[1], sizeof *f); /* because that was asked for */
    assert_int_equal(get(&f[0], m, &k, FACTS_OF_QUIET), DIL_OK);
    assert_true(f[1].busy || memcmp(&f[0], &f[1], sizeof *f) == 0); /* those of a quiet machine stay */
    assert_int_equal(get(&f[1], m, &other, FACTS_KEPT), DIL_OK);
    assert_int_equal(count_files(), 2); /* other kernels, other facts */
    assert_int_equal(setenv("XDG_CACHE_HOME", "/proc/nowhere", 1), 0);
    assert_int_equal(get(&f[1], m, &k, FACTS_KEPT), DIL_IO);
    assert_int_equal(setenv("XDG_CACHE_HOME", directory, 1), 0);
    machine_free(m);
    mem_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_nested),  cmocka_unit_test(limits_container), cmocka_unit_test(limits_version_1),
        cmocka_unit_test(limits_none),    cmocka_unit_test(smt_and_numa),     cmocka_unit_test(part_of_a_machine),
        cmocka_unit_test(quota),          cmocka_unit_test(hybrid),           cmocka_unit_test(broken_description),
        cmocka_unit_test(this_machine),   cmocka_unit_test(no_memory),        cmocka_unit_test(limits_measured),
        cmocka_unit_test(costs_measured), cmocka_unit_test(measured_now),     cmocka_unit_test(costs_added_up),
        cmocka_unit_test(facts_kept),     cmocka_unit_test(curve_read),
    };
    return cmocka_run_group_tests(tests, make_room, clear_room);
}
