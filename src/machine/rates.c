#include "machine/rates.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/cpu.h"
#include "base/os.h"
#include "base/status.h"

#define RATES_VERSION 1u  /* changes with the file, and with kernels whose speed has changed */
#define RATE_SECONDS 0.05 /* for each format */

typedef struct rates_file {
    char magic[8];
    uint64_t key, sum; /* of what they were measured for; checksum of the rates */
    machine_rates rates;
} rates_file;

static const char magic[8] = {'D', 'I', 'L', 'R', 'A', 'T', 'E', 'S'};

/* Of all that rates depend on. */
static uint64_t key_of(const machine *m, const kernels *k, int n_threads)
{
    const uint64_t numbers[] = {RATES_VERSION, DIL_TYPE_COUNT, (uint64_t)n_threads, (uint64_t)m->n_cores, m->caches[2].size_bytes};
    uint64_t key = XXH3_64bits(numbers, sizeof numbers);
    key = XXH3_64bits_withSeed(cpu_name(), strlen(cpu_name()), key);
    return XXH3_64bits_withSeed(k->name, strlen(k->name), key);
}

static dil_status find_path(char *out, size_t n, uint64_t key, dil_error *err)
{
    char base[2000], folder[2100];
    DIL_TRY(os_cache_dir(base, sizeof base, err));
    snprintf(folder, sizeof folder, "%s/rates", base);
    DIL_TRY(os_make_dirs(folder, err));
    snprintf(out, n, "%s/%016llx.rates", folder, (unsigned long long)key);
    return DIL_OK;
}

static bool load(const char *path, uint64_t key, machine_rates *out)
{
    os_file f;
    rates_file r;
    dil_error ignored;
    if (!os_exists(path) || os_file_open(&f, path, &ignored) != DIL_OK)
        return false;
    bool good = f.size_bytes == sizeof r && os_file_read(&f, 0, &r, sizeof r, &ignored) == DIL_OK;
    os_file_close(&f);
    good = good && memcmp(r.magic, magic, sizeof magic) == 0 && r.key == key &&
           r.sum == XXH3_64bits_withSeed(&r.rates, sizeof r.rates, key);
    if (good)
        *out = r.rates;
    return good;
}

static dil_status save(const char *path, uint64_t key, const machine_rates *rates, dil_error *err)
{
    os_writer w;
    rates_file r = {.key = key, .sum = XXH3_64bits_withSeed(rates, sizeof *rates, key), .rates = *rates};
    memcpy(r.magic, magic, sizeof magic);
    DIL_TRY(os_writer_open(&w, path, err));
    dil_status status = os_writer_write(&w, &r, sizeof r, err);
    if (status == DIL_OK)
        return os_writer_commit(&w, err);
    os_writer_abort(&w);
    return status;
}

static dil_status measure(machine_rates *out, const machine *m, const kernels *k, int n_threads, dil_error *err)
{
    team *t;
    int cpus[TEAM_MAX];
    DIL_TRY(team_new(&t, n_threads, err));
    if (machine_thread_cpus(m, cpus, n_threads) == n_threads)
        team_pin(t, cpus, NULL);
    dil_status status = machine_measure_rates(out, m, k, t, RATE_SECONDS, err);
    team_free(t);
    return status;
}

dil_status machine_rates_get(machine_rates *out, const kernels *k, dil_error *err)
{
    char path[2200];
    machine *m;
    machine_rates r = {0};
    DIL_TRY(machine_topology(&m, NULL, err));
    int n_threads = machine_default_threads(m) < TEAM_MAX ? machine_default_threads(m) : TEAM_MAX;
    const uint64_t key = key_of(m, k, n_threads);
    dil_status status = find_path(path, sizeof path, key, err);
    bool known = status == DIL_OK && load(path, key, &r);
    if (status == DIL_OK && !known)
        status = measure(&r, m, k, n_threads, err);
    if (status == DIL_OK && !known)
        status = save(path, key, &r, err);
    machine_free(m);
    if (status == DIL_OK)
        *out = r;
    return status;
}
