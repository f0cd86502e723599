/*
 * Layout, little-endian: head | config's JSON | values | prices | moments | sum. The head has a check of its own and of the JSON, so
 * that they can be read alone; sum covers every byte before it. Sums chain over pieces of at most PIECE_BYTES, each section from its
 * beginning.
 */
#include "train/checkpoint.h"

#include <xxhash.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "train/config_table.h"

#define VERSION 1
#define PIECE_BYTES ((size_t)1 << 20)
#define MOST_CONFIG_BYTES ((uint32_t)1 << 20)

static const char magic[8] = {'D', 'I', 'L', 'T', 'R', 'A', 'I', 'N'};

/* Without padding: written as it is. */
typedef struct head {
    char magic[8];
    uint32_t version, config_bytes;
    uint64_t n_values, n_prices, n_moments; /* floats */
    uint64_t step, tokens;
    double seconds;
    uint64_t log_bytes;
    char level[24];
    uint32_t n_vocab, texts;
    uint64_t head_sum; /* of what stands before it, then the JSON */
} head;

_Static_assert(sizeof(head) == 112, "the head has no padding");

/* A run of floats of the file. */
typedef struct section {
    float *p;
    size_t n;
} section;

#define N_SECTIONS 3

static void list_sections(section out[N_SECTIONS], net *n, optimiser *o)
{
    const net_config *c = net_config_of(n);
    size_t n_prices = net_prices(n) ? (size_t)c->n_layer * (size_t)c->n_experts : 0;
    out[0] = (section){net_values(n), net_size(n)};
    out[1] = (section){net_prices(n), n_prices};
    out[2] = (section){o ? optimiser_state(o) : NULL, o ? optimiser_state_size(o) : 0};
}

static uint64_t head_sum(const head *h, const char *json)
{
    return XXH3_64bits_withSeed(json, h->config_bytes, XXH3_64bits(h, offsetof(head, head_sum)));
}

static size_t piece_length(size_t left) { return left < PIECE_BYTES ? left : PIECE_BYTES; }

/* ---- writing ---- */

static dil_status write_section(os_writer *w, const section *s, uint64_t *sum, dil_error *err)
{
    const char *p = (const char *)s->p;
    for (size_t left = s->n * sizeof(float), n; left > 0; left -= n, p += n) {
        n = piece_length(left);
        *sum = XXH3_64bits_withSeed(p, n, *sum);
        DIL_TRY(os_writer_write(w, p, n, err));
    }
    return DIL_OK;
}

static dil_status write_all(os_writer *w, const head *h, const char *json, const section *sections, dil_error *err)
{
    uint64_t sum = h->head_sum;
    DIL_TRY(os_writer_write(w, h, sizeof *h, err));
    DIL_TRY(os_writer_write(w, json, h->config_bytes, err));
    for (int i = 0; i < N_SECTIONS; i++)
        DIL_TRY(write_section(w, &sections[i], &sum, err));
    DIL_TRY(os_writer_write(w, &sum, sizeof sum, err));
    return os_writer_commit(w, err);
}

dil_status checkpoint_save(const char *path, const train_config *config, const checkpoint_state *state, net *n, optimiser *o,
                           dil_error *err)
{
    os_writer w;
    section sections[N_SECTIONS];
    strbuf json = STRBUF(MOST_CONFIG_BYTES);
    dil_status status = train_config_print(config, &json, err);
    if (status != DIL_OK)
        goto done;
    list_sections(sections, n, o);
    head h = {.version = VERSION,
              .config_bytes = (uint32_t)json.n,
              .n_values = sections[0].n,
              .n_prices = sections[1].n,
              .n_moments = sections[2].n,
              .step = state->step,
              .tokens = state->tokens,
              .seconds = state->seconds,
              .log_bytes = state->log_bytes,
              .n_vocab = (uint32_t)net_config_of(n)->n_vocab,
              .texts = state->texts};
    memcpy(h.magic, magic, sizeof magic);
    memcpy(h.level, state->level, sizeof h.level);
    h.head_sum = head_sum(&h, json.p);
    status = os_writer_open(&w, path, err);
    if (status != DIL_OK)
        goto done;
    status = write_all(&w, &h, json.p, sections, err);
    os_writer_abort(&w); /* does nothing to a committed file */
done:
    strbuf_free(&json);
    return status;
}

/* ---- reading ---- */

typedef struct input {
    const char *path;
    os_file file;
    head h;
    char *json; /* [h.config_bytes] */
    train_config config;
} input;

static dil_status damaged(const input *in, const char *what, dil_error *err)
{
    return DIL_FAIL(err, DIL_FORMAT, "%s: %s: wanted the checksum that was written with it, found another; the file is damaged",
                    in->path, _(what));
}

static dil_status check_head(const input *in, dil_error *err)
{
    const head *h = &in->h;
    uint64_t floats, bytes;
    if (memcmp(h->magic, magic, sizeof magic) != 0)
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted a checkpoint of dil train, found another file", in->path);
    if (h->version != VERSION)
        return DIL_FAIL(err, DIL_UNSUPPORTED, "%s: version: wanted %d, found %u", in->path, VERSION, h->version);
    bool fits = h->config_bytes <= MOST_CONFIG_BYTES && checked_add_u64(h->n_values, h->n_prices, &floats) &&
                checked_add_u64(floats, h->n_moments, &floats) && checked_mul_u64(floats, sizeof(float), &bytes) &&
                checked_add_u64(bytes, sizeof *h + h->config_bytes + sizeof(uint64_t), &bytes);
    if (!fits)
        return damaged(in, N_("head"), err);
    if (in->file.size_bytes != bytes)
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted %llu bytes, found %llu; the file is %s", in->path, (unsigned long long)bytes,
                        (unsigned long long)in->file.size_bytes, in->file.size_bytes < bytes ? _("cut off") : _("too long"));
    return DIL_OK;
}

static void close_input(input *in)
{
    if (!in)
        return;
    os_file_close(&in->file);
    mem_free(in->json);
    mem_free(in);
}

static dil_status read_head(input *in, dil_error *err)
{
    head *h = &in->h;
    DIL_TRY(os_file_open(&in->file, in->path, err));
    if (in->file.size_bytes < sizeof *h)
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted at least %zu bytes, found %llu; the file is cut off", in->path, sizeof *h,
                        (unsigned long long)in->file.size_bytes);
    DIL_TRY(os_file_read(&in->file, 0, h, sizeof *h, err));
    DIL_TRY(check_head(in, err));
    in->json = mem_alloc(h->config_bytes, MEM_FILE);
    if (!in->json)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to read it", in->path);
    DIL_TRY(os_file_read(&in->file, sizeof *h, in->json, h->config_bytes, err));
    if (head_sum(h, in->json) != h->head_sum || h->n_vocab > INT32_MAX || h->level[sizeof h->level - 1] != '\0')
        return damaged(in, N_("head"), err);
    DIL_TRY(train_config_parse(&in->config, (str){in->json, h->config_bytes}, "checkpoint's config", err));
    in->config.net.n_vocab = (int)h->n_vocab;
    return DIL_OK;
}

/* [owned: free with close_input] */
static dil_status open_input(input **out, const char *path, dil_error *err)
{
    input *in = mem_calloc(1, sizeof *in, MEM_FILE);
    if (!in)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to read it", path);
    in->path = path;
    in->file.fd = -1;
    dil_status status = read_head(in, err);
    if (status == DIL_OK)
        *out = in;
    else
        close_input(in);
    return status;
}

dil_status checkpoint_open(const char *path, train_config *config, checkpoint_state *state, dil_error *err)
{
    input *in;
    DIL_TRY(open_input(&in, path, err));
    const head *h = &in->h;
    *config = in->config;
    *state = (checkpoint_state){
        .step = h->step, .tokens = h->tokens, .seconds = h->seconds, .log_bytes = h->log_bytes, .texts = h->texts};
    memcpy(state->level, h->level, sizeof state->level);
    close_input(in);
    return DIL_OK;
}

static uint64_t data_offset(const input *in) { return sizeof in->h + in->h.config_bytes; }

/* Every byte is looked at before anything is taken, so that a damaged file leaves the net as it is. */
static dil_status verify(const input *in, dil_error *err)
{
    const uint64_t counts[N_SECTIONS] = {in->h.n_values, in->h.n_prices, in->h.n_moments};
    uint64_t sum = in->h.head_sum, wanted, offset = data_offset(in);
    char *piece = mem_alloc(PIECE_BYTES, MEM_FILE);
    dil_status status = piece ? DIL_OK : DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to read it", in->path);
    for (int i = 0; i < N_SECTIONS; i++)
        for (uint64_t left = counts[i] * sizeof(float), n; status == DIL_OK && left > 0; left -= n, offset += n) {
            n = left < PIECE_BYTES ? left : PIECE_BYTES;
            status = os_file_read(&in->file, offset, piece, (size_t)n, err);
            sum = XXH3_64bits_withSeed(piece, (size_t)n, sum);
        }
    if (status == DIL_OK)
        status = os_file_read(&in->file, offset, &wanted, sizeof wanted, err);
    if (status == DIL_OK && sum != wanted)
        status = damaged(in, N_("values"), err);
    mem_free(piece);
    return status;
}

static dil_status check_shape(const input *in, const net *n, const section *sections, bool moments, dil_error *err)
{
    char ours[64], theirs[64];
    const char *key = config_shape_difference(net_config_of(n), &in->config.net, ours, theirs);
    if (key)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: %s: wanted %s, found %s; it is of another network", in->path, key, ours,
                        theirs);
    const uint64_t counts[N_SECTIONS] = {in->h.n_values, in->h.n_prices, in->h.n_moments};
    static const char *const names[N_SECTIONS] = {N_("values"), N_("prices"), N_("moments")};
    for (int i = 0; i < (moments ? N_SECTIONS : N_SECTIONS - 1); i++)
        if (counts[i] != sections[i].n)
            return DIL_FAIL(err, DIL_BAD_ARGUMENT,
                            i == 2 ? N_("%s: %s: wanted %zu, found %llu; it is of another optimiser")
                                   : N_("%s: %s: wanted %zu, found %llu; it is of another network"),
                            in->path, _(names[i]), sections[i].n, (unsigned long long)counts[i]);
    return DIL_OK;
}

static dil_status take(const input *in, net *n, optimiser *o, dil_error *err)
{
    section sections[N_SECTIONS];
    uint64_t offset = data_offset(in);
    list_sections(sections, n, o);
    DIL_TRY(check_shape(in, n, sections, o != NULL, err));
    DIL_TRY(verify(in, err));
    for (int i = 0; i < N_SECTIONS; i++) {
        size_t bytes = sections[i].n * sizeof(float);
        if (bytes > 0)
            DIL_TRY(os_file_read(&in->file, offset, sections[i].p, bytes, err));
        offset += bytes;
    }
    net_refresh(n);
    return DIL_OK;
}

dil_status checkpoint_load(const char *path, net *n, optimiser *o, dil_error *err)
{
    input *in;
    DIL_TRY(open_input(&in, path, err));
    dil_status status = take(in, n, o, err);
    close_input(in);
    return status;
}
