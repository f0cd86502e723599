#include "quantize/convert.h"

#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/status.h"
#include "base/threads.h"

#define QUANTIZATION_VERSION 2
#define PIECE_VALUES (1u << 20) /* read, converted and written at a time */
#define CHUNK_VALUES (1u << 14) /* claimed by a worker at a time */

/* ---- which type a tensor gets ---- */

/* general.file_type counts mixtures, not types: a k-quant without a mixture is the "small" one. `wider` holds rows that are
 * no multiple of the block. */
typedef struct target {
    dil_type type, wider;
    uint32_t file_type;
} target;

static const target targets[] = {
    {DIL_TYPE_F32, DIL_TYPE_F32, 0},        {DIL_TYPE_F16, DIL_TYPE_F16, 1},         {DIL_TYPE_BF16, DIL_TYPE_BF16, 32},
    {DIL_TYPE_Q8_0, DIL_TYPE_F16, 7},       {DIL_TYPE_Q6_K, DIL_TYPE_Q8_0, 18},      {DIL_TYPE_Q5_1, DIL_TYPE_F16, 9},
    {DIL_TYPE_Q5_0, DIL_TYPE_F16, 8},       {DIL_TYPE_Q5_K, DIL_TYPE_Q5_1, 16},      {DIL_TYPE_Q4_1, DIL_TYPE_F16, 3},
    {DIL_TYPE_Q4_0, DIL_TYPE_F16, 2},       {DIL_TYPE_Q4_K, DIL_TYPE_Q5_0, 14},      {DIL_TYPE_IQ4_NL, DIL_TYPE_F16, 25},
    {DIL_TYPE_IQ4_XS, DIL_TYPE_IQ4_NL, 30}, {DIL_TYPE_Q3_K, DIL_TYPE_IQ4_NL, 11},    {DIL_TYPE_Q2_K, DIL_TYPE_IQ4_NL, 10},
    {DIL_TYPE_IQ3_S, DIL_TYPE_IQ4_NL, 26},  {DIL_TYPE_IQ3_XXS, DIL_TYPE_IQ4_NL, 23}, {DIL_TYPE_IQ2_S, DIL_TYPE_IQ4_NL, 28},
    {DIL_TYPE_IQ2_XS, DIL_TYPE_IQ4_NL, 20}, {DIL_TYPE_IQ2_XXS, DIL_TYPE_IQ4_NL, 19}, {DIL_TYPE_MXFP4, DIL_TYPE_F16, 38},
    {DIL_TYPE_NVFP4, DIL_TYPE_MXFP4, 39},   {DIL_TYPE_TQ2_0, DIL_TYPE_IQ4_NL, 37},   {DIL_TYPE_TQ1_0, DIL_TYPE_IQ4_NL, 36},
    {DIL_TYPE_IQ1_M, DIL_TYPE_IQ4_NL, 31},  {DIL_TYPE_IQ1_S, DIL_TYPE_IQ4_NL, 24},   {DIL_TYPE_Q2_0, DIL_TYPE_F16, 41},
    {DIL_TYPE_Q1_0, DIL_TYPE_Q2_0, 40},
};
#define N_TARGETS (sizeof targets / sizeof targets[0])

static const target *find_target(dil_type type)
{
    for (size_t i = 0; i < N_TARGETS; i++)
        if (targets[i].type == type && format_get(type)->encode)
            return &targets[i];
    return NULL;
}

bool convert_file_type(dil_type type, uint32_t *out)
{
    const target *t = find_target(type);
    if (t)
        *out = t->file_type;
    return t != NULL;
}

void convert_type_names(strbuf *out)
{
    for (size_t i = 0; i < N_TARGETS; i++)
        if (find_target(targets[i].type))
            strbuf_printf(out, "%s%s", i ? ", " : "", format_get(targets[i].type)->name);
}

static uint64_t n_rows(const gguf_tensor *t) { return t->ne[1] * t->ne[2] * t->ne[3]; } /* its bytes fit, so this does */

static bool contains(str s, const char *part) { return str_find(s, str_of(part)) >= 0; }

bool convert_is_matrix(const gguf_tensor *t)
{
    return n_rows(t) > 1 && format_get(t->type)->decode && str_ends(t->name, STR(".weight")) && !contains(t->name, "_norm") &&
           !contains(t->name, "rope_") && !contains(t->name, "ffn_gate_inp") && !contains(t->name, "position_embd") &&
           !contains(t->name, "token_types");
}

dil_type convert_tensor_type(const gguf_tensor *t, dil_type type)
{
    uint64_t bytes;
    if (!convert_is_matrix(t))
        return n_rows(t) == 1 && format_get(t->type)->decode ? DIL_TYPE_F32 : t->type;
    while (!format_row_bytes(type, t->ne[0], &bytes) && find_target(type)->wider != type)
        type = find_target(type)->wider;
    return type;
}

/* ---- one tensor ---- */

typedef struct converter {
    const convert_options *o;
    gguf *in;
    gguf_writer *out;
    team *workers;
    uint8_t *source, *target; /* a piece of rows; target == source when only copied */
    size_t source_bytes, target_bytes;
    float *values; /* [team_size][row_values]: the row a worker is at */
    size_t row_values;
    uint64_t done_bytes, total_bytes;
    _Atomic uint64_t bad_row; /* of the tensor at hand, + 1: one with values that are no numbers; 0: none was met */
} converter;

/* Rows of one piece. */
typedef struct piece {
    converter *c;
    const format *from, *to;
    size_t columns, n, from_row, to_row, rows_per_chunk;
    const gguf_tensor *t;
    uint64_t first; /* row of the tensor */
} piece;

static const float *importance_of(const piece *p, size_t row)
{
    const convert_options *o = p->c->o;
    return o->importance ? o->importance(o->importance_user, p->t->name, (p->first + row) / p->t->ne[1]) : NULL;
}

static bool all_finite(const float *x, size_t n)
{
    float sum = 0.0f;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * 0.0f; /* NaN for what is no number */
    return sum == 0.0f;
}

static void convert_rows(void *ctx, int worker)
{
    const piece *p = ctx;
    float *values = p->c->values + (size_t)worker * p->c->row_values;
    for (;;) {
        size_t row = team_claim(p->c->workers) * p->rows_per_chunk;
        if (row >= p->n)
            return;
        size_t end = row + p->rows_per_chunk < p->n ? row + p->rows_per_chunk : p->n;
        for (; row < end; row++) {
            p->from->decode(p->c->source + row * p->from_row, values, p->columns);
            if (p->to->is_quantized && !all_finite(values, p->columns))
                p->c->bad_row = p->first + row + 1;
            p->to->encode(values, p->c->target + row * p->to_row, p->columns, importance_of(p, row));
        }
    }
}

static bool grow(void **block, size_t *held, size_t wanted)
{
    if (wanted <= *held)
        return true;
    mem_free(*block);
    *block = mem_alloc(wanted, MEM_FILE);
    *held = *block ? wanted : 0;
    return *block != NULL;
}

/* Room for rows of the piece on both sides and for one row of floats per worker. */
static dil_status make_room(converter *c, const gguf_tensor *t, size_t columns, size_t source_bytes, size_t target_bytes,
                            dil_error *err)
{
    void *source = c->source, *encoded = c->target, *values = c->values;
    size_t held = c->row_values * (size_t)team_size(c->workers) * sizeof(float), wanted;
    bool good = checked_mul_size(columns, (size_t)team_size(c->workers) * sizeof(float), &wanted) &&
                grow(&source, &c->source_bytes, source_bytes) && grow(&encoded, &c->target_bytes, target_bytes) &&
                grow(&values, &held, wanted);
    c->source = source;
    c->target = encoded;
    c->values = values;
    if (!values)
        c->row_values = 0;
    if (!good)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: tensor '%.*s': no memory for a row of %zu values", gguf_path(c->in),
                        STR_ARG(t->name), columns);
    if (c->row_values < columns)
        c->row_values = columns;
    return DIL_OK;
}

static dil_status tell(converter *c, uint64_t bytes, dil_error *err)
{
    c->done_bytes += bytes;
    if (c->o->progress && !c->o->progress(c->o->user, "quantize", c->done_bytes, c->total_bytes))
        return DIL_FAIL(err, DIL_CANCELLED, "quantize: cancelled; nothing was written");
    return DIL_OK;
}

static dil_status convert_tensor(converter *c, const gguf_tensor *t, dil_type type, dil_error *err)
{
    const os_file *file = gguf_shard_file(c->in, t->shard);
    size_t columns = (size_t)t->ne[0], per_piece = columns < PIECE_VALUES ? PIECE_VALUES / columns : 1;
    uint64_t from_row, to_row, total = n_rows(t);
    if (!format_row_bytes(t->type, t->ne[0], &from_row) || !format_row_bytes(type, t->ne[0], &to_row))
        return DIL_FAIL(err, DIL_INTERNAL, "tensor '%.*s': a row of %zu values does not fit its type", STR_ARG(t->name), columns);
    if (per_piece > total)
        per_piece = (size_t)total;
    bool same = type == t->type;
    DIL_TRY(make_room(c, t, same ? 1 : columns, per_piece * (size_t)from_row, same ? 1 : per_piece * (size_t)to_row, err));
    for (uint64_t row = 0; row < total; row += per_piece) {
        size_t n = total - row < per_piece ? (size_t)(total - row) : per_piece;
        piece p = {.c = c,
                   .from = format_get(t->type),
                   .to = format_get(type),
                   .columns = columns,
                   .n = n,
                   .from_row = (size_t)from_row,
                   .to_row = (size_t)to_row,
                   .rows_per_chunk = columns < CHUNK_VALUES ? CHUNK_VALUES / columns : 1,
                   .t = t,
                   .first = row};
        DIL_TRY(os_file_read(file, t->offset + row * from_row, c->source, n * (size_t)from_row, err));
        if (!same)
            team_run(c->workers, convert_rows, &p);
        if (c->bad_row)
            return DIL_FAIL(err, DIL_FORMAT, "%s: tensor '%.*s': row %llu: wanted finite weights, found NaN or infinity",
                            gguf_path(c->in), STR_ARG(t->name), (unsigned long long)(c->bad_row - 1));
        DIL_TRY(gguf_writer_data(c->out, same ? c->source : c->target, n * (size_t)to_row, err));
        DIL_TRY(tell(c, n * from_row, err));
    }
    return DIL_OK;
}

/* ---- the file ---- */

/* Sizes and counts, for the report and the progress. */
static dil_status survey(convert_result *r, const gguf *in, const convert_options *o, dil_error *err)
{
    *r = (convert_result){.n_tensors = (uint32_t)gguf_n_tensors(in)};
    for (uint64_t i = 0; i < gguf_n_tensors(in); i++) {
        const gguf_tensor *t = gguf_tensor_at(in, i);
        dil_type type = convert_tensor_type(t, o->type);
        uint64_t row_bytes, bytes, n = t->ne[0] * n_rows(t);
        if (!format_row_bytes(type, t->ne[0], &row_bytes) || !checked_mul_u64(row_bytes, n_rows(t), &bytes) ||
            !checked_add_u64(r->out_bytes, bytes, &r->out_bytes))
            return DIL_FAIL(err, DIL_LIMIT, "%s: tensor '%.*s': as %s it would be longer than 2^64 bytes", gguf_path(in),
                            STR_ARG(t->name), format_get(type)->name);
        r->in_bytes += t->size_bytes;
        r->n_values += n;
        if (!convert_is_matrix(t))
            continue;
        r->n_matrices++;
        r->n_matrix_values += n;
        r->matrix_bytes += bytes;
        r->n_requantized += format_get(t->type)->is_quantized && type != t->type;
        r->n_fallback += type != o->type;
        if (type != o->type && o->fallback)
            o->fallback(o->user, t->name, t->ne[0], type);
    }
    return DIL_OK;
}

static dil_status write_directory(gguf_writer *w, const gguf *in, dil_type type, dil_error *err)
{
    static const char *const ours[] = {"general.file_type", "general.quantization_version"};
    uint32_t file_type = 0;
    (void)convert_file_type(type, &file_type);
    DIL_TRY(gguf_writer_copy_values(w, in, ours, 2, err));
    DIL_TRY(gguf_writer_set_u32(w, ours[0], file_type, err));
    DIL_TRY(gguf_writer_set_u32(w, ours[1], QUANTIZATION_VERSION, err));
    for (uint64_t i = 0; i < gguf_n_tensors(in); i++) {
        const gguf_tensor *t = gguf_tensor_at(in, i);
        DIL_TRY(gguf_writer_add_tensor(w, t->name, convert_tensor_type(t, type), t->n_dims, t->ne, err));
    }
    return DIL_OK;
}

static dil_status write_file(converter *c, const char *out_path, dil_error *err)
{
    dil_status status = gguf_writer_new(&c->out, out_path, err);
    if (status != DIL_OK)
        return status;
    status = write_directory(c->out, c->in, c->o->type, err);
    for (uint64_t i = 0; status == DIL_OK && i < gguf_n_tensors(c->in); i++) {
        const gguf_tensor *t = gguf_tensor_at(c->in, i);
        status = convert_tensor(c, t, convert_tensor_type(t, c->o->type), err);
    }
    if (status == DIL_OK)
        return gguf_writer_finish(c->out, err);
    gguf_writer_abort(c->out);
    return status;
}

dil_status convert_check_paths(const gguf *in, const char *out_path, dil_error *err)
{
    os_file f;
    dil_error ignored;
    if (!os_exists(out_path) || os_file_open(&f, out_path, &ignored) != DIL_OK)
        return DIL_OK;
    bool same = false;
    for (int i = 0; i < gguf_shards(in); i++)
        same = same || (gguf_shard_file(in, i)->device == f.device && gguf_shard_file(in, i)->inode == f.inode);
    os_file_close(&f);
    if (same)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "output: wanted a file other than the input, found %s twice; choose another name",
                        out_path);
    return DIL_OK;
}

dil_status convert_file(convert_result *out, const char *in_path, const char *out_path, const convert_options *options,
                        dil_error *err)
{
    converter c = {.o = options};
    convert_result result;
    gguf_options header = {.header_only = true};
    if (!format_get(options->type) || !find_target(options->type))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "quantize: files of type %s cannot be written",
                        format_get(options->type) ? format_get(options->type)->name : "?");
    DIL_TRY(gguf_open(&c.in, in_path, &header, err));
    dil_status status = survey(&result, c.in, options, err);
    c.total_bytes = result.in_bytes;
    if (status == DIL_OK && !options->dry_run) {
        status = convert_check_paths(c.in, out_path, err);
        if (status == DIL_OK)
            status = team_new(&c.workers, options->n_threads, err);
        if (status == DIL_OK)
            status = write_file(&c, out_path, err);
    }
    team_free(c.workers);
    mem_free(c.source);
    mem_free(c.target);
    mem_free(c.values);
    gguf_close(c.in);
    if (status == DIL_OK)
        *out = result;
    return status;
}
