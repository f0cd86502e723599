#include "base/catalog.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/os.h"
#include "base/status.h"

/*
 * The file: magic, revision (major << 16 | minor), number of texts, offset of the table of originals, offset of the table of
 * translations; a table has (length, offset) for every text, originals in ascending order of their bytes. Texts end in a NUL, which the
 * length does not count.
 */
enum { MAGIC_AT = 0, REVISION_AT = 4, COUNT_AT = 8, ORIGINALS_AT = 12, TRANSLATIONS_AT = 16, HEADER_BYTES = 20, ENTRY_BYTES = 8 };
#define MAGIC 0x950412deu
#define MOST_BYTES ((size_t)8 << 20)

struct catalog {
    char *bytes;
    size_t n;
    uint32_t count, originals, translations;
};

static uint32_t number_at(const catalog *c, size_t at)
{
    uint32_t v; /* little-endian, as the machines this runs on */
    memcpy(&v, c->bytes + at, sizeof v);
    return v;
}

static const char *entry(const catalog *c, uint32_t table, uint32_t i)
{
    return c->bytes + number_at(c, (size_t)table + (size_t)i * ENTRY_BYTES + 4);
}

static bool entry_good(const catalog *c, uint32_t table, uint32_t i)
{
    const size_t at = (size_t)table + (size_t)i * ENTRY_BYTES, length = number_at(c, at), offset = number_at(c, at + 4);
    return offset < c->n && length < c->n - offset && c->bytes[offset + length] == '\0';
}

static bool tables_good(const catalog *c)
{
    const size_t table_bytes = (size_t)c->count * ENTRY_BYTES;
    return table_bytes <= c->n && c->originals <= c->n - table_bytes && c->translations <= c->n - table_bytes;
}

static dil_status check(catalog *c, const char *path, dil_error *err)
{
    if (c->n < HEADER_BYTES || number_at(c, MAGIC_AT) != MAGIC || number_at(c, REVISION_AT) >> 16 != 0)
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted a catalog of translations (.mo), found something else", path);
    c->count = number_at(c, COUNT_AT);
    c->originals = number_at(c, ORIGINALS_AT);
    c->translations = number_at(c, TRANSLATIONS_AT);
    if (!tables_good(c))
        return DIL_FAIL(err, DIL_FORMAT, "%s: wanted tables of %u translations, found the end of the file", path, c->count);
    for (uint32_t i = 0; i < c->count; i++)
        if (!entry_good(c, c->originals, i) || !entry_good(c, c->translations, i) ||
            (i > 0 && strcmp(entry(c, c->originals, i - 1), entry(c, c->originals, i)) >= 0))
            return DIL_FAIL(err, DIL_FORMAT, "%s: translation %u: wanted a text within the file and in order, found another", path,
                            i);
    return DIL_OK;
}

dil_status catalog_open(catalog **out, const char *path, dil_error *err)
{
    catalog *c = mem_calloc(1, sizeof *c, MEM_TEXT);
    if (!c)
        return DIL_FAIL(err, DIL_NO_MEMORY, "%s: no memory", path);
    dil_status status = os_read_all(path, MOST_BYTES, &c->bytes, &c->n, err);
    if (status == DIL_OK)
        status = check(c, path, err);
    if (status == DIL_OK)
        *out = c;
    else
        catalog_close(c);
    return status;
}

const char *catalog_text(const catalog *c, const char *text)
{
    if (text[0] == '\0') /* its translation is the catalog's header */
        return text;
    for (uint32_t low = 0, high = c->count; low < high;) {
        const uint32_t middle = low + (high - low) / 2;
        const int order = strcmp(text, entry(c, c->originals, middle));
        if (order == 0)
            return entry(c, c->translations, middle);
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return text;
}

void catalog_close(catalog *c)
{
    if (c)
        mem_free(c->bytes);
    mem_free(c);
}
