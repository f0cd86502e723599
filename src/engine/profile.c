#include "engine/profile.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "base/str.h"

#define PROFILE_VERSION 1
#define FOLDER "profiles"
#define FILE_BYTES_MOST ((size_t)1 << 20)

dil_status profile_path(char *out, size_t n, const profile_key *key, dil_error *err)
{
    const os_file *f = gguf_shard_file(key->m->file, 0);
    const uint64_t id[] = {f->device, f->inode, (uint64_t)key->n_threads};
    char base[2000];
    DIL_TRY(os_cache_path(base, sizeof base, err));
    const uint64_t name = XXH3_64bits_withSeed(key->k->name, strlen(key->k->name), XXH3_64bits(id, sizeof id));
    snprintf(out, n, "%s/%s/%016llx.json", base, FOLDER, (unsigned long long)name);
    return DIL_OK;
}

/* ---- the settings as JSON ---- */

static const struct {
    const char *name;
    size_t offset;
} numbers[] = {{"micro_batch", offsetof(profile, micro_batch)},
               {"items_few", offsetof(profile, tuning.items_few)},
               {"items_many", offsetof(profile, tuning.items_many)},
               {"threads_few", offsetof(profile, tuning.threads_few)},
               {"threads_many", offsetof(profile, tuning.threads_many)},
               {"part_rows", offsetof(profile, tuning.part_rows)},
               {"ahead", offsetof(profile, tuning.ahead)},
               {"attention_rows", offsetof(profile, tuning.attention_rows)}};
enum { N_NUMBERS = sizeof numbers / sizeof *numbers, NUMBER_MOST = 1 << 16 };

static json_t *settings_of(const profile *p)
{
    json_t *all = json_object(), *tiles = json_object();
    for (int i = 0; i < N_NUMBERS; i++)
        json_object_set_new(all, numbers[i].name,
                            json_integer(*(const int32_t *)(const void *)((const char *)p + numbers[i].offset)));
    for (int i = 0; i < STEP_KINDS; i++)
        if (p->tuning.tile[i].panels || p->tuning.tile[i].tokens)
            json_object_set_new(tiles, step_name((step_kind)i),
                                json_pack("[i,i]", p->tuning.tile[i].panels, p->tuning.tile[i].tokens));
    json_object_set_new(all, "tiles", tiles);
    return all;
}

/* A whole number in 0..NUMBER_MOST; anything else counts as 0, as usual. */
static int32_t number_of(const json_t *value)
{
    const json_int_t n = json_integer_value(value);
    return n > 0 && n <= NUMBER_MOST ? (int32_t)n : 0;
}

static void read_settings(profile *p, const json_t *all)
{
    const json_t *tiles = json_object_get(all, "tiles");
    memset(p, 0, sizeof *p);
    for (int i = 0; i < N_NUMBERS; i++)
        *(int32_t *)(void *)((char *)p + numbers[i].offset) = number_of(json_object_get(all, numbers[i].name));
    for (int i = 0; i < STEP_KINDS; i++) {
        const json_t *tile = json_object_get(tiles, step_name((step_kind)i));
        p->tuning.tile[i] = (compute_tile){number_of(json_array_get(tile, 0)), number_of(json_array_get(tile, 1))};
    }
}

static int add_piece(const char *piece, size_t n, void *ctx)
{
    strbuf *out = ctx;
    strbuf_add(out, piece, n);
    return out->failed ? -1 : 0;
}

/* Checksum of the settings, as text. */
static bool sum_of(const json_t *settings, char out[17])
{
    strbuf text = STRBUF(FILE_BYTES_MOST);
    const bool good = json_dump_callback(settings, add_piece, &text, JSON_COMPACT | JSON_SORT_KEYS) == 0;
    if (good)
        snprintf(out, 17, "%016llx", (unsigned long long)XXH3_64bits(text.p, text.n));
    strbuf_free(&text);
    return good;
}

/* ---- reading ---- */

/* Whether the profile is for what there is; why: what is not. */
static bool is_current(const json_t *root, const profile_key *key, char why[128])
{
    const os_file *f = gguf_shard_file(key->m->file, 0);
    const char *cpu = json_string_value(json_object_get(root, "cpu")), *build = json_string_value(json_object_get(root, "build"));
    const json_int_t bytes = json_integer_value(json_object_get(root, "model_bytes"));
    const json_int_t changed = json_integer_value(json_object_get(root, "model_mtime_ns"));
    const char *reason = !cpu || strcmp(cpu, cpu_name()) != 0                           ? N_("for another processor")
                         : !build || strcmp(build, kernels_build()) != 0                ? N_("by another build")
                         : bytes != (json_int_t)f->size_bytes || changed != f->mtime_ns ? N_("for another state of the file")
                                                                                        : NULL;
    if (reason)
        snprintf(why, 128, "%s", reason);
    return !reason;
}

static json_t *read_file(const char *path)
{
    char *text;
    size_t n;
    dil_error ignored;
    if (!os_exists(path) || os_read_all(path, FILE_BYTES_MOST, &text, &n, &ignored) != DIL_OK)
        return NULL;
    json_t *root = json_loadb(text, n, 0, NULL);
    mem_free(text);
    return root;
}

profile_state profile_load(profile *out, const profile_key *key, char why[128])
{
    char path[2200], sum[17];
    dil_error ignored;
    json_t *root = profile_path(path, sizeof path, key, &ignored) == DIL_OK ? read_file(path) : NULL;
    const json_t *settings = json_object_get(root, "settings");
    const char *kept = json_string_value(json_object_get(root, "sum"));
    profile_state state = PROFILE_NONE;
    if (settings && kept && json_integer_value(json_object_get(root, "version")) == PROFILE_VERSION && sum_of(settings, sum) &&
        strcmp(sum, kept) == 0)
        state = is_current(root, key, why) ? PROFILE_USED : PROFILE_STALE;
    if (state == PROFILE_USED)
        read_settings(out, settings);
    json_decref(root);
    return state;
}

/* ---- writing ---- */

static json_t *trials_of(const profile_trial *t, int32_t n)
{
    json_t *all = json_array();
    for (int32_t i = 0; i < n; i++)
        json_array_append_new(all,
                              json_pack("{s:s,s:s,s:f,s:f,s:f,s:i,s:b}", "what", t[i].what, "test", t[i].test, "ratio", t[i].ratio,
                                        "low", t[i].low, "high", t[i].high, "rounds", t[i].rounds, "kept", t[i].kept));
    return all;
}

static dil_status write_json(const char *path, const json_t *root, dil_error *err)
{
    strbuf text = STRBUF(FILE_BYTES_MOST);
    dil_status status = root && json_dump_callback(root, add_piece, &text, JSON_INDENT(1)) == 0
                            ? DIL_OK
                            : DIL_FAIL(err, DIL_NO_MEMORY, "profile: no memory to write it");
    if (status == DIL_OK)
        status = os_write_file(path, text.p, text.n, err);
    strbuf_free(&text);
    return status;
}

dil_status profile_save(const profile *p, const profile_key *key, const profile_trial *trials, int32_t n_trials, dil_error *err)
{
    const os_file *f = gguf_shard_file(key->m->file, 0);
    char path[2200], sum[17] = "";
    char base[2000], folder[2100];
    DIL_TRY(os_cache_dir(base, sizeof base, err));
    snprintf(folder, sizeof folder, "%s/" FOLDER, base);
    DIL_TRY(os_make_dirs(folder, err));
    DIL_TRY(profile_path(path, sizeof path, key, err));
    json_t *settings = settings_of(p);
    const bool summed = sum_of(settings, sum);
    json_t *root = json_pack("{s:i,s:s,s:s,s:s,s:i,s:s,s:I,s:I,s:o,s:s,s:o}", "version", PROFILE_VERSION, "cpu", cpu_name(),
                             "build", kernels_build(), "kernels", key->k->name, "threads", key->n_threads, "model",
                             gguf_path(key->m->file), "model_bytes", (json_int_t)f->size_bytes, "model_mtime_ns",
                             (json_int_t)f->mtime_ns, "settings", settings, "sum", sum, "tried", trials_of(trials, n_trials));
    dil_status status = write_json(path, summed ? root : NULL, err);
    json_decref(root);
    return status;
}
