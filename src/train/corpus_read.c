/* Texts from files: plain or compressed, whole, checked. */
#include <zstd.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"
#include "train/corpus.h"

#define MOST_BYTES ((size_t)16 << 30) /* of a file, and of its text */

/* ---- .zst ---- */

typedef struct inflated {
    char *p;
    size_t n, room;
} inflated;

static dil_status make_room(inflated *out, const char *path, dil_error *err)
{
    if (out->n < out->room)
        return DIL_OK;
    size_t room = out->room < MOST_BYTES / 2 ? 2 * out->room : MOST_BYTES;
    if (out->room == MOST_BYTES)
        return DIL_FAIL(err, DIL_LIMIT, "%s: wanted at most %zu bytes of text, found more", path, MOST_BYTES);
    char *bigger = mem_grow(out->p, room, MEM_TEXT);
    if (!bigger)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory for its text", path);
    out->p = bigger;
    out->room = room;
    return DIL_OK;
}

static dil_status inflate(inflated *out, ZSTD_DStream *stream, const char *path, str packed, dil_error *err)
{
    ZSTD_inBuffer in = {packed.p, packed.n, 0};
    for (size_t left = 1; left != 0 || in.pos < in.size;) {
        DIL_TRY(make_room(out, path, err));
        ZSTD_outBuffer piece = {out->p + out->n, out->room - out->n, 0};
        size_t before = in.pos;
        left = ZSTD_decompressStream(stream, &piece, &in);
        if (ZSTD_isError(left))
            return DIL_FAIL(err, DIL_FORMAT, "%s: wanted zstd data, found at byte %zu: %s", path, in.pos, ZSTD_getErrorName(left));
        out->n += piece.pos;
        if (left != 0 && piece.pos == 0 && in.pos == before)
            return DIL_FAIL(err, DIL_FORMAT, "%s: wanted the end of its zstd data, found the end of the file at byte %zu", path,
                            in.size);
    }
    return DIL_OK;
}

/* *text is replaced. */
static dil_status decompress(const char *path, char **text, size_t *n, dil_error *err)
{
    inflated out = {.room = *n < MOST_BYTES / 4 ? 4 * *n + 64 : MOST_BYTES};
    out.p = mem_alloc(out.room, MEM_TEXT);
    ZSTD_DStream *stream = ZSTD_createDStream();
    dil_status status = out.p && stream ? inflate(&out, stream, path, (str){*text, *n}, err)
                                        : DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory to decompress it", path);
    ZSTD_freeDStream(stream);
    if (status != DIL_OK) {
        mem_free(out.p);
        return status;
    }
    mem_free(*text);
    *text = out.p;
    *n = out.n;
    return DIL_OK;
}

/* ---- the call ---- */

static dil_status check_utf8(const char *path, str text, dil_error *err)
{
    uint32_t code;
    for (size_t i = 0; i < text.n;) {
        uint64_t eight;
        if (text.n - i >= 8 && (memcpy(&eight, text.p + i, 8), (eight & 0x8080808080808080u) == 0)) {
            i += 8;
            continue;
        }
        int length = utf8_decode(text.p + i, text.n - i, &code);
        if (length == 0)
            return DIL_FAIL(err, DIL_FORMAT, "%s: wanted UTF-8 text, found 0x%02X at byte %zu of the text", path,
                            (unsigned)(unsigned char)text.p[i], i);
        i += (size_t)length;
    }
    return DIL_OK;
}

/* The end of the line in which the training part would end; the whole text when that is the last one. */
static size_t cut(str text, double held_out)
{
    if (held_out <= 0 || text.n == 0)
        return text.n;
    size_t at = (size_t)((double)text.n * (1 - held_out));
    const char *line_end = at < text.n ? memchr(text.p + at, '\n', text.n - at) : NULL;
    return line_end ? (size_t)(line_end - text.p) + 1 : text.n;
}

dil_status corpus_read(const corpus_source *source, char **text, size_t *n, size_t *n_train, dil_error *err)
{
    char *p = NULL;
    size_t size = 0;
    if (!(source->held_out >= 0 && source->held_out <= 0.5))
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: held_out: wanted 0 .. 0.5, found %g", source->path, source->held_out);
    DIL_TRY(os_read_all(source->path, MOST_BYTES, &p, &size, err));
    dil_status status = str_ends(str_of(source->path), STR(".zst")) ? decompress(source->path, &p, &size, err) : DIL_OK;
    if (status == DIL_OK)
        status = check_utf8(source->path, (str){p, size}, err);
    if (status != DIL_OK) {
        mem_free(p);
        return status;
    }
    *text = p;
    *n = size;
    *n_train = cut((str){p, size}, source->held_out);
    return DIL_OK;
}
